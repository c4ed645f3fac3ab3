//! What the kernel is to hold, given what pods claim and what other agents route. Pure.
//!
//! ```text
//! rule 15069: mark = mark + n  ──▶ table mark + n:  everything to pod n      connections that pod n keeps
//! rule 15069: mark             ──▶ table 15069:     slice to its last owner  connections seen to begin elsewhere
//! rule 15070:                  ──▶ table 15070:     slice to its owner       everything else
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::pods::{Pod, PodId};
use super::{PROTOCOL, SLICES, STRAYS};
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

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) address: Ipv6Addr,
    pub(super) spaces: Vec<Ipv6Net>,
    /// Where other nodes' addresses lie.
    pub(super) nodes: Vec<Ipv6Net>,
    pub(super) tunnel: String,
    pub(super) tunnel_port: u16,
    /// The mark of strays; those of pods come after it, and are also the numbers of their tables.
    pub(super) mark: u32,
}

impl Node {
    pub(super) fn mark_of(&self, number: u16) -> u32 {
        self.mark | u32::from(number)
    }

    /// The number of the pod whose table this is.
    pub(super) fn number_of(&self, table: u32) -> Option<u16> {
        let number = (table ^ self.mark) & 0xffff;
        (table & !0xffff == self.mark && number != 0).then_some(number as u16)
    }
}

/// How another node is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hop {
    /// It is on a link of ours.
    Direct(Ipv6Addr),
    /// Whatever lies between does not know where slices are.
    Through(Ipv6Addr),
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
    // Strays of what has left go to the pod that keeps them; unless some came from yet another node, below.
    for (_, pod, claim) in world.pods {
        let leaving: Vec<_> = claim.spaces.iter().flat_map(|space| &space.leaving).collect();
        if !leaving.is_empty() {
            elders.insert(pod.number);
        }
        leaving.into_iter().for_each(|prefix| routes.put(STRAYS, *prefix, to(pod)));
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
    let strays = routes.all.keys().filter(|(table, _)| *table == STRAYS).map(|(_, prefix)| *prefix).collect();
    let table = super::strays::table(node, &pods, strays);
    let wanted = Wanted { routes: routes.all, rules: rules(node, &elders, world), table: Some(table) };
    (wanted, waiting)
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
    let rule = |priority, mark, table| Rule {
        family: Family::V6,
        priority,
        input: None,
        to: None,
        mark,
        table,
        protocol: PROTOCOL,
    };
    let strays = [rule(STRAYS, Some(node.mark), STRAYS), rule(SLICES, None, SLICES)];
    let pods = elders.iter().map(|number| node.mark_of(*number)).map(|mark| rule(STRAYS, Some(mark), mark));
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
