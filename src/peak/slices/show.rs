//! Leases and slices for people: JSON of everything.

use serde_json::{Value, json};

use super::super::store::Store;
use super::Load;
use crate::model::Name;
use crate::model::registry::lease::{Lease, Leases, Service};
use crate::model::ssa::plan::PodId;
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

/// All services with slices, or one. Which slices are hot is known where the leader is, and nowhere else.
pub(in crate::peak) fn shown(leases: &Leases, load: &Load, only: Option<&Name>) -> Value {
    let services = leases.services().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let services = services.map(|(name, service)| of_service(leases, load, name, service));
    json!({ "services": services.collect::<Vec<_>>() })
}

fn of_service(leases: &Leases, load: &Load, name: &Name, service: &Service) -> Value {
    let holdings = service.ownership().holdings();
    let pods = leases.leases().filter(|(_, lease)| lease.services.contains(name)).map(|(pod, lease)| {
        let holding = holdings.get(&pod).copied().unwrap_or_default();
        of_pod(pod, lease, holding.slices, holding.prefixes)
    });
    let pods: Vec<Value> = pods.collect();
    let hot = load.hot(name, pods.len());
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
        "pods": pods,
        "owners": runs.collect::<Vec<_>>(),
        "handovers": handovers.collect::<Vec<_>>(),
        "pins": pins.collect::<Vec<_>>(),
        "hot": hot,
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
