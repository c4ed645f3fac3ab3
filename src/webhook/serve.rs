//! The life of a running webhook.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::answer::Desk;
use super::certificate::{self, Keeper, Served, User};
use super::events::{self, Events};
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::{listener, survey};
use crate::config::Loaded;
use crate::config::webhook::Webhook;
use crate::net::kubernetes::{Cluster, KubernetesError};
use crate::net::listen;
use crate::ops::admin::{self, Audience, Shown};
use crate::ops::drain::Drain;
use crate::ops::logging::Logging;
use crate::ops::metrics::Registry;
use crate::ops::process;
use crate::ops::ready::{Ready, Task};
use crate::ops::signals::Signals;

/// Native sidecars are on by default from this minor version on.
const NATIVE_SINCE: u32 = 29;
/// Between two attempts to reach the API server.
const PAUSE: Duration = Duration::from_secs(1);
/// After the wish to stop: how long the API server may take to learn that it should ask another replica.
const LAST_QUESTIONS: Duration = Duration::from_secs(5);
/// For answers under way.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a webhook did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("{key}: cannot listen on {address}: {cause}")]
    Listen { key: &'static str, address: SocketAddr, cause: io::Error },
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
}

/// Its listeners.
struct Listeners {
    questions: TcpListener,
    admin: TcpListener,
    health: TcpListener,
}

/// Serves until told to stop.
pub(super) async fn serve(loaded: Loaded<Webhook>, logging: Logging) -> Result<(), ServeError> {
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let registry = Registry::new();
    process::register(&registry);
    let metrics = Metrics::new(&registry);
    let config = loaded.value.clone();
    for remark in loaded.remarks() {
        tracing::warn!("{remark}");
    }
    let bind = |key, address| listen::tcp(address).map_err(|cause| ServeError::Listen { key, address, cause });
    let listeners = Listeners {
        questions: bind("listen", config.listen)?,
        admin: bind("admin.listen", config.admin.listen)?,
        health: bind("admin.metrics", config.admin.metrics)?,
    };
    let at = |listener: &TcpListener| listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    tracing::info!(
        questions = at(&listeners.questions),
        admin = at(&listeners.admin),
        metrics = at(&listeners.health),
        "listening"
    );
    let cluster = Cluster::new(config.kubeconfig.as_deref()).await?;
    let (ready, drain, asked) = (Ready::new(), Drain::new(), Arc::new(Notify::new()));
    let tasks = [ready.task("api-server"), ready.task("certificate"), ready.task("namespaces")];
    let served: Served = Arc::new(ArcSwapOption::empty());
    let mut running = JoinSet::new();
    administer(
        &mut running,
        &listeners_of(&registry, &ready),
        listeners.admin,
        listeners.health,
        loaded,
        logging,
        &asked,
    );

    let [reached, certified, known] = tasks;
    keep_certificate(&mut running, &config, &cluster, &served, &metrics, certified);
    let namespaces = Arc::new(Namespaces::default());
    let (watched, changes) = (Arc::clone(&namespaces), cluster.namespaces());
    running.spawn(async move { watched.follow(changes, known).await });
    let (events, queue) = Events::new(config.events, metrics.clone());
    running.spawn(events::send(queue, cluster.clone(), metrics.clone()));
    running.spawn(survey::look(
        cluster.clone(),
        Arc::clone(&namespaces),
        events.clone(),
        metrics.clone(),
        config.survey,
    ));

    tokio::select! {
        native = knows_native(&cluster) => {
            let settings = config.sidecar.settings(native);
            reached.done();
            tracing::info!(native = settings.native, image = settings.image, "pods are injected");
            let desk = Arc::new(Desk { cluster, namespaces, settings, events, metrics });
            running.spawn(listener::run(listeners.questions, served, desk, drain.watch()));
        }
        () = signals.stop() => return Ok(()),
    }
    tokio::select! {
        () = signals.stop() => {}
        () = asked.notified() => {}
    }
    ready.stop();
    tracing::info!("stopping");
    tokio::select! {
        () = tokio::time::sleep(LAST_QUESTIONS) => {}
        () = signals.stop() => {}
    }
    let _ = drain.drain(DRAIN).await;
    Ok(())
}

/// What the admin port shows.
struct Seen {
    registry: Registry,
    ready: Ready,
}

fn listeners_of(registry: &Registry, ready: &Ready) -> Seen {
    Seen { registry: registry.clone(), ready: ready.clone() }
}

fn administer(
    running: &mut JoinSet<()>,
    seen: &Seen,
    admin: TcpListener,
    health: TcpListener,
    loaded: Loaded<Webhook>,
    logging: Logging,
    asked: &Arc<Notify>,
) {
    let asked = Arc::clone(asked);
    let for_all = admin::health(&seen.ready, &seen.registry);
    let shown = Shown {
        ready: seen.ready.clone(),
        metrics: seen.registry.clone(),
        logging,
        config: move || loaded.effective(),
        drain: move || asked.notify_one(),
    };
    running.spawn(async { match admin::serve(admin, admin::routes(shown), Audience::Loopback).await {} });
    running.spawn(async { match admin::serve(health, for_all, Audience::Network).await {} });
}

fn keep_certificate(
    running: &mut JoinSet<()>,
    config: &Webhook,
    cluster: &Cluster,
    served: &Served,
    metrics: &Metrics,
    task: Task,
) {
    let (served, metrics) = (Arc::clone(served), metrics.clone());
    let namespace = config.namespace.clone().unwrap_or_else(|| cluster.namespace().to_owned());
    if let Some(secret) = config.peak.secret.clone() {
        let keeper = Keeper {
            cluster: cluster.clone(),
            namespace: namespace.clone(),
            secret,
            names: vec![config.peak.name.to_string().trim_end_matches('.').to_owned()],
            life: config.certificate.life,
            user: User::Pods,
        };
        running.spawn(keeper.keep(None));
    }
    if let (Some(file), Some(key)) = (config.certificate.file.clone(), config.certificate.key.clone()) {
        running.spawn(async move { certificate::follow_files(&file, &key, served, metrics, task).await });
        return;
    }
    let mut names = vec![
        format!("{}.{namespace}.svc", config.service),
        format!("{}.{namespace}.svc.cluster.local", config.service),
    ];
    names.extend(config.certificate.names.iter().cloned());
    let keeper = Keeper {
        cluster: cluster.clone(),
        namespace,
        secret: config.certificate.secret.clone(),
        names,
        life: config.certificate.life,
        user: User::Webhook { configuration: config.configuration.clone(), served, metrics },
    };
    running.spawn(keeper.keep(Some(task)));
}

/// Whether the cluster starts init containers that restart always; asked until there is an answer.
async fn knows_native(cluster: &Cluster) -> bool {
    loop {
        match cluster.minor_version().await {
            Ok(minor) => return minor >= NATIVE_SINCE,
            Err(error) => tracing::warn!(reason = error.reason(), "the cluster's version is not known: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
