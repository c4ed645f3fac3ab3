//! One task that knows everything and changes the kernel: claims, other agents' slices and others' meddling come in,
//! reports go out.
//!
//! What comes in together is handled together, so a hundred pods that start at once cost a few changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::Ipv6Net;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::heard::{Heard, Joined};
use super::kernel::{Applied, Kernel, KernelError, concerns};
use super::mesh::Atlas;
use super::metrics::NodeMetrics;
use super::place::{Hop, Node};
use super::pods::{Pod, PodId, Pods};
use super::wanted::{self, Inherited, Wanted, World};
use super::{SLICES, mesh};
use crate::net::routes::{Action, Event, Events};
use crate::ops::metrics::Reason;
use crate::ops::ready::Task;
use crate::wire::agent::{Report, State};

/// How often everything is looked at although nobody said that it has changed: packet rules change without a word.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long changes by others are gathered before they are put right.
const GATHER: Duration = Duration::from_millis(20);
/// How often what could not be done is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Everything that the keeper knows.
pub(super) struct Keeper {
    node: Node,
    linger: Duration,
    kernel: Kernel,
    events: Events,
    pods: Pods,
    reports: BTreeMap<PodId, mpsc::UnboundedSender<Report>>,
    inherited: Inherited,
    inherited_until: Option<Instant>,
    atlas: Atlas,
    hops: BTreeMap<Ipv6Addr, Hop>,
    /// What other agents are told.
    announced: watch::Sender<BTreeSet<Ipv6Net>>,
    /// What the admin port shows.
    shown: watch::Sender<serde_json::Value>,
    metrics: NodeMetrics,
    claimed_at: Option<Instant>,
    look_at: Instant,
    try_again: Option<Instant>,
}

/// What the keeper tells besides reports.
pub(super) struct Told {
    pub(super) announced: watch::Sender<BTreeSet<Ipv6Net>>,
    pub(super) shown: watch::Sender<serde_json::Value>,
}

impl Keeper {
    /// Reads what is in the kernel; changes nothing yet but the tunnel device.
    pub(super) async fn open(
        node: Node,
        mtu: u16,
        linger: Duration,
        metrics: NodeMetrics,
        told: Told,
    ) -> Result<Self, KernelError> {
        let events = Events::here()?;
        let kernel = Kernel::open(&node, mtu).await?;
        let (inherited, numbers) = kernel.inherited(&node);
        let inherited_until = (!inherited.routes.is_empty()).then(|| Instant::now() + linger);
        if inherited_until.is_some() {
            tracing::info!(
                routes = inherited.routes.len(),
                "an earlier agent's routes stay until their pods come back"
            );
        }
        let Told { announced, shown } = told;
        Ok(Self {
            linger,
            kernel,
            events,
            pods: Pods::remembering(numbers),
            reports: BTreeMap::new(),
            inherited,
            inherited_until,
            atlas: Atlas::default(),
            hops: BTreeMap::new(),
            announced,
            shown,
            metrics,
            claimed_at: None,
            look_at: Instant::now() + LOOK_EVERY,
            try_again: None,
            node,
        })
    }

    pub(super) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Works until the process ends; `first` is done when the kernel is as it should be for the first time.
    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Heard>, first: Task) {
        self.settle().await;
        first.done();
        loop {
            let next = self.next_moment();
            tokio::select! {
                message = heard.recv() => {
                    let Some(message) = message else { return };
                    self.hear(message).await;
                    while let Ok(message) = heard.try_recv() {
                        self.hear(message).await;
                    }
                    self.settle().await;
                }
                event = self.events.next() => self.notice(event),
                () = tokio::time::sleep_until(next) => self.wake().await,
            }
        }
    }

    async fn hear(&mut self, message: Heard) {
        match message {
            Heard::Joined(Joined { id, address, device, reports, connection }) => {
                let _ = connection.send(self.pods.join(id, address, device));
                self.reports.insert(id, reports);
            }
            Heard::Claimed { id, connection, claim } => {
                self.claimed_at.get_or_insert_with(Instant::now);
                self.pods.claimed(id, connection, claim);
            }
            Heard::Left { id, connection } => self.pods.left(id, connection, Instant::now()),
            Heard::Routed { peer, routed } => {
                self.learn_hop(routed.node).await;
                self.atlas.learn(peer, routed);
            }
            Heard::Parted { peer } => self.atlas.part(peer, Instant::now()),
        }
    }

    /// How another node is reached: straight if it is on a link of ours, else past routers that do not know slices.
    async fn learn_hop(&mut self, node: Ipv6Addr) {
        let way = self.kernel.netlink().way_to(IpAddr::V6(node)).await;
        let hop = match way {
            Ok(Some((_, None))) => Hop::Direct(node),
            Ok(Some((_, Some(_))) | None) | Err(_) => Hop::Through(node),
        };
        self.hops.insert(node, hop);
    }

    /// Something has changed in the kernel. Our own changes are told as well, and are as we believe.
    fn notice(&mut self, event: Event) {
        let ours = match event {
            Event::Added(changed) => {
                concerns(&self.node, changed.table, changed.destination).is_some_and(|key| !self.kernel.has(&key))
            }
            Event::Removed(changed) => {
                concerns(&self.node, changed.table, changed.destination).is_some_and(|key| self.kernel.has(&key))
            }
            Event::Rule | Event::Link | Event::Lost => true,
        };
        if ours {
            self.look_at = self.look_at.min(Instant::now() + GATHER);
        }
    }

    fn next_moment(&self) -> Instant {
        let others = [
            self.inherited_until,
            self.try_again,
            self.pods.next_to_forget(self.linger),
            self.atlas.next_to_forget(self.linger),
        ];
        others.into_iter().flatten().fold(self.look_at, Instant::min)
    }

    /// A moment has come at which something is to be done.
    async fn wake(&mut self) {
        let now = Instant::now();
        if self.inherited_until.is_some_and(|until| until <= now) {
            self.inherited_until = None;
            self.inherited = Inherited::default();
            self.pods.forget_remembered();
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.look().await;
        }
        self.try_again = self.try_again.filter(|at| *at > now);
        if let Some(before) = now.checked_sub(self.linger) {
            let links = self.kernel.netlink().links().await.unwrap_or_default();
            let there = |device: &str| links.is_empty() || links.iter().any(|link| link.name == device);
            let forgotten = self.pods.forget(before, there);
            if forgotten > 0 {
                tracing::warn!(pods = forgotten, "sidecars are gone without a word, and so are their pods' routes");
            }
            self.atlas.forget(before);
        }
        self.settle().await;
    }

    async fn look(&mut self) {
        match self.kernel.look(&self.node).await {
            Ok(0) => {}
            Ok(differences) => {
                self.metrics.repairs.add(differences as u64);
                tracing::warn!(differences, "something else has changed the agent's routes or rules: put right");
            }
            Err(error) => tracing::warn!("cannot look at the kernel: {error}"),
        }
    }

    /// Brings the kernel to what is wanted, and tells everybody.
    async fn settle(&mut self) {
        let unreachable = self.unreachable().await;
        let mesh = self.atlas.slices(&self.hops);
        let claimants = self.pods.claimants();
        let world = World {
            pods: &claimants,
            remembered: self.pods.remembered(),
            unreachable: &unreachable,
            mesh: &mesh,
            inherited: &self.inherited,
        };
        let (wanted, waiting) = wanted::wanted(&self.node, &world);
        let applied = match self.kernel.apply(&wanted).await {
            Ok(applied) => applied,
            Err(error) => {
                tracing::warn!("the kernel is not as it should be, tried again soon: {error}");
                self.try_again = Some(Instant::now() + TRY_AGAIN);
                // Somebody else may have been at it: what is believed to be there may not be.
                self.look_at = Instant::now() + GATHER;
                return;
            }
        };
        if !waiting.is_empty() || !applied.refused.is_empty() {
            self.try_again = Some(Instant::now() + TRY_AGAIN);
        }
        self.measure(&applied);
        self.announce(&wanted);
        self.report(&waiting, &applied);
        self.shown.send_replace(self.picture());
    }

    /// The nodes that slices arrive from and that nothing can be carried to.
    async fn unreachable(&mut self) -> BTreeSet<Ipv6Addr> {
        let claimants = self.pods.claimants();
        let arriving = claimants.iter().flat_map(|(_, _, claim)| &claim.spaces).flat_map(|space| &space.arriving);
        let nodes: BTreeSet<_> =
            arriving.map(|arriving| arriving.from.node).filter(|node| *node != self.node.address).collect();
        let mut unreachable = BTreeSet::new();
        for node in nodes {
            let way = self.kernel.netlink().way_to(IpAddr::V6(node)).await;
            if self.kernel.tunnel_fault().is_some() || !way.is_ok_and(|way| way.is_some()) {
                unreachable.insert(node);
            }
        }
        unreachable
    }

    fn measure(&mut self, applied: &Applied) {
        self.metrics.changes.add(applied.changes as u64);
        self.metrics.pods.set(self.pods.claimants().len() as i64);
        self.metrics.slices.set(self.kernel.slices() as i64);
        self.metrics.strays.set(self.kernel.strays() as i64);
        self.metrics.carries.set(i64::from(self.kernel.tunnel_fault().is_none()));
        self.metrics.mesh_nodes.set(self.atlas.nodes() as i64);
        if let Some(claimed) = self.claimed_at.take() {
            self.metrics.change_seconds.observe(claimed.elapsed().as_secs_f64());
        }
    }

    /// Tells the other agents which slices are at pods of this node.
    fn announce(&self, wanted: &Wanted) {
        let pods: BTreeSet<IpAddr> = self.pods.iter().map(|pod| IpAddr::V6(pod.address)).collect();
        let slices = wanted.routes.iter().filter(|((table, _), _)| *table == SLICES);
        let here = slices.filter(|(_, route)| match &route.action {
            Action::Unicast { via: Some(via), device: Some(_) } => pods.contains(via),
            Action::Unicast { .. }
            | Action::Local { .. }
            | Action::Tunnel { .. }
            | Action::Throw
            | Action::Unreachable => false,
        });
        let here: BTreeSet<Ipv6Net> = here.map(|((_, prefix), _)| *prefix).collect();
        self.announced.send_if_modified(|announced| {
            let changed = *announced != here;
            *announced = here;
            changed
        });
    }

    /// Tells sidecars what has become of their claims, where that is news.
    fn report(&mut self, waiting: &BTreeMap<PodId, Ipv6Addr>, applied: &Applied) {
        let claimants: Vec<_> = self
            .pods
            .claimants()
            .into_iter()
            .map(|(id, pod, claim)| (id, claim.number, self.state(pod, waiting.get(&id), applied)))
            .collect();
        for (id, number, state) in claimants {
            let Some(pod) = self.pods.get_mut(id) else { continue };
            let now = (number, state);
            if pod.told.as_ref() == Some(&now) {
                continue;
            }
            if let State::Waiting { reason, text } = &now.1 {
                tracing::warn!(pod = %pod.address, reason, "a claim has to wait: {text}");
            }
            let report = Report { number, state: now.1.clone() };
            pod.told = Some(now);
            if let Some(reports) = self.reports.get(&id) {
                // A sidecar that has just gone will claim again.
                let _ = reports.send(report);
            }
        }
    }

    fn state(&self, pod: &Pod, waits_for: Option<&Ipv6Addr>, applied: &Applied) -> State {
        let waiting = |reason: &'static str, text: String| {
            self.metrics.waits.with(&Reason(reason)).increment();
            State::Waiting { reason: reason.to_owned(), text }
        };
        if let Some(node) = waits_for {
            return match self.kernel.tunnel_fault() {
                Some(fault) => {
                    waiting("tunnel-unavailable", format!("strays cannot be carried to other nodes: {fault}"))
                }
                None => waiting("node-unreachable", format!("there is no way to {node}, where slices come from")),
            };
        }
        let refused = applied.refused.iter().find(|(_, error)| error.to_string().contains(&pod.address.to_string()));
        match refused {
            Some((_, error)) => waiting("route-refused", error.to_string()),
            None => State::InPlace,
        }
    }

    /// Everything, for people.
    fn picture(&self) -> serde_json::Value {
        let pods = self.pods.iter().map(|pod| {
            serde_json::json!({
                "address": pod.address, "device": pod.device, "number": pod.number,
                "claim": pod.claim, "gone": pod.gone.is_some(), "told": pod.told.as_ref().map(|(_, state)| state),
            })
        });
        serde_json::json!({
            "node": self.node.address,
            "carrying": self.kernel.tunnel_fault().map_or("ready", |fault| fault),
            "pods": pods.collect::<Vec<_>>(),
            "inherited": self.inherited.routes.len(),
            "mesh": mesh::picture(&self.atlas),
        })
    }
}
