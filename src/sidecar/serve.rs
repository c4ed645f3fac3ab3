//! The life of a running sidecar: it listens, then is ready; told to stop, it lets what is under way finish.
//!
//! ```text
//! listening ──▶ ready ──SIGTERM, POST /drain──▶ slices handed over ──▶ inbound takes nothing new ──▶ outbound ends ──▶ done
//!                 │                                   └── deadline, second signal: everything is reset
//!                 ├─files change, SIGHUP─▶ read again, see `reload`
//!                 └─SIGUSR2─▶ a new program takes its place, see `succession`
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::assemble::{self, AssembleError, Assembled, Lasting, Listeners};
use super::inbound::Inbound;
use super::inbound::forward::Forward;
use super::outbound::Outbound;
use super::reload::{Files, Parts, Read, Reload};
use super::stub::Stub;
use super::succession::{self, Estate, Heir, Office, Predecessor, Program, SuccessionError};
use super::{lease, leave, look, probe};
use crate::config::Loaded;
use crate::config::sidecar::Sidecar;
use crate::net::sys::text;
use crate::ops::admin::{self, Audience, Routes, Shown};
use crate::ops::children::{self, Children};
use crate::ops::drain::{Drain, Drained};
use crate::ops::logging::Logging;
use crate::ops::metrics::{Counter, Registry};
use crate::ops::process;
use crate::ops::ready::{Ready, Task};
use crate::ops::signals::{Signals, Upgrades, Wish};

/// How long connections that were told to end have for it, and for their lines in the log.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a successor waits for its slices before it serves without knowing them.
const SLICES: Duration = Duration::from_secs(1);
/// The task that a successor begins last.
const LISTENING: &str = "listening";

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// It could not be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    /// It could not take another's place, or give up its own.
    #[error("no sidecar follows on another: {0}")]
    Succession(#[from] SuccessionError),
}

/// What a sidecar starts with.
pub(super) struct Start {
    pub(super) loaded: Loaded<Sidecar>,
    /// Reads the configuration again.
    pub(super) read: Read,
    /// The configuration's own file.
    pub(super) file: PathBuf,
    pub(super) logging: Logging,
    /// What is started when another is to take its place.
    pub(super) program: Program,
    /// Whether it takes another's.
    pub(super) takes_over: bool,
}

/// What the end of a sidecar is decided with.
struct Stop {
    ready: Ready,
    /// Somebody asked for it on the admin port.
    asked: Arc<Notify>,
    inbound: Drain,
    outbound: Drain,
}

/// How the life of a sidecar goes on.
enum Then {
    Ends,
    IsSucceeded(Heir),
}

/// Serves until told to stop or succeeded, and until what was under way has ended.
pub(super) async fn serve(start: Start) -> Result<ExitCode, ServeError> {
    let Start { loaded, read, file, logging, program, takes_over } = start;
    let signals = Signals::catch().map_err(ServeError::Signals)?;
    let upgrades = Upgrades::catch().map_err(ServeError::Signals)?;
    let children = Children::notice().map_err(ServeError::Signals)?;
    let (predecessor, inherited) = match takes_over {
        true => Predecessor::meet().await.map(|(predecessor, estate)| (Some(predecessor), estate))?,
        false => (None, Estate::default()),
    };
    let registry = Registry::new();
    process::register(&registry);
    let stop = Stop { ready: Ready::new(), asked: Arc::default(), inbound: Drain::new(), outbound: Drain::new() };
    let (listening, rules) = (stop.ready.task(LISTENING), stop.ready.task("own-rules"));
    let keys = stop.ready.task("issuers-keys");
    let files = Files::of(file, &loaded);
    let (assembled, material) = assemble::assemble(&loaded.value, &registry, inherited)?;
    announce(&loaded, &assembled);

    let Assembled { stub, listeners, outbound, inbound, issuers, lease, lasting, estate } = assembled;
    let begun = Arc::new(Notify::new());
    let mut beside = JoinSet::new();
    beside.spawn({
        let (memory, report) = (Arc::clone(&lasting.memory), lasting.report().clone());
        async move { memory.look_after(|| report.open()).await }
    });
    beside.spawn(learn(inbound.load_full(), rules, Arc::clone(&begun)));
    beside.spawn({
        let issuers = Arc::clone(&issuers);
        async move { issuers.look_after(|| keys.done()).await }
    });
    let predecessor = relieve(predecessor, &stop.ready, &lasting).await?;
    let lease = lease.zip(lasting.leased.as_ref()).map(|((wanted, metrics), leased)| {
        let (identity, slices) = (Arc::clone(&leased.identity), Arc::clone(&leased.slices));
        lease::keep(wanted, identity, slices, metrics, Arc::clone(&begun))
    });
    if let (Some(_), Some(leased)) = (&predecessor, &lasting.leased) {
        // What arrives meanwhile waits in the sockets. Without Peak it is served as if all were this pod's.
        let _ = tokio::time::timeout(SLICES, leased.slices.known()).await;
    }
    let loaded = Arc::new(ArcSwap::from_pointee(loaded));
    let (for_us, for_all) = shown(&stop, &registry, &loaded, &logging, &inbound.load().forward);
    let for_us = look::routes(for_us, &lasting.resolver, &outbound, &inbound);
    let shown = (leave::routes(for_us, lease.as_ref().map(lease::Handle::leaver)), for_all);
    let front = begin(listeners, stub, (&outbound, &inbound), &stop, shown);
    listening.done();
    let first = match predecessor {
        Some(predecessor) => Some(predecessor.part().await?),
        None => None,
    };

    let failures = registry.counter("funicular_upgrade_failures_total", "New programs that did not take over.");
    let parts = Parts { outbound, inbound, issuers, lasting, material, logging, failed: Vec::new() };
    let reload = Reload::new(read, files, Arc::clone(&loaded), parts, &registry);
    let mut office = Office { signals, upgrades, children, reload };
    let succession = Succession { program, estate, first, failures };
    let then = until_told(&mut office, &stop, &succession).await;
    let within = loaded.load().value.drain;
    match then {
        Then::Ends => {
            drop(succession);
            end(&mut office.signals, &stop, within, lease).await;
            Ok(ExitCode::SUCCESS)
        }
        Then::IsSucceeded(heir) => give_way(heir, &mut office, (&stop, within), succession, (front, lease)).await,
    }
}

/// Waits until nothing is missing but connections to take; then the predecessor takes none any more.
async fn relieve(
    predecessor: Option<Predecessor>,
    ready: &Ready,
    lasting: &Lasting,
) -> Result<Option<Predecessor>, SuccessionError> {
    let Some(mut predecessor) = predecessor else { return Ok(None) };
    ready.all_but(LISTENING).await;
    lasting.learn(predecessor.relieve().await?);
    Ok(Some(predecessor))
}

/// What the admin ports show.
fn shown(
    stop: &Stop,
    registry: &Registry,
    loaded: &Arc<ArcSwap<Loaded<Sidecar>>>,
    logging: &Logging,
    forward: &Forward,
) -> (Routes, Routes) {
    let health = probe::routes(admin::health(&stop.ready, registry), &loaded.load().value.probes, forward);
    let (asked, loaded) = (Arc::clone(&stop.asked), Arc::clone(loaded));
    let shown = Shown {
        ready: stop.ready.clone(),
        metrics: registry.clone(),
        logging: logging.clone(),
        config: move || loaded.load().effective(),
        drain: move || asked.notify_one(),
    };
    (admin::routes(shown), health)
}

/// Starts everything that takes connections. Dropped, it takes none any more; those under way go on until `stop` says
/// otherwise.
fn begin(
    listeners: Listeners,
    stub: Stub,
    (outbound, inbound): (&Arc<ArcSwap<Outbound>>, &Arc<ArcSwap<Inbound>>),
    stop: &Stop,
    (for_us, for_all): (Routes, Routes),
) -> JoinSet<()> {
    let mut front = JoinSet::new();
    if let Some(explicit) = listeners.explicit {
        front.spawn(Outbound::run_explicit(Arc::clone(outbound), explicit, stop.outbound.watch()));
    }
    front.spawn(Outbound::run(Arc::clone(outbound), listeners.outbound, stop.outbound.watch()));
    front.spawn(Inbound::run(Arc::clone(inbound), listeners.inbound, stop.inbound.watch()));
    front.spawn(stub.serve());
    front.spawn(async { match admin::serve(listeners.admin, for_us, Audience::Loopback).await {} });
    front.spawn(async { match admin::serve(listeners.health, for_all, Audience::Network).await {} });
    front
}

/// Says where the sidecar listens, and what of its configuration may not be as it was meant.
fn announce(loaded: &Loaded<Sidecar>, assembled: &Assembled) {
    for remark in loaded.remarks() {
        tracing::warn!("{remark}");
    }
    for variable in loaded.unread_variables() {
        tracing::warn!(variable, "nothing reads this variable of the environment");
    }
    let at = |listener: &tokio::net::TcpListener| listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    tracing::info!(
        dns = %assembled.stub.local_addr(),
        outbound = at(&assembled.listeners.outbound),
        explicit = assembled.listeners.explicit.as_ref().map(at),
        inbound = at(&assembled.listeners.inbound),
        admin = at(&assembled.listeners.admin),
        metrics = at(&assembled.listeners.health),
        "listening"
    );
}

/// Without the rules of its own services a sidecar can let nobody in, so it is not ready before it knows them.
async fn learn(inbound: Arc<Inbound>, rules: Task, ready: Arc<Notify>) {
    inbound.learn().await;
    rules.done();
    // Reading a configuration and putting a sidecar together takes code that nothing needs again.
    text::forget();
    // Slices come to a pod that can serve them.
    ready.notify_one();
}

/// What it takes to be succeeded.
struct Succession {
    program: Program,
    estate: Estate,
    /// Leads to the sidecar that was there first, where that is another.
    first: Option<OwnedFd>,
    failures: Counter,
}

impl Succession {
    /// A new program that is ready to take over; where it is not, all stays as it is.
    async fn raise(&self) -> Option<Heir> {
        match Heir::raise(&self.program, &self.estate, self.first.as_ref()).await {
            Ok(heir) => Some(heir),
            Err(error) => {
                self.failures.increment();
                tracing::error!("no new sidecar takes over, this one goes on: {error}");
                None
            }
        }
    }
}

/// Waits for the wish to stop, or for a successor; obeys the others meanwhile.
async fn until_told(office: &mut Office, stop: &Stop, succession: &Succession) -> Then {
    loop {
        let wish = tokio::select! {
            wish = office.signals.next() => wish,
            () = stop.asked.notified() => Wish::Stop,
            () = office.reload.next() => continue,
            ended = office.children.next() => {
                tracing::debug!(process = ended.pid.as_raw_nonzero(), code = ended.code, "a process has ended here");
                continue;
            }
            () = office.upgrades.next() => {
                tokio::select! {
                    heir = succession.raise() => match heir {
                        Some(heir) => return Then::IsSucceeded(heir),
                        None => continue,
                    },
                    () = office.signals.stop() => Wish::Stop,
                    () = stop.asked.notified() => Wish::Stop,
                }
            }
        };
        match wish {
            Wish::Stop => return Then::Ends,
            Wish::Reload => office.reload.all(),
        }
    }
}

/// Takes nothing new any more, lets the successor serve, and finishes what is under way.
async fn give_way(
    mut heir: Heir,
    office: &mut Office,
    (stop, within): (&Stop, Duration),
    succession: Succession,
    (mut front, lease): (JoinSet<()>, Option<lease::Handle>),
) -> Result<ExitCode, ServeError> {
    stop.ready.stop();
    front.shutdown().await;
    stop.inbound.begin();
    stop.outbound.begin();
    if let Some(lease) = lease {
        lease.leave();
    }
    heir.serve(&office.reload.lasting().known()).await?;
    let stays = succession.first.is_none();
    tracing::info!(inbound = stop.inbound.open(), outbound = stop.outbound.open(), "a new sidecar has taken over");
    drop(succession);
    if stays && let Err(error) = children::adopt() {
        tracing::warn!("what comes after the new sidecar will not be noticed: {error}");
    }
    Ok(succession::retire(heir, office, (&stop.inbound, &stop.outbound), within, stays).await)
}

/// Lets inbound connections finish, then outbound ones: the application calls others while it finishes its work. What
/// is left at the deadline, or at a second signal, is reset.
async fn end(signals: &mut Signals, stop: &Stop, within: Duration, mut lease: Option<lease::Handle>) {
    stop.ready.stop();
    let deadline = Instant::now() + within;
    tracing::info!(
        inbound = stop.inbound.open(),
        outbound = stop.outbound.open(),
        seconds = within.as_secs_f64(),
        "draining"
    );
    let in_order = async {
        if let Some(lease) = &lease {
            lease.leaver().hand_over(within).await;
        }
        let inbound = stop.inbound.drain(deadline.saturating_duration_since(Instant::now())).await;
        let outbound = stop.outbound.drain(deadline.saturating_duration_since(Instant::now())).await;
        (inbound, outbound)
    };
    tokio::select! {
        drained = in_order => match drained {
            (Drained::Finished, Drained::Finished) => tracing::info!("drained"),
            (inbound, outbound) => {
                tracing::warn!(inbound = left(inbound), outbound = left(outbound), "deadline passed: reset what is left");
            }
        },
        () = signals.stop() => tracing::warn!("told to stop again: connections are reset"),
    }
    stop.inbound.force();
    stop.outbound.force();
    let _ = tokio::join!(stop.inbound.drain(LAST_WORDS), stop.outbound.drain(LAST_WORDS));
    if let Some(lease) = &mut lease {
        lease.give_back().await;
    }
}

/// How many connections a drain left.
fn left(drained: Drained) -> usize {
    match drained {
        Drained::Finished => 0,
        Drained::Forced { open } => open,
    }
}
