//! What the pod's own programs call.
//!
//! ```text
//! app ─▶ intercept ─▶ recognise ─▶ authenticate ─▶ pick ─▶ transport ─▶ bytes both ways
//!     or explicit        │                          ▲          │
//!                        │                          └─ reach ──┘  candidates, raced, within the connect deadline
//!                        └─ no service: untouched to where it was going (legacy)
//! ```
//!
//! Each phase is a module, and gives a value that only it can make. A connection that cannot be carried ends with a
//! reset; it never goes on in clear text because something failed. What failed is remembered (`health`), what would be
//! too much is refused at once (`super::quota`, `retries`).

pub mod authenticate;
mod error;
mod explicit;
pub mod health;
pub mod http;
pub mod intercept;
mod legacy;
mod overheard;
pub mod pick;
mod reach;
pub mod recognise;
pub mod retries;
pub(in crate::sidecar) mod source;
pub mod transport;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use self::authenticate::{Credential, NoCredential, Tokens};
pub use self::error::OutboundError;
use self::explicit::Asked;
use self::health::{Failure, Health, Place};
use self::overheard::Overheard;
use self::pick::{Candidates, InForce};
use self::reach::{Attempts, Reach};
use self::recognise::{Called, Recognised, Unrecognised};
use self::retries::Retries;
use self::source::NoRoute;
pub use self::source::Sources;
use self::transport::tunnel::{Lent, Tunnels};
use self::transport::{Call, Remote, Way};
use super::directory::Directory;
use super::listener;
use super::memory::Memory;
use super::original::OriginalDst;
use super::quota::{Quota, Share};
use super::report::{Carriage, Report};
use super::secrets::Secrets;
use super::stub::StandIns;
use crate::model::ssa::TokenMode;
use crate::model::{Name, UnixSeconds};
use crate::net::copy::{self, BrokenOff, OverTcp as _, Stop, Transferred};
use crate::net::tls::ClientTls;
use crate::ops::access_log::Line;
use crate::ops::drain::{Guard, Watch};
use crate::ops::metrics::Direction;
use crate::ops::{clock, entropy};
use crate::wire::explicit::Target;

/// How connections to servers are made.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long all attempts for one connection may take together.
    pub connect_deadline: Duration,
    /// How long one candidate has before the next is tried as well.
    pub attempt_delay: Duration,
    /// How long one candidate has in all.
    pub attempt_timeout: Duration,
    /// Socket mark of our own connections.
    pub mark: Option<u32>,
}

/// Who this pod is to the services it calls.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its tokens.
    pub tokens: Arc<Tokens>,
    /// Whom to believe that a server is the service.
    pub tls: ClientTls,
}

/// The outbound half of a sidecar.
pub struct Outbound {
    /// How the original destination is found out.
    pub original: OriginalDst,
    /// Services by name and address.
    pub directory: Arc<dyn Directory>,
    /// The stub's stand-ins.
    pub stand_ins: Arc<StandIns>,
    /// Secrets of rules with `hop`.
    pub secrets: Arc<Secrets>,
    /// Who we are; without it only services with `token=none` can be called.
    pub identity: Option<Identity>,
    /// Tunnels that are free.
    pub tunnels: Arc<Tunnels>,
    /// What conversations in HTTP share.
    pub http: Arc<http::Shared>,
    /// Where connections come from.
    pub sources: Sources,
    /// Where they failed lately.
    pub health: Arc<Health>,
    /// What further attempts are paid from.
    pub retries: Arc<Retries>,
    /// How many connections each service may have.
    pub circuits: Quota<Name>,
    /// What makes connections wait.
    pub memory: Arc<Memory>,
    /// The sidecar's own ports: what is asked for one of them comes back to us.
    pub reserved: BTreeSet<u16>,
    /// How connections are made.
    pub limits: Limits,
    /// Where everything is counted.
    pub report: Report,
}

/// By which way connections come to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Door {
    /// The kernel turned them here.
    Redirected,
    /// The application asks for each.
    Explicit,
}

impl Outbound {
    /// Accepts redirected connections of the application until everything is to end.
    ///
    /// A graceful stop does not stop it: an application that is finishing its work still makes calls.
    ///
    /// Each connection is carried as `settings` are when it arrives.
    pub async fn run(settings: Arc<ArcSwap<Self>>, listener: TcpListener, watch: Watch) {
        let first = settings.load_full();
        tokio::select! {
            () = Self::accept(settings, listener, Door::Redirected, watch) => {}
            () = first.tunnels.look_after() => {}
            () = first.http.peers.look_after() => {}
        }
    }

    /// The same for connections that the application asks for, by SOCKS5 or HTTP CONNECT.
    pub async fn run_explicit(settings: Arc<ArcSwap<Self>>, listener: TcpListener, watch: Watch) {
        Self::accept(settings, listener, Door::Explicit, watch).await;
    }

    async fn accept(settings: Arc<ArcSwap<Self>>, listener: TcpListener, door: Door, watch: Watch) {
        let mut forced = watch.clone();
        let stop = async move { forced.forced().await };
        let first = settings.load_full();
        listener::accept(listener, Direction::Outbound, &first.report, &first.memory, stop, |app, client| {
            let counted = (watch.clone(), watch.guard());
            tokio::spawn(settings.load_full().carry(app, client, door, counted));
        })
        .await;
    }

    /// Carries one connection to its end, and reports it.
    async fn carry(
        self: Arc<Self>,
        mut app: TcpStream,
        client: SocketAddr,
        door: Door,
        (mut watch, _guard): (Watch, Guard),
    ) {
        let _open = self.report.opened(Direction::Outbound);
        let mut line = Box::new(Line::open(Direction::Outbound, client));
        let mut asked = match door {
            Door::Redirected => None,
            Door::Explicit => match tokio::select! {
                asked = Box::pin(explicit::asked(&mut app)) => asked,
                () = watch.forced() => return,
            } {
                Ok(asked) => Some(Box::new(asked)),
                Err(error) => return self.report.refused(*line, Direction::Outbound, &OutboundError::Ask(error)),
            },
        };
        let mut early = asked.as_mut().map(|asked| std::mem::take(&mut asked.early)).unwrap_or_default();
        let mut is_first = true;
        loop {
            let connected = tokio::select! {
                // In a box, so that a connection that lasts does not keep room for how it came about.
                connected = Box::pin(self.connect(&app, asked.as_deref(), client, is_first, &mut line)) => connected,
                () = watch.forced() => return,
            };
            let connected = match connected {
                Ok(connected) => connected,
                Err(refusal) => {
                    if let Some(asked) = asked.filter(|_| is_first) {
                        asked.refuse(&mut app, &refusal).await;
                    }
                    return self.report.refused(*line, Direction::Outbound, &refusal);
                }
            };
            if let Some(asked) = asked.as_ref().filter(|_| is_first) {
                // A program that has gone shows when its bytes are carried.
                let _ = asked.grant(&mut app).await;
            }
            self.report.carrying(&line, Direction::Outbound, connected.carriage());
            let transferred = match connected {
                Connected::Http { called, share: _share } => {
                    // In a box as well, so that other connections do not keep room for it.
                    return Box::pin(self.converse(app, early, *called, client.port(), *line, watch)).await;
                }
                Connected::Service { .. } | Connected::Legacy(_) => {
                    self.transfer(connected, &mut app, early, &mut watch).await
                }
            };
            match transferred {
                Ok(transferred) => return self.report.ended(*line, Direction::Outbound, &transferred),
                // A free tunnel that the server was just closing: what the application said is said again on a new one.
                Err(Untaken { content }) => (early, is_first) = (content, false),
            }
        }
    }

    async fn transfer(
        &self,
        connected: Connected,
        app: &mut TcpStream,
        early: Vec<u8>,
        watch: &mut Watch,
    ) -> Result<Transferred, Untaken> {
        match connected {
            Connected::Legacy(tcp) => Ok(copy::both_ways(app, tcp, early, told(watch)).await),
            Connected::Service { remote, place, share: _share } => {
                let transferred = self.transfer_to(remote, app, early, watch).await?;
                self.learn(place, &transferred);
                Ok(transferred)
            }
            Connected::Http { .. } => unreachable!("a conversation is not carried as octets"),
        }
    }

    async fn transfer_to(
        &self,
        remote: Remote,
        app: &mut TcpStream,
        early: Vec<u8>,
        watch: &mut Watch,
    ) -> Result<Transferred, Untaken> {
        match remote {
            Remote::Tunnel(lent) => self.transfer_in_tunnel(lent, app, early, watch).await,
            Remote::Pp2(stream, header) => {
                let mut first = header;
                let header_octets = first.len() as u64;
                first.extend(early);
                if let Err(broken) = first_bytes(app, &mut first).await {
                    copy::reset_on_drop(stream.tcp());
                    return Ok(Transferred { sent_bytes: 0, received_bytes: 0, end: Err(broken) });
                }
                let mut transferred = copy::both_ways(app, stream, first, told(watch)).await;
                transferred.sent_bytes = transferred.sent_bytes.saturating_sub(header_octets);
                Ok(transferred)
            }
            Remote::Plain(tcp) => Ok(copy::both_ways(app, tcp, early, told(watch)).await),
            Remote::Http(_) => unreachable!("only a conversation asks for what can be asked"),
        }
    }

    /// A server that broke off without a word is one to stay away from: whatever is behind it may be down.
    fn learn(&self, place: Place, transferred: &Transferred) {
        match &transferred.end {
            Err(BrokenOff::Server(_)) if transferred.received_bytes == 0 => {
                self.health.failed(place, Failure::Serving, Instant::now());
            }
            Err(BrokenOff::Client(_) | BrokenOff::Stopped | BrokenOff::TokenExpired)
                if transferred.received_bytes == 0 => {}
            Ok(()) | Err(_) => self.health.served(place),
        }
    }

    async fn transfer_in_tunnel(
        &self,
        mut lent: Box<Lent>,
        app: &mut TcpStream,
        early: Vec<u8>,
        watch: &mut Watch,
    ) -> Result<Transferred, Untaken> {
        self.report.stream(lent.how());
        let renewing = self.identity.as_ref().map(|identity| lent.renewing(&identity.tokens));
        let stop = async {
            tokio::select! {
                stop = told(watch) => stop,
                () = async { match renewing { Some(renewing) => renewing.await, None => std::future::pending().await } } => Stop::Told,
            }
        };
        // The application's first bytes are probably there: with them the header costs no packet of its own.
        tokio::task::yield_now().await;
        let transferred = copy::both_ways(app, lent.carrier(), early, stop).await;
        match lent.give_back(&self.tunnels) {
            Some(content) if matches!(transferred.end, Err(BrokenOff::Server(_))) => Err(Untaken { content }),
            Some(_) | None => Ok(transferred),
        }
    }

    /// The phases, in order.
    async fn connect(
        &self,
        app: &TcpStream,
        asked: Option<&Asked>,
        client: SocketAddr,
        may_reuse: bool,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        let deadline = Instant::now() + self.limits.connect_deadline;
        let mut recognised = match asked.map(|asked| &asked.target) {
            Some(Target::Name(name, port)) => recognise::recognise_name(name, *port, &*self.directory).await?,
            Some(Target::Address(destination)) => self.recognise(*destination, line).await?,
            None => self.recognise(intercept::intercept(app, &self.original)?.destination(), line).await?,
        };
        if let (Recognised::Legacy(dst), None) = (&recognised, asked) {
            let connecting = self.connect_legacy(*dst, deadline, line);
            match overheard::listen(app, connecting, dst.port(), &*self.directory).await? {
                Overheard::Nobody(connected) => return *connected,
                Overheard::Service(called) => recognised = Recognised::Service(called),
            }
        }
        match recognised {
            Recognised::Legacy(dst) => self.connect_legacy(dst, deadline, line).await,
            Recognised::LegacyName(name, port) => self.connect_legacy_name(name, port, deadline, line).await,
            Recognised::Service(called) => {
                line.service = Some(called.service.name.to_string());
                self.connect_service(&called, client.port(), may_reuse, deadline, line).await
            }
        }
    }

    async fn recognise(&self, destination: SocketAddr, line: &mut Line) -> Result<Recognised, Unrecognised> {
        line.orig_dst = Some(destination);
        recognise::recognise(destination, &self.stand_ins, &*self.directory).await
    }

    async fn connect_service(
        &self,
        called: &Called,
        client_port: u16,
        may_reuse: bool,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        let service = &called.service.name;
        let mut share = self.admitted(service)?;
        let now = clock::now();
        let in_force = InForce::at(&called.service, now)?;
        let token_mode = in_force.rule().token_mode();
        line.generation = Some(in_force.rule().generation());
        line.mode = Some(token_mode.as_str());
        let way = match token_mode {
            TokenMode::None => Way::Plain,
            TokenMode::Pp2 => self.credential(called, now).map(|(tls, credential)| Way::Pp2(tls, credential))?,
            TokenMode::Tunnel => {
                self.credential(called, now).map(|(tls, credential)| Way::Tunnel(tls, credential, &self.tunnels))?
            }
            // Each request finds its own way.
            TokenMode::Header => {
                share.settle();
                return Ok(Connected::Http { called: Box::new(called.clone()), share });
            }
        };
        let candidates = self.candidates(called, in_force, now)?;
        self.retries.call(service);
        let call = Call { service, client_port, mark: self.limits.mark, may_reuse };
        let mut attempts = Attempts::default();
        let reached = Reach { of: self, way: &way, call, deadline }.reach(candidates, &mut attempts).await;
        (line.attempts, line.server) = (line.attempts + attempts.count, attempts.server);
        let reached = reached?;
        share.settle();
        Ok(Connected::Service { remote: reached.remote, place: reached.place, share })
    }

    /// The addresses to try for a call.
    fn candidates(&self, called: &Called, in_force: InForce, now: UnixSeconds) -> Result<Candidates, NoRoute> {
        // The prefixes of a service are reached by one route, or the transport will notice.
        let toward = called.service.space.prefixes()[0].network();
        let source = self.sources.toward(toward, self.limits.mark)?;
        Ok(Candidates::new(called, in_force, Arc::clone(&self.secrets), source, now, entropy::draw))
    }

    /// Room for one connection more to the service.
    fn admitted(&self, service: &Name) -> Result<Share<Name>, OutboundError> {
        self.circuits.take(service).map_err(|over| {
            let most = self.circuits.bounds().most(over);
            OutboundError::Shed { service: service.clone(), over, most }
        })
    }

    fn credential(&self, called: &Called, now: UnixSeconds) -> Result<(&ClientTls, Credential), NoCredential> {
        let identity = self.identity.as_ref().ok_or(NoCredential::NoIdentity)?;
        Ok((&identity.tls, identity.tokens.authenticate(&called.service.name, now)?))
    }
}

/// A connection to where the application wants to go.
enum Connected {
    Service {
        remote: Remote,
        place: Place,
        share: Share<Name>,
    },
    /// None yet: each request will ask for one.
    Http {
        called: Box<Called>,
        share: Share<Name>,
    },
    Legacy(TcpStream),
}

impl Connected {
    fn carriage(&self) -> Carriage {
        match self {
            Self::Service { remote: Remote::Tunnel(_), .. } => Carriage::Tunnel,
            Self::Service { remote: Remote::Pp2(..), .. } => Carriage::Pp2,
            Self::Service { remote: Remote::Plain(_), .. } => Carriage::Plain,
            Self::Service { remote: Remote::Http(_), .. } | Self::Http { .. } => Carriage::Header,
            Self::Legacy(_) => Carriage::Legacy,
        }
    }
}

/// The server closed the tunnel without having taken the stream: what the application has said so far.
struct Untaken {
    content: Vec<u8>,
}

/// How much of the application's first bytes goes with a header.
const FIRST_BYTES: usize = 16 * 1024;

/// Puts what the application has said already behind `octets`; waits for nothing but the news of it.
///
/// A failure is told once by the kernel: whoever reads after that finds an end in good order.
async fn first_bytes(app: &TcpStream, octets: &mut Vec<u8>) -> Result<(), BrokenOff> {
    tokio::task::yield_now().await;
    octets.reserve(FIRST_BYTES);
    let read = app.try_read_buf(octets);
    octets.shrink_to_fit();
    match read {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(BrokenOff::Client(error)),
        // An end, or nothing yet: whoever carries the connection on will see it as well.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn told(watch: &mut Watch) -> Stop {
    watch.forced().await;
    Stop::Told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, C, D, E, F: Future>(_of: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_lasts_keeps_little_room() {
        let room = room(Outbound::carry);
        assert!(room <= 3_072, "{room} octets");
    }
}
