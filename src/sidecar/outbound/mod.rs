//! What the pod's own programs call.
//!
//! ```text
//! app ─▶ intercept ─▶ recognise ─▶ pick ─▶ authenticate ─▶ transport ─▶ bytes both ways
//!                        │                     ▲               │
//!                        │                     └─ next candidate ─┘  within the connect deadline
//!                        └─ no service: untouched to where it was going
//! ```
//!
//! Each phase is a module, and gives a value that only it can make. A connection that cannot be carried ends with a
//! reset; it never goes on in clear text because something failed.

pub mod authenticate;
pub mod intercept;
pub mod pick;
pub mod recognise;
mod source;
pub mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use self::authenticate::{Credential, NoCredential, Tokens};
use self::pick::{Candidates, InForce, NoCandidate, Picked};
use self::recognise::{Called, Recognised, Unrecognised};
use self::source::NoRoute;
pub use self::source::Sources;
use self::transport::pool::Pool;
use self::transport::tunnel::Lent;
use self::transport::{AttemptError, Call, Mode, ModeUnsupported, Remote, Way};
use super::directory::Directory;
use super::listener;
use super::original::{NotRedirected, OriginalDst};
use super::report::{Carriage, Refusal, Report};
use super::secrets::Secrets;
use super::stub::StandIns;
use crate::model::UnixSeconds;
use crate::net::connect;
use crate::net::copy::{self, Stop, Transferred};
use crate::net::tls::ClientTls;
use crate::ops::access_log::Line;
use crate::ops::drain::Watch;
use crate::ops::metrics::Direction;
use crate::ops::{clock, entropy};

/// How connections to servers are made.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long all attempts for one connection may take together.
    pub connect_deadline: Duration,
    /// How long one candidate has before the next is tried.
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
    pub tunnels: Arc<Pool>,
    /// Where connections come from.
    pub sources: Sources,
    /// How connections are made.
    pub limits: Limits,
    /// Where everything is counted.
    pub report: Report,
}

/// Why a connection of the application is not carried. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Where was it going?
    #[error(transparent)]
    Intercept(#[from] NotRedirected),
    /// Which service is that?
    #[error(transparent)]
    Recognise(#[from] Unrecognised),
    /// From where?
    #[error(transparent)]
    Route(#[from] NoRoute),
    /// To which address?
    #[error(transparent)]
    Pick(#[from] NoCandidate),
    /// By which mode?
    #[error(transparent)]
    Mode(#[from] ModeUnsupported),
    /// As whom?
    #[error(transparent)]
    Authenticate(#[from] NoCredential),
    /// No candidate gave a connection.
    #[error("none of {attempts} candidates gave a connection; the last: {last}")]
    Unreached {
        /// How many were tried.
        attempts: u32,
        /// What became of the last.
        last: AttemptError,
    },
    /// Not even one attempt fitted into the deadline.
    #[error("the connect deadline passed before an address was computed")]
    Deadline,
    /// A destination that is no service did not answer.
    #[error("{dst}, which is no structured service, cannot be connected to: {cause}")]
    Legacy {
        /// The original destination.
        dst: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

impl Refusal for OutboundError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Intercept(error) => error.reason(),
            Self::Recognise(error) => error.reason(),
            Self::Route(_) => "no-route",
            Self::Pick(error) => error.reason(),
            Self::Mode(error) => error.reason(),
            Self::Authenticate(error) => error.reason(),
            Self::Unreached { last, .. } => last.reason(),
            Self::Deadline => "connect-deadline",
            Self::Legacy { .. } => "legacy-unreachable",
        }
    }
}

impl Refusal for AttemptError {
    fn reason(&self) -> &'static str {
        AttemptError::reason(self)
    }
}

impl Outbound {
    /// Accepts connections of the application until everything is to end.
    ///
    /// A graceful stop does not stop it: an application that is finishing its work still makes calls.
    ///
    /// Each connection is carried as `settings` are when it arrives.
    pub async fn run(settings: Arc<ArcSwap<Self>>, listener: TcpListener, watch: Watch) {
        let mut forced = watch.clone();
        let first = settings.load_full();
        let report = first.report.clone();
        let accepting = listener::accept(
            listener,
            Direction::Outbound,
            &report,
            async move { forced.forced().await },
            |app, client| {
                tokio::spawn(settings.load_full().carry(app, client, watch.clone()));
            },
        );
        tokio::select! {
            () = accepting => {}
            () = first.tunnels.look_after() => {}
        }
    }

    /// Carries one connection to its end, and reports it.
    async fn carry(self: Arc<Self>, mut app: TcpStream, client: SocketAddr, mut watch: Watch) {
        let _guard = watch.guard();
        let _open = self.report.opened(Direction::Outbound);
        // Whatever becomes of it before it is carried, the application is to see a failure, at once.
        copy::reset_on_drop(&app);
        let mut line = Line::open(Direction::Outbound, client);
        let (mut early, mut may_reuse) = (Vec::new(), true);
        loop {
            let connected = tokio::select! {
                // In a box, so that a connection that lasts does not keep room for how it came about.
                connected = Box::pin(self.connect(&app, client, may_reuse, &mut line)) => connected,
                () = watch.forced() => return,
            };
            let connected = match connected {
                Ok(connected) => connected,
                Err(refusal) => return self.report.refused(line, Direction::Outbound, &refusal),
            };
            self.report.carrying(&line, Direction::Outbound, connected.carriage());
            match self.transfer(connected, &mut app, early, &mut watch).await {
                Ok(transferred) => return self.report.ended(line, Direction::Outbound, &transferred),
                // A free tunnel that the server was just closing: what the application said is said again on a new one.
                Err(Untaken { content }) => (early, may_reuse) = (content, false),
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
            Connected::Service(Remote::Tunnel(lent)) => self.transfer_in_tunnel(*lent, app, early, watch).await,
            Connected::Service(Remote::Pp2(stream, header)) => {
                let mut first = header;
                let header_octets = first.len() as u64;
                first.extend(early);
                first_bytes(app, &mut first).await;
                let mut transferred = copy::both_ways(app, *stream, first, told(watch)).await;
                transferred.sent_bytes = transferred.sent_bytes.saturating_sub(header_octets);
                Ok(transferred)
            }
            Connected::Service(Remote::Plain(tcp)) | Connected::Legacy(tcp) => {
                Ok(copy::both_ways(app, tcp, early, told(watch)).await)
            }
        }
    }

    async fn transfer_in_tunnel(
        &self,
        mut lent: Lent,
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
            Some(content) if matches!(transferred.end, Err(copy::BrokenOff::Server(_))) => Err(Untaken { content }),
            Some(_) | None => Ok(transferred),
        }
    }

    /// The phases, in order.
    async fn connect(
        &self,
        app: &TcpStream,
        client: SocketAddr,
        may_reuse: bool,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        let deadline = Instant::now() + self.limits.connect_deadline;
        let intercepted = intercept::intercept(app, &self.original)?;
        line.orig_dst = Some(intercepted.destination());
        match recognise::recognise(intercepted, &self.stand_ins, &*self.directory).await? {
            Recognised::Legacy(dst) => self.connect_legacy(dst, deadline, line).await,
            Recognised::Service(called) => {
                line.service = Some(called.service.name.to_string());
                self.connect_service(&called, client.port(), may_reuse, deadline, line).await
            }
        }
    }

    async fn connect_legacy(
        &self,
        dst: SocketAddr,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        line.server = Some(dst);
        line.attempts = 1;
        line.mode = Some("legacy");
        match connect::tcp(dst, self.limits.mark, deadline).await {
            Ok(tcp) => Ok(Connected::Legacy(tcp)),
            Err(cause) => Err(OutboundError::Legacy { dst, cause }),
        }
    }

    async fn connect_service(
        &self,
        called: &Called,
        client_port: u16,
        may_reuse: bool,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        let now = clock::now();
        let in_force = InForce::at(&called.service, now)?;
        let token_mode = in_force.rule().token_mode();
        line.generation = Some(in_force.rule().generation());
        line.mode = Some(token_mode.as_str());
        let way = self.way(transport::mode(token_mode)?, called, now)?;
        // The prefixes of a service are reached by one route, or the transport will notice.
        let toward = called.service.space.prefixes()[0].network();
        let source = self.sources.toward(toward, self.limits.mark)?;
        let mut candidates = Candidates::new(called, in_force, Arc::clone(&self.secrets), source, now, entropy::draw);
        let mut last = None;
        while Instant::now() < deadline {
            let (rest, picked) = next(candidates).await;
            candidates = rest;
            let Some(picked) = picked? else { break };
            line.attempts += 1;
            line.server = Some(picked.destination());
            let until = deadline.min(Instant::now() + self.limits.attempt_timeout);
            let name = &called.service.name;
            let call = Call { service: name, client_port, mark: self.limits.mark, may_reuse };
            match transport::open(&way, call, &candidates, &picked, until).await {
                Ok(remote) => {
                    line.server = Some(remote.destination().unwrap_or(picked.destination()));
                    return Ok(Connected::Service(remote));
                }
                Err(error) => {
                    self.report.attempt_failed(&error);
                    if let AttemptError::Source { actual, .. } = error {
                        candidates.come_from(actual);
                    }
                    tracing::debug!(service = %name, "next candidate: {error}");
                    last = Some(error);
                }
            }
        }
        let attempts = line.attempts;
        Err(last.map_or(OutboundError::Deadline, |last| OutboundError::Unreached { attempts, last }))
    }

    /// The mode with what it needs.
    fn way(&self, mode: Mode, called: &Called, now: UnixSeconds) -> Result<Way<'_>, NoCredential> {
        match mode {
            Mode::Plain => Ok(Way::Plain),
            Mode::Pp2 => self.credential(called, now).map(|(tls, credential)| Way::Pp2(tls, credential)),
            Mode::Tunnel => {
                self.credential(called, now).map(|(tls, credential)| Way::Tunnel(tls, credential, &self.tunnels))
            }
        }
    }

    fn credential(&self, called: &Called, now: UnixSeconds) -> Result<(&ClientTls, Credential), NoCredential> {
        let identity = self.identity.as_ref().ok_or(NoCredential::NoIdentity)?;
        Ok((&identity.tls, identity.tokens.authenticate(&called.service.name, now)?))
    }
}

/// The next candidate; on a thread of its own where computing it is work.
async fn next(mut candidates: Candidates) -> (Candidates, Result<Option<Picked>, NoCandidate>) {
    if !candidates.are_heavy() {
        let picked = candidates.pick();
        return (candidates, picked);
    }
    let working = tokio::task::spawn_blocking(move || {
        let picked = candidates.pick();
        (candidates, picked)
    });
    match working.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A connection to where the application wants to go.
enum Connected {
    Service(Remote),
    Legacy(TcpStream),
}

impl Connected {
    fn carriage(&self) -> Carriage {
        match self {
            Self::Service(Remote::Tunnel(_)) => Carriage::Tunnel,
            Self::Service(Remote::Pp2(..)) => Carriage::Pp2,
            Self::Service(Remote::Plain(_)) => Carriage::Plain,
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
async fn first_bytes(app: &TcpStream, octets: &mut Vec<u8>) {
    tokio::task::yield_now().await;
    octets.reserve(FIRST_BYTES);
    // An end, a failure, or nothing yet: whoever carries the connection on will see it as well.
    let _ = app.try_read_buf(octets);
    octets.shrink_to_fit();
}

async fn told(watch: &mut Watch) -> Stop {
    watch.forced().await;
    Stop::Told
}
