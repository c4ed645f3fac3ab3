//! The life of a running sidecar: it listens, then is ready; told to stop, it lets what is under way finish.
//!
//! ```text
//! listening ──▶ ready ──SIGTERM, POST /drain──▶ slices handed over ──▶ inbound takes nothing new ──▶ outbound ends ──▶ done
//!                 │                                   └── deadline, second signal: everything is reset
//!                 └─files change, SIGHUP─▶ read again, see `reload`
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::assemble::{self, AssembleError, Assembled, Listeners};
use super::inbound::Inbound;
use super::inbound::forward::Forward;
use super::outbound::Outbound;
use super::reload::{Files, Parts, Read, Reload};
use super::{lease, look, probe};
use crate::config::Loaded;
use crate::config::sidecar::Sidecar;
use crate::net::sys::text;
use crate::ops::admin::{self, Audience, Routes, Shown};
use crate::ops::drain::{Drain, Drained};
use crate::ops::logging::Logging;
use crate::ops::metrics::Registry;
use crate::ops::process;
use crate::ops::ready::{Ready, Task};
use crate::ops::signals::{Signals, Wish};

/// How long connections that were told to end have for it, and for their lines in the log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// It could not be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
}

/// What the end of a sidecar is decided with.
struct Stop {
    ready: Ready,
    /// Somebody asked for it on the admin port.
    asked: Arc<Notify>,
    inbound: Drain,
    outbound: Drain,
}

/// Serves until told to stop, and until what was under way has ended.
///
/// `read` reads the configuration again, whose own file is `file`.
pub(super) async fn serve(
    loaded: Loaded<Sidecar>,
    read: Read,
    file: PathBuf,
    logging: Logging,
) -> Result<(), ServeError> {
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let registry = Registry::new();
    process::register(&registry);
    let stop = Stop { ready: Ready::new(), asked: Arc::default(), inbound: Drain::new(), outbound: Drain::new() };
    let (listening, rules) = (stop.ready.task("listening"), stop.ready.task("own-rules"));
    let keys = stop.ready.task("issuers-keys");
    let files = Files::of(file, &loaded);
    let (assembled, material) = assemble::assemble(&loaded.value, &registry)?;
    announce(&loaded, &assembled);

    let Assembled { stub, listeners, outbound, inbound, issuers, lease, lasting } = assembled;
    let begun = Arc::new(Notify::new());
    let lease = lease.zip(lasting.leased.as_ref()).map(|((wanted, metrics), leased)| {
        let (identity, slices) = (Arc::clone(&leased.identity), Arc::clone(&leased.slices));
        lease::keep(wanted, identity, slices, metrics, Arc::clone(&begun))
    });
    let loaded = Arc::new(ArcSwap::from_pointee(loaded));
    let (for_us, for_all) = shown(&stop, &registry, &loaded, &logging, &inbound.load().forward);
    let shown = (look::routes(for_us, &lasting.resolver, &outbound, &inbound), for_all);
    let mut tasks = begin(listeners, (&outbound, &inbound), &stop, shown);
    tasks.spawn(stub.serve());
    tasks.spawn({
        let memory = Arc::clone(&lasting.memory);
        async move { memory.look_after().await }
    });
    listening.done();
    tasks.spawn(learn(inbound.load_full(), rules, begun));
    tasks.spawn({
        let issuers = Arc::clone(&issuers);
        async move { issuers.look_after(keys).await }
    });
    let parts = Parts { outbound, inbound, issuers, lasting, material, logging, failed: Vec::new() };
    let mut reload = Reload::new(read, files, Arc::clone(&loaded), parts, &registry);

    until_told(&mut signals, &stop, &mut reload).await;
    let within = loaded.load().value.drain;
    end(&mut signals, &stop, within, lease).await;
    Ok(())
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

/// Starts everything that takes connections.
fn begin(
    listeners: Listeners,
    (outbound, inbound): (&Arc<ArcSwap<Outbound>>, &Arc<ArcSwap<Inbound>>),
    stop: &Stop,
    (for_us, for_all): (Routes, Routes),
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(explicit) = listeners.explicit {
        tasks.spawn(Outbound::run_explicit(Arc::clone(outbound), explicit, stop.outbound.watch()));
    }
    tasks.spawn(Outbound::run(Arc::clone(outbound), listeners.outbound, stop.outbound.watch()));
    tasks.spawn(Inbound::run(Arc::clone(inbound), listeners.inbound, stop.inbound.watch()));
    tasks.spawn(async { match admin::serve(listeners.admin, for_us, Audience::Loopback).await {} });
    tasks.spawn(async { match admin::serve(listeners.health, for_all, Audience::Network).await {} });
    tasks
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

/// Waits for the wish to stop; obeys the others meanwhile.
async fn until_told(signals: &mut Signals, stop: &Stop, reload: &mut Reload) {
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = stop.asked.notified() => Wish::Stop,
            () = reload.next() => continue,
        };
        match wish {
            Wish::Stop => return,
            Wish::Reload => reload.all(),
        }
    }
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
        if let Some(lease) = &mut lease {
            lease.hand_over(within).await;
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
