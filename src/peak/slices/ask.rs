//! What operators ask of leases and slices, through Peak's API at any node.
//!
//! Whatever is asked for becomes commands to the registry. The leader's loop sees that it has changed, and plans for what
//! follows from it; a dry run plans the same here, and leaves it at that.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Load, show};
use crate::model::registry::lease::{Command, Leases, Planned, Service, decide};
use crate::model::registry::{Command as Change, Op};
use crate::model::ssa::plan::{Block, Budget, PodId, Why};
use crate::model::{Name, UnixSeconds};
use crate::ops::clock;
use crate::peak::api::{Answered, Call, Need, Refusal, Reply, Routes};
use crate::peak::store::Store;
use crate::wire::api::SlicesAsk;

/// The paths of slices.
pub(in crate::peak) fn routes(store: &Store, load: &Load) -> Routes {
    let (shown, changed, load) = (store.clone(), store.clone(), load.clone());
    Routes::default().on("GET", "/v1/slices", Need::Read, move |call| show_all(shown.clone(), load.clone(), call)).on(
        "POST",
        "/v1/slices",
        Need::Admin,
        move |call| change(changed.clone(), call),
    )
}

async fn show_all(store: Store, load: Load, call: Call) -> Answered {
    let only = match call.query.get("service").map(|text| text.parse::<Name>()) {
        None => None,
        Some(Ok(name)) => Some(name),
        Some(Err(_)) => return Err(Refusal::Query { name: "service", expected: "a name" }),
    };
    if call.switch("strict")? {
        store.read_index().await?;
    }
    let leases = store.read(|registry| registry.leases().clone());
    Ok(Reply::json(&show::shown(&leases, &load, only.as_ref())))
}

async fn change(store: Store, call: Call) -> Answered {
    let ask: SlicesAsk = serde_json::from_slice(&call.body).map_err(Refusal::Json)?;
    let dry_run = call.switch("dry_run")?;
    let leases = store.read(|registry| registry.leases().clone());
    let commands = asked(&leases, &ask, clock::now())?;
    let moves = follows(&leases, &commands);
    if !dry_run {
        store.propose(Change { request: None, op: Op::Leases(commands) }).await??;
    }
    Ok(Reply::json(&json!({ "moves": moves, "dry_run": dry_run })))
}

/// What moves by the commands, and by the plan that follows them.
fn follows(leases: &Leases, commands: &[Command]) -> Vec<Value> {
    let mut after = leases.clone();
    let mut moves = Vec::new();
    for command in commands {
        after.apply(command);
        if let Command::Begin { service, moves: begun, .. } = command {
            moves.extend(begun.iter().map(|planned| of_move(service, planned)));
        }
    }
    for (name, _) in after.services() {
        let planned = decide(&after, name, &BTreeMap::new(), &Budget::DUE).moves;
        moves.extend(planned.iter().map(|planned| of_move(name, planned)));
    }
    moves
}

fn of_move(service: &Name, planned: &Planned) -> Value {
    json!({
        "service": service.to_string(),
        "from": planned.from.map(|pod| pod.0),
        "to": planned.to.0,
        "why": planned.why.reason(),
        "slices": planned.blocks.iter().map(|block| block.slices()).sum::<u32>(),
        "blocks": planned.blocks.iter().map(|block| json!([block.first, block.slices()])).collect::<Vec<_>>(),
    })
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
fn asked(leases: &Leases, ask: &SlicesAsk, at: UnixSeconds) -> Result<Vec<Command>, CannotAsk> {
    match ask {
        SlicesAsk::Move { service, prefix, pod } => {
            let (name, found) = service_of(leases, service)?;
            let block = found.block_of(*prefix).ok_or(CannotAsk::Prefix(*prefix))?;
            let to = pod_of(leases, pod)?;
            let begin = Command::Begin { service: name.clone(), moves: moves(found, block, to), at };
            // Or the next plan would share them out again.
            Ok(vec![Command::Pin { service: name, block, pod: Some(to) }, begin])
        }
        SlicesAsk::Drain { pod, undo } => Ok(vec![Command::Drain { pod: pod_of(leases, pod)?, draining: !undo }]),
        SlicesAsk::Pin { service, prefix, pod } => {
            let (service, found) = service_of(leases, service)?;
            let block = found.block_of(*prefix).ok_or(CannotAsk::Prefix(*prefix))?;
            let pod = pod.as_deref().map(|pod| pod_of(leases, pod)).transpose()?;
            Ok(vec![Command::Pin { service, block, pod }])
        }
        SlicesAsk::Rebalance { service } => {
            let (service, _) = service_of(leases, service)?;
            let everything = Budget { defragment: u32::MAX, ..Budget::DUE };
            let moves = decide(leases, &service, &BTreeMap::new(), &everything).moves;
            Ok(vec![Command::Begin { service, moves, at }])
        }
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
