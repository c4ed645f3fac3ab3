//! Starting and stopping the workers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::gate::Gate;
use super::rate::{RateLimiter, RateLimits};
use super::respond::{self, Asker, Outcome, QueryLog, Responder};
use super::tally::{Proto, Tallies};
use super::tcp::{self, Open, TcpLimits};
use super::udp;
use crate::model::zone::Zones;
use crate::net::listen;
use crate::net::udp_batch::{self, Shared};
use crate::ops::metrics::{Kind, Registry};
use crate::ops::{clock, entropy};
use crate::peak::desk::{self, Desk as Apart, Queue};
use crate::wire::dns::cookie::CookieSecrets;

/// How often a free UDP port whose TCP port is taken is given back for another.
const PORT_ATTEMPTS: usize = 16;

/// What a server does not go beyond.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Octets of a reply over UDP, whatever the asker takes.
    pub(crate) udp_size: u16,
    /// Of TCP.
    pub(crate) tcp: TcpLimits,
    /// Of answers to one network over UDP; none: as many as are asked for.
    pub(crate) rate: Option<RateLimits>,
    /// Workers, at least one.
    pub(crate) workers: usize,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// bind(2) and what comes with it.
    #[error("cannot listen on {addr} ({proto}): {cause}{}", hint(.cause))]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// UDP or TCP.
        proto: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
}

/// What whoever started it can do.
fn hint(cause: &io::Error) -> &'static str {
    const HINTS: [(io::ErrorKind, &str); 3] = [
        (io::ErrorKind::PermissionDenied, "; ports below 1024 need CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::AddrInUse, "; another program answers there"),
        (io::ErrorKind::AddrNotAvailable, "; the address is not this machine's"),
    ];
    HINTS.into_iter().find(|(kind, _)| *kind == cause.kind()).map_or("", |(_, hint)| hint)
}

/// What is served: the zones now, replaceable at any time.
pub(crate) type Served = Arc<ArcSwap<Zones>>;

/// What the workers share with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common<'a> {
    pub(crate) log: &'a QueryLog,
    pub(crate) gate: &'a Gate,
    /// The secrets of cookies now, replaceable at any time.
    pub(crate) cookies: &'a Arc<ArcSwap<CookieSecrets>>,
}

/// A running server. Stop it with [`Server::stop`].
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    stopped: Arc<AtomicBool>,
    stop_tcp: watch::Sender<bool>,
    sockets: Vec<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Ends when the other threads have.
    desk: Option<JoinHandle<()>>,
    open: Arc<Open>,
}

impl Server {
    /// Listens on `addr`, UDP and TCP, and answers from `zones`. Needs a tokio runtime to be entered.
    ///
    /// # Errors
    /// When the address cannot be had, or a thread cannot.
    pub(crate) fn start(
        addr: SocketAddr,
        zones: &Served,
        limits: Limits,
        tallies: &Tallies,
        shared: Common<'_>,
        (apart, queue): (Apart, Queue),
    ) -> Result<Self, ServerError> {
        let (sockets, listener) = listen_on(addr, limits.workers)?;
        let Common { log, gate, cookies } = shared;
        let (cookies, log, gate) = (Arc::clone(cookies), log.clone(), gate.clone());
        let shared = respond::Shared { cookies, udp_limit: limits.udp_size, log, gate };
        let mut server = Self {
            addr: sockets[0].local_addr(),
            stopped: Arc::default(),
            stop_tcp: watch::Sender::new(false),
            sockets: Vec::new(),
            threads: Vec::new(),
            desk: None,
            open: Arc::new(Open::new(limits.tcp)),
        };
        let responder =
            |proto, rate| Responder::new(&shared, proto, rate, entropy::draw() as u64, tallies.worker(proto));
        server.start_desk(&apart, queue, &sockets[0], responder(Proto::Udp, None), zones)?;
        let rate = limits.rate.map(|rate| RateLimiter::new(rate, entropy::draw() as u64));
        for socket in sockets {
            server.start_udp(socket, responder(Proto::Udp, rate.clone()), &apart, zones, limits)?;
            server.start_tcp(&listener, responder(Proto::Tcp, None), &apart, zones)?;
        }
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Registers what the server itself counts; the workers' counts are the [`Tallies`]'.
    pub(crate) fn register(&self, registry: &Registry) {
        let open = Arc::clone(&self.open);
        registry.sampled("funicular_dns_tcp_connections", "Open TCP connections.", Kind::Gauge, &[], move |samples| {
            samples.put(&[], open.count() as f64)
        });
        let open = Arc::clone(&self.open);
        registry.sampled(
            "funicular_dns_tcp_refused_total",
            "TCP connections closed at once because there were too many, of all peers or of one.",
            Kind::Counter,
            &[],
            move |samples| samples.put(&[], open.refused() as f64),
        );
    }

    /// Starts the thread for what comes over UDP and is no plain question. It ends when nobody can bring it anything.
    fn start_desk(
        &mut self,
        apart: &Apart,
        queue: Queue,
        socket: &Shared,
        mut responder: Responder,
        zones: &Served,
    ) -> Result<(), ServerError> {
        let (zones, mut room) = (Arc::clone(zones), vec![0; usize::from(u16::MAX)]);
        let answer = move |question: &[u8], peer: SocketAddr, confirmed: bool| {
            responder.confirmed = confirmed;
            room[..question.len()].copy_from_slice(question);
            let asker = Asker { peer: peer.ip(), now: clock::now() };
            match responder.respond(&zones.load(), &mut room, question.len(), asker) {
                Outcome::Reply(octets) => Some(room[..octets].to_vec()),
                Outcome::Silence => Some(Vec::new()),
                Outcome::Apart => None,
            }
        };
        let socket = socket.try_clone().map_err(ServerError::Worker)?;
        self.desk = Some(desk::start(apart, queue, socket, Box::new(answer)).map_err(ServerError::Worker)?);
        Ok(())
    }

    fn start_udp(
        &mut self,
        socket: Shared,
        mut responder: Responder,
        apart: &Apart,
        zones: &Served,
        limits: Limits,
    ) -> Result<(), ServerError> {
        let (apart, zones, stopped) = (apart.clone(), Arc::clone(zones), Arc::clone(&self.stopped));
        self.sockets.push(socket.try_clone().map_err(ServerError::Worker)?);
        let thread = std::thread::Builder::new()
            .name(format!("dns-udp-{}", self.threads.len() / 2))
            .spawn(move || udp::serve(&socket, &mut responder, &apart, &zones, &stopped, limits.udp_size));
        self.threads.push(thread.map_err(ServerError::Worker)?);
        Ok(())
    }

    fn start_tcp(
        &mut self,
        listener: &std::net::TcpListener,
        responder: Responder,
        apart: &Apart,
        zones: &Served,
    ) -> Result<(), ServerError> {
        let apart = apart.clone();
        let (zones, open, stopped) = (Arc::clone(zones), Arc::clone(&self.open), self.stop_tcp.subscribe());
        let listener = listener.try_clone().map_err(ServerError::Worker)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Worker)?;
        let thread = std::thread::Builder::new().name(format!("dns-tcp-{}", self.threads.len() / 2)).spawn(move || {
            let served = LocalSet::new();
            served.block_on(&runtime, async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => tcp::serve(listener, responder, apart, zones, open, stopped).await,
                    Err(error) => tracing::error!(%error, "a worker cannot serve TCP"),
                }
            });
        });
        self.threads.push(thread.map_err(ServerError::Worker)?);
        Ok(())
    }

    /// Ends all workers and waits for them. What was taken in is answered first.
    pub(crate) fn stop(mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop_tcp.send_replace(true);
        for socket in &self.sockets {
            socket.stop();
        }
        for thread in self.threads.drain(..).chain(self.desk.take()) {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Sockets for UDP, one a worker, and one listener at the same address and port.
fn listen_on(addr: SocketAddr, workers: usize) -> Result<(Vec<Shared>, std::net::TcpListener), ServerError> {
    let failed = |proto| move |cause| ServerError::Listen { addr, proto, cause };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let sockets = udp_batch::group(addr, workers).map_err(failed("UDP"))?;
        let bound = SocketAddr::new(addr.ip(), sockets[0].local_addr().port());
        match listen::tcp(bound).and_then(TcpListener::into_std) {
            Ok(listener) => return Ok((sockets, listener)),
            Err(cause) if addr.port() == 0 && cause.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {}
            Err(cause) => return Err(failed("TCP")(cause)),
        }
    }
}
