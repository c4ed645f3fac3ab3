//! What the kernel is to hold, given what pods claim and what other agents route. Pure.
//!
//! ```text
//! rule 15067: mark + n          ──▶ table mark + n:  everything to pod n       connections that pod n keeps
//! rule 15068: mark              ──▶ table 15069:     slice to its last owner   of no connection that began here
//! rule 15069: mark, by tunnel   ──▶ table 15071:     slice to whom it has left another node says it is this one's
//! rule 15070:                   ──▶ table 15070:     slice to its owner        everything else
//! rule 15071: no mark           ──▶ table 15071:     slice to whom it has left routers do not know yet
//! ```
//!
//! What comes straight, of a connection that this node has not seen begin, to a slice that has left, is not for the pod
//! that it has left: that would reset it. It goes the way of everything else, and comes again if that is not right yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::place::{Hop, Node};
use super::pods::{Pod, PodId};
use super::strays::{self, Left};
use super::{LEFT, PROTOCOL, SLICES, STRAYS};
use crate::net::nft::Table;
use crate::net::routes::{Action, Family, Route, Rule};
use crate::wire::agent::{Arriving, Claim};

/// Where a route stands: no two of ours have the same table and destination.
pub(super) type RouteKey = (u32, Ipv6Net);

/// Everything that the agent has in the kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) routes: BTreeMap<RouteKey, Route>,
    pub(super) rules: Vec<Rule>,
    /// Nothing before the agent has looked at the kernel for the first time.
    pub(super) table: Option<Table>,
}

/// What is known of the world.
pub(super) struct World<'w> {
    /// Those that have claimed something, later ones last.
    pub(super) pods: &'w [(PodId, &'w Pod, &'w Claim)],
    /// Pods that an earlier agent knew.
    pub(super) remembered: &'w BTreeMap<Ipv6Addr, u16>,
    /// Nodes to which nothing can be carried.
    pub(super) unreachable: &'w BTreeSet<Ipv6Addr>,
    /// What other agents route.
    pub(super) mesh: &'w BTreeMap<Ipv6Net, Hop>,
    /// What an earlier agent has left: it stays until those whom it concerns have had time to come back.
    pub(super) inherited: &'w Inherited,
}

/// What an earlier agent has left in the kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    pub(super) routes: BTreeMap<RouteKey, Route>,
    pub(super) rules: Vec<Rule>,
}

/// What a world wants, and which pods' slices have to wait for it: those arriving from nodes that cannot be reached.
pub(super) fn wanted(node: &Node, world: &World<'_>) -> (Wanted, BTreeMap<PodId, Ipv6Addr>) {
    let mut routes = Routes { node, all: BTreeMap::new() };
    let mut elders = BTreeSet::new();
    let mut waiting = BTreeMap::new();
    let claimant = |route: &Route| match &route.action {
        Action::Unicast { via: Some(via), .. } => world.pods.iter().any(|(_, pod, _)| *via == pod.address),
        Action::Unicast { via: None, .. }
        | Action::Local { .. }
        | Action::Tunnel { .. }
        | Action::Throw
        | Action::Unreachable => false,
    };
    // A pod that has claimed something has said everything.
    let inherited = world.inherited.routes.iter().filter(|(_, route)| !claimant(route));
    routes.all.extend(inherited.map(|(key, route)| (*key, route.clone())));
    for (prefix, hop) in world.mesh {
        routes.put(SLICES, *prefix, routes.towards(*hop));
    }
    for (_, pod, claim) in world.pods {
        let leaving: Vec<_> = claim.spaces.iter().flat_map(|space| &space.leaving).collect();
        if !leaving.is_empty() {
            elders.insert(pod.number);
        }
        leaving.into_iter().for_each(|prefix| routes.put(LEFT, *prefix, to(pod)));
    }
    for (id, pod, claim) in world.pods {
        routes.put(node.mark_of(pod.number), Ipv6Net::default(), to(pod));
        for prefix in claim.spaces.iter().flat_map(|space| &space.owned) {
            if !world.is_taken_over(pod, u64::MIN, *prefix, node.address) {
                routes.put(SLICES, *prefix, to(pod));
            }
        }
        for Arriving { prefixes, from } in claim.spaces.iter().flat_map(|space| &space.arriving) {
            if world.unreachable.contains(&from.node) {
                waiting.insert(*id, from.node);
                continue;
            }
            let here = from.node == node.address;
            let elder = world.pods.iter().map(|(_, pod, _)| *pod).find(|elder| here && elder.address == from.pod);
            elders.extend(elder.map(|elder| elder.number));
            for prefix in prefixes {
                match (here, elder) {
                    (false, _) => routes.put(STRAYS, *prefix, routes.towards(Hop::Through(from.node))),
                    (true, Some(elder)) => routes.put(STRAYS, *prefix, to(elder)),
                    // Whoever had them has gone, and its connections with it.
                    (true, None) => {}
                }
                if !world.is_taken_over(pod, pod.heard, *prefix, node.address) {
                    routes.put(SLICES, *prefix, to(pod));
                }
            }
        }
    }
    let mut pods: Vec<(Ipv6Addr, u16)> = world.pods.iter().map(|(_, pod, _)| (pod.address, pod.number)).collect();
    pods.extend(world.remembered.iter().map(|(address, number)| (*address, *number)));
    let moving = routes.all.keys().filter(|(table, _)| [STRAYS, LEFT].contains(table));
    let strays = moving.map(|(_, prefix)| *prefix).collect();
    let table = strays::table(node, &pods, strays, &left(world.pods));
    let wanted = Wanted { routes: routes.all, rules: rules(node, &elders, world), table: Some(table) };
    (wanted, waiting)
}

/// What has left each pod, where a device leads to it alone.
fn left(pods: &[(PodId, &Pod, &Claim)]) -> Vec<Left> {
    let alone = |device: &str| pods.iter().filter(|(_, pod, _)| pod.device == device).count() == 1;
    let of = |(_, pod, claim): &(PodId, &Pod, &Claim)| {
        let prefixes = claim.spaces.iter().flat_map(|space| space.leaving.iter().copied()).collect();
        Left { number: pod.number, device: pod.device.clone(), prefixes }
    };
    pods.iter().map(of).filter(|left| !left.prefixes.is_empty() && alone(&left.device)).collect()
}

impl World<'_> {
    /// Whether another pod of this node has taken `prefix` over from `pod`, with a claim later than `heard`.
    ///
    /// For a moment both claim it: the new owner first, then the old one says that it has left.
    fn is_taken_over(&self, pod: &Pod, heard: u64, prefix: Ipv6Net, here: Ipv6Addr) -> bool {
        let later = self.pods.iter().filter(|(_, other, _)| other.address != pod.address && other.heard > heard);
        let mut arrivals = later.flat_map(|(_, _, claim)| claim.spaces.iter().flat_map(|space| &space.arriving));
        arrivals.any(|Arriving { prefixes, from }| {
            from.node == here && from.pod == pod.address && prefixes.iter().any(|taken| taken.contains(&prefix))
        })
    }
}

/// Rules for the marks of pods that keep connections, for strays, and for everything.
fn rules(node: &Node, elders: &BTreeSet<u16>, world: &World<'_>) -> Vec<Rule> {
    let rule = |priority, input: Option<&str>, mark, table| Rule {
        family: Family::V6,
        priority,
        input: input.map(str::to_owned),
        to: None,
        mark,
        table,
        protocol: PROTOCOL,
    };
    let strays = [
        rule(SLICES - 2, None, Some(node.mark), STRAYS),
        rule(SLICES - 1, Some(&node.tunnel), Some(node.mark), LEFT),
        rule(SLICES, None, None, SLICES),
        rule(SLICES + 1, None, Some(0), LEFT),
    ];
    let pods = elders.iter().map(|number| node.mark_of(*number)).map(|mark| rule(SLICES - 3, None, Some(mark), mark));
    let mut rules: Vec<_> = strays.into_iter().chain(pods).collect();
    let claimant = |table| world.pods.iter().any(|(_, pod, _)| node.mark_of(pod.number) == table);
    let inherited = world.inherited.rules.iter().filter(|rule| !claimant(rule.table) && !rules.contains(rule));
    let inherited: Vec<_> = inherited.cloned().collect();
    rules.extend(inherited);
    rules
}

struct Routes<'n> {
    node: &'n Node,
    all: BTreeMap<RouteKey, Route>,
}

impl Routes<'_> {
    fn put(&mut self, table: u32, prefix: Ipv6Net, action: Action) {
        let prefix = prefix.trunc();
        let route = Route { destination: IpNet::V6(prefix), action, source: None, table, protocol: PROTOCOL };
        self.all.insert((table, prefix), route);
    }

    fn towards(&self, hop: Hop) -> Action {
        match hop {
            Hop::Direct(node) => Action::Unicast { via: Some(node.into()), device: None },
            Hop::Through(remote) => Action::Tunnel { device: self.node.tunnel.clone(), remote },
        }
    }
}

fn to(pod: &Pod) -> Action {
    Action::Unicast { via: Some(pod.address.into()), device: Some(pod.device.clone()) }
}

#[cfg(test)]
mod tests;
