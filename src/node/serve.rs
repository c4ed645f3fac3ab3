//! The life of a running agent: it looks at the kernel, listens, and is ready when the kernel is as it should be.
//!
//! When it ends, everything stays as it is: the next one finds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use super::door::{self, Door};
use super::heard::Heard;
use super::keeper::{Keeper, Told};
use super::mesh;
use super::metrics::NodeMetrics;
use super::place::Node;
use crate::config::Loaded;
use crate::config::common::Admin;
use crate::config::node_agent::NodeAgent;
use crate::net::listen;
use crate::net::namespace::sysctl;
use crate::ops::admin::{self, Audience, Reply, Shown};
use crate::ops::drain::Drain;
use crate::ops::logging::Logging;
use crate::ops::metrics::Registry;
use crate::ops::process;
use crate::ops::ready::Ready;
use crate::ops::signals::{Signals, Wish};

/// Messages that may wait for the keeper; whoever has more to say waits.
const QUEUE: usize = 1_024;

/// What of the configuration does not change.
pub(super) fn node(config: &NodeAgent) -> Node {
    Node {
        address: config.address,
        spaces: config.spaces.clone(),
        nodes: config.carrying.nodes.clone(),
        tunnel: config.carrying.device.clone(),
        tunnel_port: config.carrying.port,
        mark: config.carrying.mark,
    }
}

/// Serves until told to stop.
pub(super) async fn serve(loaded: Loaded<NodeAgent>, logging: Logging) -> anyhow::Result<()> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let (registry, ready, drain) = (Registry::new(), Ready::new(), Arc::new(Drain::new()));
    process::register(&registry);
    let metrics = NodeMetrics::new(&registry);
    let (listening, settled) = (ready.task("listening"), ready.task("routes-in-place"));
    warn(&loaded);

    let config = loaded.value.clone();
    let node = node(&config);
    let (keeper, heard) = mpsc::channel::<Heard>(QUEUE);
    let (announced, announcements) = watch::channel(BTreeSet::new());
    let (shown, picture) = watch::channel(serde_json::Value::Null);
    let told = Told { announced, shown };
    let work = Keeper::open(node.clone(), config.carrying.mtu, config.linger, metrics.clone(), told).await?;
    let netlink = work.kernel().netlink().clone();
    let listener = door::open(&config.socket.0)
        .with_context(|| format!("socket: cannot listen at {}", config.socket.0.display()))?;
    if let Some(mesh) = &config.mesh {
        mesh::start(mesh, node.address, &announcements, &keeper)?;
    }
    let shown = Shown {
        ready: ready.clone(),
        metrics: registry,
        logging,
        config: move || loaded.effective(),
        drain: {
            let drain = Arc::clone(&drain);
            move || drain.begin()
        },
    };
    start_admin(config.admin.as_ref(), shown, picture)?;
    let door = Door { allowed: config.pods, node, netlink, keeper, metrics };
    tokio::spawn(work.run(heard, settled));
    tokio::spawn(door.serve(listener));
    listening.done();
    tracing::info!(socket = %config.socket.0.display(), "listening");

    let mut stopping = drain.watch();
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = stopping.graceful() => Wish::Stop,
        };
        match wish {
            Wish::Stop => break,
            Wish::Reload => tracing::info!("the agent reads its configuration at its start alone: start it again"),
        }
    }
    ready.stop();
    tracing::info!("stopping; routes and rules stay");
    Ok(())
}

/// Says what may not be as it was meant.
fn warn(loaded: &Loaded<NodeAgent>) {
    for remark in loaded.remarks() {
        tracing::warn!("{remark}");
    }
    for variable in loaded.unread_variables() {
        tracing::warn!(variable, "nothing reads this variable of the environment");
    }
    if sysctl("net.ipv6.conf.all.forwarding").is_ok_and(|on| on == "0") {
        tracing::warn!(
            "this node does not forward IPv6 packets, so nothing reaches its pods: net.ipv6.conf.all.forwarding"
        );
    }
}

/// Serves the admin port and the port for metrics and health, where they are configured.
fn start_admin<C, D>(
    admin: Option<&Admin>,
    shown: Shown<C, D>,
    picture: watch::Receiver<serde_json::Value>,
) -> anyhow::Result<()>
where
    C: Fn() -> serde_json::Value + Send + Sync + 'static,
    D: Fn() + Send + Sync + 'static,
{
    let Some(admin) = admin else { return Ok(()) };
    let health = admin::health(&shown.ready, &shown.metrics);
    let listen = |addr| listen::tcp(addr).with_context(|| format!("cannot listen on {addr}"));
    let (metrics, everything) = (listen(admin.metrics)?, listen(admin.listen)?);
    let routes = admin::routes(shown).get("/slices", move |_| Reply::json(&picture.borrow()));
    let audience = if admin.listen.ip().is_loopback() { Audience::Loopback } else { Audience::Network };
    tokio::spawn(admin::serve(everything, routes, audience));
    tokio::spawn(admin::serve(metrics, health, Audience::Network));
    Ok(())
}
