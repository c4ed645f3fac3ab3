//! Leases and slices for people: JSON of everything, and what operators may ask for.

use serde_json::{Value, json};

use super::super::store::Store;
use crate::model::Name;
use crate::model::UnixSeconds;
use crate::model::registry::lease::{Command, Lease, Leases, Planned, Service};
use crate::model::ssa::plan::{Block, PodId, Why};
use crate::ops::metrics::Registry;

/// Registers the gauges that are read from the registry at each scrape.
pub(super) fn register(registry: &Registry, store: &Store) {
    use crate::ops::metrics::Kind;
    let of = |look: fn(&Leases) -> usize| {
        let store = store.clone();
        move |samples: &mut crate::ops::metrics::Samples| {
            let leases = store.read(|registry| registry.leases().clone());
            samples.put(&[], look(&leases) as f64);
        }
    };
    registry.sampled(
        "funicular_leases",
        "Leases that are held.",
        Kind::Gauge,
        &[],
        of(|leases| leases.leases().count()),
    );
    registry.sampled(
        "funicular_handovers",
        "Handovers of slices that are under way.",
        Kind::Gauge,
        &[],
        of(|leases| leases.services().map(|(_, service)| service.handovers().count()).sum()),
    );
    registry.sampled(
        "funicular_handovers_waiting",
        "Handovers of slices that do not go on, because strays cannot be carried.",
        Kind::Gauge,
        &[],
        of(|leases| {
            let all = leases.services().flat_map(|(_, service)| service.handovers());
            all.filter(|(_, handover)| handover.waits.is_some()).count()
        }),
    );
}

/// All services with slices, or one.
pub(in crate::peak) fn shown(leases: &Leases, only: Option<&Name>) -> Value {
    let services = leases.services().filter(|(name, _)| only.is_none_or(|only| only == *name));
    json!({ "services": services.map(|(name, service)| of_service(leases, name, service)).collect::<Vec<_>>() })
}

fn of_service(leases: &Leases, name: &Name, service: &Service) -> Value {
    let holdings = service.ownership().holdings();
    let pods = leases.leases().filter(|(_, lease)| lease.services.contains(name)).map(|(pod, lease)| {
        let holding = holdings.get(&pod).copied().unwrap_or_default();
        of_pod(pod, lease, holding.slices, holding.prefixes)
    });
    let handovers = service.handovers().map(|(id, handover)| {
        json!({
            "id": id.0,
            "from": handover.from.map(|pod| pod.0),
            "to": handover.to.0,
            "why": handover.why.reason(),
            "step": handover.step.word(),
            "since": handover.since.0,
            "waits": handover.waits,
            "blocks": handover.blocks.iter().map(|block| json!([block.first, block.slices()])).collect::<Vec<_>>(),
        })
    });
    let runs = service
        .ownership()
        .runs()
        .map(|(range, owner)| json!([range.start, range.end - range.start, owner.map(|pod| pod.0)]));
    let pins = service
        .pins()
        .iter()
        .map(|pin| json!({ "first": pin.block.first, "slices": pin.block.slices(), "pod": pin.pod.0 }));
    json!({
        "service": name.to_string(),
        "prefixes": service.prefixes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "slice_bits": service.slice_bits(),
        "slices": service.ownership().slices(),
        "pods": pods.collect::<Vec<_>>(),
        "owners": runs.collect::<Vec<_>>(),
        "handovers": handovers.collect::<Vec<_>>(),
        "pins": pins.collect::<Vec<_>>(),
    })
}

fn of_pod(pod: PodId, lease: &Lease, slices: u32, prefixes: u32) -> Value {
    json!({
        "pod": pod.0,
        "name": lease.instance,
        "workload": lease.workload,
        "address": lease.address.to_string(),
        "node": lease.node.map(|node| node.to_string()),
        "weight": lease.weight,
        "draining": lease.draining,
        "slices": slices,
        "prefixes": prefixes,
    })
}

/// What an operator may ask for.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub(in crate::peak) enum Ask {
    /// Slices go to a pod and stay there.
    Move { service: String, prefix: ipnet::Ipv6Net, pod: String },
    /// A pod is to have no slices, or its share again.
    Drain {
        pod: String,
        #[serde(default)]
        undo: bool,
    },
    /// Slices stay with a pod while it serves; without a pod, no longer.
    Pin { service: String, prefix: ipnet::Ipv6Net, pod: Option<String> },
    /// Slices are shared out again now.
    Rebalance { service: String },
}

/// What cannot be done as it was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::peak) enum CannotAsk {
    /// No such service.
    #[error("{0} has no slices here")]
    Service(String),
    /// No such pod.
    #[error("no pod {0} holds a lease; `funicular slices` lists them")]
    Pod(String),
    /// More than one.
    #[error("several pods are called {0}: give its number")]
    Ambiguous(String),
    /// Not one or more slices.
    #[error("{0} is no slice of the service, nor several that make one prefix")]
    Prefix(ipnet::Ipv6Net),
}

impl CannotAsk {
    /// A stable word.
    pub(in crate::peak) fn reason(&self) -> &'static str {
        match self {
            Self::Service(_) => "slices-no-service",
            Self::Pod(_) => "slices-no-pod",
            Self::Ambiguous(_) => "slices-pod-ambiguous",
            Self::Prefix(_) => "slices-no-block",
        }
    }
}

/// The commands that do what is asked for, and what they will move.
pub(in crate::peak) fn asked(leases: &Leases, ask: &Ask, at: UnixSeconds) -> Result<Vec<Command>, CannotAsk> {
    match ask {
        Ask::Move { service, prefix, pod } => {
            let (name, found) = service_of(leases, service)?;
            let block = found.block_of(*prefix).ok_or(CannotAsk::Prefix(*prefix))?;
            let to = pod_of(leases, pod)?;
            let begin = Command::Begin { service: name.clone(), moves: moves(found, block, to), at };
            // Or the next plan would share them out again.
            Ok(vec![Command::Pin { service: name, block, pod: Some(to) }, begin])
        }
        Ask::Drain { pod, undo } => Ok(vec![Command::Drain { pod: pod_of(leases, pod)?, draining: !undo }]),
        Ask::Pin { service, prefix, pod } => {
            let (service, found) = service_of(leases, service)?;
            let block = found.block_of(*prefix).ok_or(CannotAsk::Prefix(*prefix))?;
            let pod = pod.as_deref().map(|pod| pod_of(leases, pod)).transpose()?;
            Ok(vec![Command::Pin { service, block, pod }])
        }
        // The plan is made whenever somebody asks for anything.
        Ask::Rebalance { service } => service_of(leases, service).map(|_| Vec::new()),
    }
}

fn moves(service: &Service, block: Block, to: PodId) -> Vec<Planned> {
    let blocks = service.ownership().blocks_in(block.range());
    let mut moves: Vec<Planned> = Vec::new();
    for (block, from) in blocks.filter(|&(_, from)| from != Some(to)) {
        match moves.iter_mut().find(|planned| planned.from == from) {
            Some(planned) => planned.blocks.push(block),
            None => moves.push(Planned { blocks: vec![block], from, to, why: Why::Balance }),
        }
    }
    moves
}

fn service_of<'l>(leases: &'l Leases, text: &str) -> Result<(Name, &'l Service), CannotAsk> {
    let name = text.parse::<Name>().ok();
    let found = name.and_then(|name| leases.service(&name).map(|service| (name, service)));
    found.ok_or_else(|| CannotAsk::Service(text.to_owned()))
}

/// A pod by its number, or by a name that one alone has.
fn pod_of(leases: &Leases, text: &str) -> Result<PodId, CannotAsk> {
    let numbered = text.parse().ok().map(PodId).filter(|&pod| leases.lease(pod).is_some());
    if let Some(pod) = numbered {
        return Ok(pod);
    }
    let mut named = leases.leases().filter(|(_, lease)| *lease.instance == *text).map(|(pod, _)| pod);
    match (named.next(), named.next()) {
        (Some(pod), None) => Ok(pod),
        (Some(_), Some(_)) => Err(CannotAsk::Ambiguous(text.to_owned())),
        (None, _) => Err(CannotAsk::Pod(text.to_owned())),
    }
}
