//! The life of a running sidecar: it listens, then is ready; told to stop, it lets what is under way finish.
//!
//! ```text
//! listening ──▶ ready ──SIGTERM, POST /drain──▶ slices handed over ──▶ inbound takes nothing new ──▶ outbound ends ──▶ done
//!                 │                                   └── deadline, second signal: everything is reset
//!                 └─SIGHUP─▶ trusted keys are read again
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::assemble::{self, AssembleError, Assembled};
use super::inbound::Inbound;
use super::{lease, material, probe};
use crate::config::Loaded;
use crate::config::sidecar::{Sidecar, Trust};
use crate::ops::admin::{self, Audience, Shown};
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
pub(super) async fn serve(loaded: Loaded<Sidecar>, logging: Logging) -> Result<(), ServeError> {
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let registry = Registry::new();
    process::register(&registry);
    let stop = Stop { ready: Ready::new(), asked: Arc::default(), inbound: Drain::new(), outbound: Drain::new() };
    let (listening, rules) = (stop.ready.task("listening"), stop.ready.task("own-rules"));
    let assembled = assemble::assemble(&loaded.value, &registry)?;
    let (drain, trust) = (loaded.value.drain, loaded.value.trust.clone());
    announce(&loaded, &assembled);

    let mut assembled = assembled;
    let inbound = Arc::clone(&assembled.inbound.1);
    let begun = Arc::new(Notify::new());
    let lease = assembled.lease.take().zip(inbound.leased.as_ref()).map(|((wanted, metrics), leased)| {
        let (identity, slices) = (Arc::clone(&leased.identity), Arc::clone(&leased.slices));
        lease::keep(wanted, identity, slices, metrics, Arc::clone(&begun))
    });
    let mut tasks = begin(assembled, &stop, &registry, loaded, logging);
    listening.done();
    tasks.spawn(learn(Arc::clone(&inbound), rules, begun));

    until_told(&mut signals, &stop, &inbound, &trust).await;
    end(&mut signals, &stop, drain, lease).await;
    Ok(())
}

/// Starts everything that serves.
fn begin(
    assembled: Assembled,
    stop: &Stop,
    registry: &Registry,
    loaded: Loaded<Sidecar>,
    logging: Logging,
) -> JoinSet<()> {
    let Assembled { stub, outbound, explicit, inbound, memory, lease: _, admin, health } = assembled;
    let for_all = probe::routes(admin::health(&stop.ready, registry), &loaded.value.probes, &inbound.1.forward);
    let asked = Arc::clone(&stop.asked);
    let shown = Shown {
        ready: stop.ready.clone(),
        metrics: registry.clone(),
        logging,
        config: move || loaded.effective(),
        drain: move || asked.notify_one(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(stub.serve());
    if let Some(explicit) = explicit {
        tasks.spawn(Arc::clone(&outbound.1).run_explicit(explicit, stop.outbound.watch()));
    }
    tasks.spawn(outbound.1.run(outbound.0, stop.outbound.watch()));
    tasks.spawn(inbound.1.run(inbound.0, stop.inbound.watch()));
    tasks.spawn(async move { memory.look_after().await });
    tasks.spawn(async { match admin::serve(admin, admin::routes(shown), Audience::Loopback).await {} });
    tasks.spawn(async { match admin::serve(health, for_all, Audience::Network).await {} });
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
        outbound = at(&assembled.outbound.0),
        explicit = assembled.explicit.as_ref().map(at),
        inbound = at(&assembled.inbound.0),
        admin = at(&assembled.admin),
        metrics = at(&assembled.health),
        "listening"
    );
}

/// Without the rules of its own services a sidecar can let nobody in, so it is not ready before it knows them.
async fn learn(inbound: Arc<Inbound>, rules: Task, ready: Arc<Notify>) {
    inbound.learn().await;
    rules.done();
    // Slices come to a pod that can serve them.
    ready.notify_one();
}

/// Waits for the wish to stop; obeys the others meanwhile.
async fn until_told(signals: &mut Signals, stop: &Stop, inbound: &Inbound, trust: &[Trust]) {
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = stop.asked.notified() => Wish::Stop,
        };
        match wish {
            Wish::Stop => return,
            Wish::Reload => match material::trusted(trust) {
                Ok(issuers) => {
                    inbound.verifier.trust(issuers);
                    tracing::info!("trusted keys read again");
                }
                Err(error) => tracing::warn!("trusted keys stay as they are: {error}"),
            },
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
