//! The routes and rules of a pod: the service's whole prefix is its own for what comes in, and stand-ins can be dialled.
//!
//! - AnyIP (DESIGN.md §3, Network): `iif <device> lookup 15006`, where every service prefix is local. Only what comes in
//!   looks there, so the pod's own calls to its service leave it.
//! - Stand-ins: `iif lo to <prefix> lookup 15001`; `iif lo` means "sent by this host". The kernel looks for a route before
//!   the output hook turns a connection, so there must be one, default route or not. IPv6 takes a local one, with the
//!   pod's own source address. A local one on IPv4 would make the stand-in itself the source, which connect(2) refuses,
//!   so there the prefix is on the link of `lo`: the source is the pod's address, or 127.0.0.1 where it has none, which
//!   must be said.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::plan::Plan;
use super::{PROTOCOL, SERVICE_TABLE, STAND_IN_TABLE};
use crate::net::routes::{Action, Family, LOOPBACK, Route, Rule};

/// What init finds in the pod, and has to work with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pod {
    /// Whether the loopback device may carry IPv6.
    pub(super) ipv6: bool,
    /// Whether a device other than loopback has an IPv4 address.
    pub(super) ipv4_address: bool,
}

/// Routes and rules, everything under our protocol number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Routing {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
}

/// All addresses of the one kind that is no prefix to route: "everybody on this link".
const BROADCAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32);

/// What makes `plan` so in `pod`.
pub(super) fn routing(plan: &Plan, pod: Pod) -> Routing {
    let mut routing = Routing::default();
    stand_ins(plan, pod, &mut routing);
    if pod.ipv6 && !plan.service_prefixes.is_empty() {
        services(plan, &mut routing);
    }
    routing
}

fn stand_ins(plan: &Plan, pod: Pod, routing: &mut Routing) {
    let route = |destination: IpNet, action, source| Route {
        destination,
        action,
        source,
        table: STAND_IN_TABLE,
        protocol: PROTOCOL,
    };
    let on_link = Action::Unicast { via: None, device: Some(LOOPBACK.to_owned()) };
    let source = (!pod.ipv4_address).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    routing.routes.push(route(plan.stand_in4.into(), on_link, source));
    if plan.stand_in4.contains(&BROADCAST) {
        routing.routes.push(route(BROADCAST.into(), Action::Throw, None));
    }
    routing.rules.push(rule(Family::V4, STAND_IN_TABLE, LOOPBACK, Some(plan.stand_in4.into())));
    if pod.ipv6 {
        let local = Action::Local { device: LOOPBACK.to_owned() };
        routing.routes.push(route(plan.stand_in6.into(), local, None));
        routing.rules.push(rule(Family::V6, STAND_IN_TABLE, LOOPBACK, Some(plan.stand_in6.into())));
    }
}

fn services(plan: &Plan, routing: &mut Routing) {
    routing.routes.extend(plan.service_prefixes.iter().map(|prefix| Route {
        destination: (*prefix).into(),
        action: Action::Local { device: LOOPBACK.to_owned() },
        source: None,
        table: SERVICE_TABLE,
        protocol: PROTOCOL,
    }));
    routing.rules.push(rule(Family::V6, SERVICE_TABLE, &plan.device, None));
}

/// Rules are asked in the order of their tables' numbers, before the main table.
fn rule(family: Family, table: u32, input: &str, to: Option<IpNet>) -> Rule {
    Rule { family, priority: table, input: Some(input.to_owned()), to, mark: None, table, protocol: PROTOCOL }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    const DUAL: Pod = Pod { ipv6: true, ipv4_address: true };

    fn texts(flags: &str, pod: Pod) -> (Vec<String>, Vec<String>) {
        let Routing { routes, rules } = routing(&plan(flags), pod);
        (routes.iter().map(ToString::to_string).collect(), rules.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_s_prefix_is_local_for_what_comes_in_alone() {
        let (routes, rules) = texts("--uid 1 --service-prefix 2001:db8:5::/64 --device net1", DUAL);
        assert!(routes.contains(&"local 2001:db8:5::/64 dev lo table 15006 proto 70".to_owned()), "{routes:?}");
        assert!(rules.contains(&"pref 15006 iif net1 lookup 15006 proto 70".to_owned()), "{rules:?}");
    }

    #[test]
    fn a_pod_without_an_ipv4_address_dials_stand_ins_from_loopback() {
        let (routes, _) = texts("--uid 1", Pod { ipv4_address: false, ..DUAL });
        assert_eq!(routes[0], "240.0.0.0/4 dev lo src 127.0.0.1 table 15001 proto 70");
        assert_eq!(texts("--uid 1", DUAL).0[0], "240.0.0.0/4 dev lo table 15001 proto 70");
    }

    #[test]
    fn broadcast_stays_what_it_is_when_the_stand_ins_surround_it() {
        let throw = "throw 255.255.255.255/32 table 15001 proto 70".to_owned();
        assert!(texts("--uid 1", DUAL).0.contains(&throw));
        assert!(!texts("--uid 1 --stand-in4 240.0.0.0/8", DUAL).0.contains(&throw));
    }

    #[test]
    fn without_ipv6_nothing_of_ipv6_is_made() {
        let routing = routing(&plan("--uid 1 --service-prefix 2001:db8:5::/64"), Pod { ipv6: false, ..DUAL });
        assert!(routing.routes.iter().all(|route| route.family() == Family::V4));
        assert!(routing.rules.iter().all(|rule| rule.family == Family::V4));
    }
}
