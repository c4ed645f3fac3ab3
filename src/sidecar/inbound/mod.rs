//! Calls to this pod's services.
//!
//! ```text
//! wire ─▶ accept ─▶ verify ─▶ admit ─▶ forward ─▶ bytes both ways
//!          TLS,      token     address   to the application
//!          header              caller    on localhost
//! ```
//!
//! What is refused ends with a reset and reaches no application; the peer learns nothing but that. Under `permissive`
//! a connection without a token passes and is counted, under `audit` everything that can pass does.

mod accept;
pub mod admit;
mod error;
pub mod forward;
mod http;
mod own;
pub mod relay;
mod tunnel;

use std::future::Future;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};

use self::accept::{Allowance, Arrived, Begun, Introduced, Introduction, Protocol};
use self::admit::{Fitting, OwnService};
pub use self::error::InboundError;
use self::forward::{Forward, ForwardError};
use self::relay::{Leased, RELAY};
use self::tunnel::{Accepted, Callee, Reported, good_until, token_dead};
use super::directory::Directory;
use super::http::{HTTP_1, HTTP_2};
use super::lease::{self, Standing};
use super::listener;
use super::memory::Memory;
use super::original::OriginalDst;
use super::outbound::transport::{PP2, TUNNEL};
use super::quota::{Quota, Share};
use super::report::{Carriage, Report};
use super::secrets::Secrets;
use crate::model::token::Admitted;
use crate::net::copy::{self, Stop, Transferred};
use crate::net::tls::{ClientStream, Hello, ServerStream, ServerTls};
use crate::net::tunnel::Tunnel;
use crate::ops::access_log::Line;
use crate::ops::clock;
use crate::ops::drain::{Guard, Watch};
use crate::ops::metrics::Direction;
use crate::trust::Verifier;
use crate::wire::proxy_header::ProxyHeader;

/// The ALPN protocols by which callers may introduce themselves.
pub const PROTOCOLS: [&str; 5] = [TUNNEL, PP2, RELAY, HTTP_1, HTTP_2];

/// How long to wait before the rules of this pod's services are asked for again.
const LEARN_AGAIN: Duration = Duration::from_secs(1);

/// What happens to a connection without a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// It is refused.
    Strict,
    /// It passes, and is counted.
    Permissive,
    /// Everything passes; what strict would refuse is counted.
    Audit,
}

/// The inbound half of a sidecar.
pub struct Inbound {
    /// How the original destination is found out.
    pub original: OriginalDst,
    /// Services by name: the rules of our own.
    pub directory: Arc<dyn Directory>,
    /// Secrets of rules with `hop`.
    pub secrets: Arc<Secrets>,
    /// What happens without a token.
    pub policy: Policy,
    /// The services of this pod.
    pub services: Vec<OwnService>,
    /// What proves their names; without it nobody can be let in by token.
    pub tls: Option<ServerTls>,
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// How long a caller has for everything up to its header.
    pub handshake_timeout: Duration,
    /// How many connections a source may have.
    pub sources: Quota<IpAddr>,
    /// How many callers may shake hands at once.
    pub handshakes: Quota<()>,
    /// What makes connections wait.
    pub memory: Arc<Memory>,
    /// Which slices are this pod's; none where it serves whatever arrives.
    pub leased: Option<Leased>,
    /// The way to the application.
    pub forward: Forward,
    /// Where everything is counted.
    pub report: Report,
}

/// Why a connection may reach the application. Nothing is forwarded without one.
#[derive(Debug)]
enum Passage {
    /// Its caller was verified, and its destination fits.
    Admitted(Admitted),
    /// Its destination fits a rule that asks for no token.
    ByAddress(Fitting),
    /// The policy lets it pass although strict would refuse it.
    Tolerated,
}

impl Passage {
    /// Unix second at which the connection ends unless the token is renewed. Where nobody was verified, nothing runs
    /// out.
    fn good_until(&self) -> u64 {
        match self {
            Self::Admitted(admitted) => good_until(admitted.until()),
            Self::ByAddress(_) | Self::Tolerated => u64::MAX,
        }
    }
}

/// A connection that is counted for its source and, until it has been let in, among those that shake hands.
struct Counted {
    source: Share<IpAddr>,
    handshake: Option<Share<()>>,
}

impl Counted {
    fn let_in(&mut self) {
        self.source.settle();
        self.handshake = None;
    }
}

/// The caller's side of a connection that may pass.
enum CallerSide {
    Pp2(Box<ServerStream>),
    Plain(TcpStream),
}

/// A connection that may pass, with the application at its other end.
struct Entered {
    caller: CallerSide,
    /// What has been read of the caller's bytes.
    early: Vec<u8>,
    application: TcpStream,
    carriage: Carriage,
    /// Unix second.
    good_until: u64,
}

/// How a connection goes on.
enum Entry<'a> {
    /// It is carried.
    Once(Entered),
    /// It is a tunnel, whose streams are let in one by one.
    Tunnel(Box<Accepted<'a>>),
    /// It is carried to another pod of the service.
    Elsewhere(TcpStream, Box<ClientStream>),
    /// It speaks HTTP, and its requests are let in one by one.
    Http(Box<http::Accepted>),
}

impl Entered {
    async fn transfer(self, stop: impl Future<Output = Stop>) -> Transferred {
        match self.caller {
            CallerSide::Pp2(stream) => copy::both_ways(stream, self.application, self.early, stop).await,
            CallerSide::Plain(tcp) => copy::both_ways(tcp, self.application, self.early, stop).await,
        }
    }
}

impl Inbound {
    /// Accepts connections until told to take nothing new. Each is carried as `settings` are when it arrives.
    pub async fn run(settings: Arc<ArcSwap<Self>>, listener: TcpListener, watch: Watch) {
        let mut graceful = watch.clone();
        let stop = async move { graceful.graceful().await };
        let first = settings.load_full();
        listener::accept(listener, Direction::Inbound, &first.report, &first.memory, stop, |tcp, client| {
            let counted = (watch.clone(), watch.guard());
            tokio::spawn(settings.load_full().carry(tcp, client, counted));
        })
        .await;
    }

    /// Learns the rules of this pod's services, so that arriving connections need not wait for them.
    pub async fn learn(&self) {
        for own in &self.services {
            while let Err(error) = self.directory.lookup(&own.name).await {
                tracing::info!(service = %own.name, "the rules of this pod's service are not known yet: {error}");
                tokio::time::sleep(LEARN_AGAIN).await;
            }
        }
    }

    /// Carries one connection to its end, and reports it.
    async fn carry(self: Arc<Self>, tcp: TcpStream, client: SocketAddr, (mut watch, guard): (Watch, Guard)) {
        let mut reported = Reported {
            line: Box::new(Line::open(Direction::Inbound, client)),
            _guard: guard,
            _open: self.report.opened(Direction::Inbound),
        };
        let mut counted = match self.count(client.ip()) {
            Ok(counted) => counted,
            Err(refusal) => return self.report.refused(*reported.line, Direction::Inbound, &refusal),
        };
        let _in_slice = self.enter_slice(&tcp);
        let entry = tokio::select! {
            // In a box, so that a connection that lasts does not keep room for how it came in.
            entry = Box::pin(self.let_in(tcp, client, &mut reported.line)) => entry,
            () = watch.forced() => return,
        };
        counted.let_in();
        match entry {
            Ok(Entry::Once(entered)) => {
                self.report.carrying(&reported.line, Direction::Inbound, entered.carriage);
                let good_until = AtomicU64::new(entered.good_until);
                let stop = async {
                    tokio::select! {
                        () = watch.forced() => Stop::Told,
                        stop = token_dead(&good_until) => stop,
                    }
                };
                let transferred = entered.transfer(stop).await;
                self.report.ended(*reported.line, Direction::Inbound, &transferred);
            }
            Ok(Entry::Elsewhere(caller, pod)) => {
                self.report.carrying(&reported.line, Direction::Inbound, Carriage::Relay);
                let told = async {
                    watch.forced().await;
                    Stop::Told
                };
                let transferred = copy::both_ways(caller, pod, Vec::new(), told).await;
                self.report.ended(*reported.line, Direction::Inbound, &transferred);
            }
            Ok(Entry::Tunnel(accepted)) => self.carry_tunnel(accepted, reported, watch).await,
            // In a box as well, so that other connections do not keep room for it.
            Ok(Entry::Http(accepted)) => Box::pin(Arc::clone(&self).converse(*accepted, reported, watch)).await,
            Err(refusal) => self.report.refused(*reported.line, Direction::Inbound, &refusal),
        }
    }

    /// Counts the connection among those of its slice.
    fn enter_slice(&self, tcp: &TcpStream) -> Option<lease::Guard> {
        let leased = self.leased.as_ref()?;
        match self.original.of(tcp).ok()?.ip() {
            IpAddr::V6(destination) => Some(leased.slices.enter(destination)),
            IpAddr::V4(_) => None,
        }
    }

    /// The way to the pod whose slice it is; none where it is this pod's, or nobody knows better.
    async fn elsewhere(&self, arrived: &Arrived) -> Result<Option<ClientStream>, InboundError> {
        let (Some(leased), Some((_, destination))) = (&self.leased, arrived.addresses()) else { return Ok(None) };
        match leased.slices.standing(destination) {
            Standing::Here | Standing::Elsewhere(None) => Ok(None),
            Standing::Elsewhere(Some(to)) => Ok(self.relay(leased, to, arrived).await),
            Standing::Lapsed => Err(InboundError::Lapsed { destination }),
        }
    }

    /// Counts a connection, if there is room for it.
    fn count(&self, source: IpAddr) -> Result<Counted, InboundError> {
        let too_many = |over| {
            let most = self.sources.bounds().most(over);
            InboundError::TooMany { source_address: source, over, most }
        };
        let share = self.sources.take(&source).map_err(too_many)?;
        let too_many = |over| InboundError::TooManyHandshakes { most: self.handshakes.bounds().most(over) };
        Ok(Counted { source: share, handshake: Some(self.handshakes.take(&()).map_err(too_many)?) })
    }

    /// The phases, in order.
    async fn let_in(&self, tcp: TcpStream, client: SocketAddr, line: &mut Line) -> Result<Entry<'_>, InboundError> {
        let (tcp, arrived) = match (self.original.of(&tcp), &self.leased) {
            (Ok(destination), _) => {
                let arrived = Arrived { client, destination };
                line.orig_dst = Some(destination);
                if let Some(stream) = self.elsewhere(&arrived).await? {
                    return Ok(Entry::Elsewhere(tcp, Box::new(stream)));
                }
                (tcp, arrived)
            }
            (Err(_), Some(leased)) => self.relayed(leased, tcp).await?,
            (Err(error), None) => return Err(error.into()),
        };
        line.orig_dst = Some(arrived.destination);
        self.let_in_here(tcp, arrived, line).await
    }

    /// The phases for what is served here, in order.
    async fn let_in_here(&self, tcp: TcpStream, arrived: Arrived, line: &mut Line) -> Result<Entry<'_>, InboundError> {
        if let Some(refusal) = self.strays(&arrived).await {
            self.tolerate(refusal)?;
        }
        if let Some((own, fits)) = self.needs_no_token(&arrived).await {
            line.service = Some(own.name.to_string());
            let passage = match fits {
                Ok(fitting) => Passage::ByAddress(fitting),
                Err(refusal) => self.tolerate(refusal.into())?,
            };
            return self.enter_plain(tcp, Vec::new(), &arrived, passage, line).await.map(Entry::Once);
        }
        let allowance = Allowance::of(self.handshake_timeout);
        match accept::begun(tcp, allowance, self.policy != Policy::Strict).await? {
            Begun::Ours(Protocol::Http(_), hello) if !self.speaks_http(&hello).await => {
                let passage = self.tolerate(InboundError::ForeignTls)?;
                let (tcp, early) = hello.unanswered();
                self.enter_plain(tcp, early, &arrived, passage, line).await.map(Entry::Once)
            }
            Begun::Ours(protocol, hello) => self.let_in_by_token(protocol, hello, allowance, arrived, line).await,
            Begun::ForeignTls(tcp, early) => {
                let passage = self.tolerate(InboundError::ForeignTls)?;
                self.enter_plain(tcp, early, &arrived, passage, line).await.map(Entry::Once)
            }
            Begun::Plaintext(tcp, early) => {
                let passage = self.tolerate(InboundError::Plaintext)?;
                self.enter_plain(tcp, early, &arrived, passage, line).await.map(Entry::Once)
            }
        }
    }

    async fn let_in_by_token(
        &self,
        protocol: Protocol,
        hello: Hello,
        allowance: Allowance,
        arrived: Arrived,
        line: &mut Line,
    ) -> Result<Entry<'_>, InboundError> {
        line.mode = Some(protocol.mode());
        let tls = self.tls.as_ref().ok_or(InboundError::NoCertificate)?;
        let own = self.asked_for(&hello)?;
        line.service = Some(own.name.to_string());
        let stream = accept::shaken(hello, tls, protocol.alpn(), allowance).await?;
        match protocol {
            Protocol::Pp2 => self.let_in_once(stream, own, allowance, &arrived, line).await.map(Entry::Once),
            Protocol::Tunnel => {
                let tunnel = Tunnel::new(stream, Callee::new(&self.verifier, &own.name));
                Ok(Entry::Tunnel(Box::new(Accepted { tunnel, own, arrived, allowance })))
            }
            Protocol::Http(version) => {
                Ok(Entry::Http(Box::new(http::Accepted { stream, version, own: own.clone(), arrived })))
            }
        }
    }

    async fn let_in_once(
        &self,
        stream: ServerStream,
        own: &OwnService,
        allowance: Allowance,
        arrived: &Arrived,
        line: &mut Line,
    ) -> Result<Entered, InboundError> {
        let Introduced { stream, introduction, early } = accept::introduced(stream, allowance).await?;
        line.generation = introduction.generation;
        let passage = match self.admit(&introduction, own, arrived).await {
            Ok(admitted) => Passage::Admitted(admitted),
            Err(refusal) => self.tolerate(refusal)?,
        };
        let application = self.forward(&passage, Some(own), arrived, Some(&introduction), line).await?;
        let (caller, good_until) = (CallerSide::Pp2(Box::new(stream)), passage.good_until());
        Ok(Entered { caller, early, application, carriage: Carriage::Pp2, good_until })
    }

    async fn enter_plain(
        &self,
        tcp: TcpStream,
        early: Vec<u8>,
        arrived: &Arrived,
        passage: Passage,
        line: &mut Line,
    ) -> Result<Entered, InboundError> {
        let (carriage, mode) = match passage {
            Passage::ByAddress(_) | Passage::Admitted(_) => (Carriage::Plain, "none"),
            Passage::Tolerated => (Carriage::Legacy, "legacy"),
        };
        line.mode = Some(mode);
        let application = self.forward(&passage, self.own_at(arrived), arrived, None, line).await?;
        let (caller, good_until) = (CallerSide::Plain(tcp), passage.good_until());
        Ok(Entered { caller, early, application, carriage, good_until })
    }

    /// Checks who the caller is, where it arrived, and whether it may, in this order.
    async fn admit(
        &self,
        introduced: &Introduction,
        own: &OwnService,
        arrived: &Arrived,
    ) -> Result<Admitted, InboundError> {
        if arrived.client.ip() != introduced.source {
            return Err(InboundError::Source { claimed: introduced.source, peer: arrived.client });
        }
        if let Some(authority) = &introduced.authority
            && *authority != own.name
        {
            return Err(InboundError::Authority { authority: authority.clone(), service: own.name.clone() });
        }
        let now = clock::now();
        let caller = self.verifier.verify(introduced.token.as_deref(), &own.name, now)?;
        let not_ipv6 = InboundError::NotIpv6 { client: arrived.client, destination: arrived.destination };
        let (from, destination) = arrived.addresses().ok_or(not_ipv6)?;
        let service = self.directory.lookup(&own.name).await.map_err(InboundError::RulesUnknown)?;
        let fitting = admit::fits(&service, destination, from, &self.secrets, now, &admit::unknown)?;
        Ok(admit::admitted(fitting, caller, own)?)
    }

    /// Connects to the application of `own`, and tells it who calls where it wants to know.
    async fn forward(
        &self,
        passage: &Passage,
        own: Option<&OwnService>,
        arrived: &Arrived,
        introduced: Option<&Introduction>,
        line: &mut Line,
    ) -> Result<TcpStream, InboundError> {
        if let Passage::Admitted(admitted) = passage {
            line.caller = Some(admitted.id().to_string());
        }
        let application = self.dial(own, arrived, introduced).await?;
        line.server = application.peer_addr().ok();
        line.attempts = 1;
        Ok(application)
    }

    async fn dial(
        &self,
        own: Option<&OwnService>,
        arrived: &Arrived,
        introduced: Option<&Introduction>,
    ) -> Result<TcpStream, ForwardError> {
        let port = arrived.destination.port();
        let port = own.map_or(port, |own| own.local_port(port));
        match own.filter(|own| own.proxy_header.contains(&port)) {
            None => self.forward.connect(port).await,
            Some(own) => self.forward.connect_saying(port, &header(own, arrived, introduced)).await,
        }
    }

    /// Whether a connection passes that strict would refuse.
    fn tolerate(&self, refusal: InboundError) -> Result<Passage, InboundError> {
        let without_token = matches!(refusal, InboundError::Plaintext | InboundError::ForeignTls);
        let passes = match self.policy {
            Policy::Strict => false,
            Policy::Permissive => without_token,
            Policy::Audit => true,
        };
        if !passes {
            return Err(refusal);
        }
        self.report.tolerated(&refusal);
        Ok(Passage::Tolerated)
    }
}

/// What an application is told of its caller: nothing that would let it act in the caller's name.
fn header<'a>(own: &OwnService, arrived: &Arrived, introduced: Option<&Introduction>) -> ProxyHeader<'a> {
    let client_port = introduced.map_or(arrived.client.port(), |introduced| introduced.source_port);
    ProxyHeader {
        source: six(arrived.client.ip(), client_port),
        destination: six(arrived.destination.ip(), arrived.destination.port()),
        authority: Some(own.name.clone()),
        token: None,
        token_reference: None,
        generation: introduced.and_then(|introduced| introduced.generation),
    }
}

/// IPv4 as IPv4-mapped (RFC 4291 §2.5.5.2).
fn six(address: IpAddr, port: u16) -> SocketAddrV6 {
    let address = match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    };
    SocketAddrV6::new(address, port, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, C, D, F: Future>(_of: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_lasts_keeps_little_room() {
        let room = room(Inbound::carry);
        assert!(room <= 2_560, "{room} octets");
    }
}
