//! The packet rules of a pod: which connections are turned to the sidecar, and which are not.
//!
//! ```text
//! a program's packet ──▶ outbound (nat, output)    sidecar's own, skipped uids: pass
//!                                                  port 53: the stub · stand-ins: outbound port
//!                                                  loopback, skipped subnets and ports: pass · TCP: outbound port
//!                   ──▶ stand_ins (filter, output) whatever still goes to a stand-in is refused
//! from outside      ──▶ inbound (nat, prerouting)  skipped ports: pass · TCP: inbound port
//!                   ──▶ stub (filter, input)       the stub answers this pod alone
//! ```
//!
//! A refused datagram fails at once in the sender's own call (EPERM, then ECONNREFUSED), connected or not, so that
//! QUIC falls back to TCP without waiting.

use ipnet::IpNet;

use super::plan::Plan;
use super::{DNS, TABLE};
use crate::net::nft::{Chain, Elements, Hook, Kind, Match, Rule, Set, Table, Verdict};

/// Before the chains at -100, where others (a container engine's own DNS redirect) turn connections: the first turn
/// counts, and what we let pass still meets them.
const BEFORE_OTHERS: i32 = -110;
/// NF_IP_PRI_FILTER.
const FILTER: i32 = 0;

const SKIP_USERS: &str = "skip_uids";
const SKIP_SUBNETS4: &str = "skip_subnets4";
const SKIP_SUBNETS6: &str = "skip_subnets6";
const SKIP_OUTBOUND_PORTS: &str = "skip_outbound_ports";
const SKIP_INBOUND_PORTS: &str = "skip_inbound_ports";

/// The table that makes `plan` so.
pub(super) fn table(plan: &Plan) -> Table {
    let sets = sets(plan);
    let chains = vec![outbound(plan, &sets), stand_ins(plan), inbound(plan, &sets), stub(plan)];
    Table { name: TABLE.to_owned(), sets, chains }
}

/// Those with elements: nft keeps an empty one too, but whoever reads the rules need not.
fn sets(plan: &Plan) -> Vec<Set> {
    let four = plan.skip_subnets.iter().filter_map(|prefix| match prefix {
        IpNet::V4(prefix) => Some(*prefix),
        IpNet::V6(_) => None,
    });
    let six = plan.skip_subnets.iter().filter_map(|prefix| match prefix {
        IpNet::V4(_) => None,
        IpNet::V6(prefix) => Some(*prefix),
    });
    let metrics = std::iter::once(plan.ports.metrics..=plan.ports.metrics);
    let inbound = metrics.chain(plan.skip_inbound_ports.iter().cloned());
    let all = [
        (SKIP_USERS, Elements::Users(plan.skip_users.clone())),
        (SKIP_SUBNETS4, Elements::V4(four.collect())),
        (SKIP_SUBNETS6, Elements::V6(six.collect())),
        (SKIP_OUTBOUND_PORTS, Elements::Ports(plan.skip_outbound_ports.clone())),
        (SKIP_INBOUND_PORTS, Elements::Ports(inbound.collect())),
    ];
    let set = |(name, elements): (&str, Elements)| Set { name: name.to_owned(), elements };
    all.into_iter().filter(|(_, elements)| !elements.is_empty()).map(set).collect()
}

/// A rule that lets pass what is in the set called `name`, if there is one.
fn skip(sets: &[Set], name: &str, condition: fn(String) -> Match, comment: &'static str) -> Option<Rule> {
    let set = sets.iter().find(|set| set.name == name)?;
    Some(rule([condition(set.name.clone())], Verdict::Accept, comment))
}

fn outbound(plan: &Plan, sets: &[Set]) -> Chain {
    let (exempt, ports) = (plan.exempt, plan.ports);
    let own = [exempt.user.map(Match::User), exempt.group.map(Match::Group), exempt.mark.map(Match::Mark)];
    let own = own.into_iter().flatten();
    let mut rules: Vec<_> = own.map(|own| rule([own], Verdict::Accept, "the sidecar's own")).collect();
    rules.extend(skip(sets, SKIP_USERS, Match::UserIn, "left alone by --skip-uids"));
    // Before loopback is let pass: a resolver may be at 127.0.0.53, and the way to a stand-in leads over lo.
    rules.push(rule([Match::UdpPort(DNS)], Verdict::Redirect(ports.dns), "every resolver is the stub"));
    rules.push(rule([Match::TcpPort(DNS)], Verdict::Redirect(ports.dns), "every resolver is the stub"));
    rules.extend(
        both_stand_ins(plan).map(|to| {
            rule([Match::To(to), Match::Tcp], Verdict::Redirect(ports.outbound), "stand-ins have no other way")
        }),
    );
    rules.push(rule([Match::OutputLoopback], Verdict::Accept, "the pod's calls to itself"));
    rules.extend(skip(sets, SKIP_SUBNETS4, Match::ToV4In, "left alone by --skip-subnets"));
    rules.extend(skip(sets, SKIP_SUBNETS6, Match::ToV6In, "left alone by --skip-subnets"));
    rules.extend(skip(sets, SKIP_OUTBOUND_PORTS, Match::TcpPortIn, "left alone by --skip-outbound-ports"));
    rules.push(rule([Match::Tcp], Verdict::Redirect(ports.outbound), "every other call"));
    Chain { name: "outbound".to_owned(), kind: Kind::Nat, hook: Hook::Output, priority: BEFORE_OTHERS, rules }
}

fn stand_ins(plan: &Plan) -> Chain {
    let refuse = |to| {
        let own = rule([Match::To(to), Match::Tcp], Verdict::Reset, "nobody is at a stand-in but the sidecar");
        [own, rule([Match::To(to)], Verdict::Reject, "a stand-in takes TCP, nothing else")]
    };
    let rules = both_stand_ins(plan).flat_map(refuse).collect();
    Chain { name: "stand_ins".to_owned(), kind: Kind::Filter, hook: Hook::Output, priority: FILTER, rules }
}

fn inbound(plan: &Plan, sets: &[Set]) -> Chain {
    let mut rules = vec![rule([Match::InputLoopback], Verdict::Accept, "the pod's calls to itself")];
    let skipped = "metrics, and those left alone by --skip-inbound-ports";
    rules.extend(skip(sets, SKIP_INBOUND_PORTS, Match::TcpPortIn, skipped));
    rules.push(rule([Match::Tcp], Verdict::Redirect(plan.ports.inbound), "every call from outside"));
    Chain { name: "inbound".to_owned(), kind: Kind::Nat, hook: Hook::Prerouting, priority: BEFORE_OTHERS, rules }
}

fn stub(plan: &Plan) -> Chain {
    // Over TCP it is behind the inbound redirect already.
    let elsewhere = [Match::InputElsewhere, Match::UdpPort(plan.ports.dns)];
    let rules = vec![rule(elsewhere, Verdict::Drop, "the stub answers this pod alone")];
    Chain { name: "stub".to_owned(), kind: Kind::Filter, hook: Hook::Input, priority: FILTER, rules }
}

fn both_stand_ins(plan: &Plan) -> impl Iterator<Item = IpNet> {
    [IpNet::V4(plan.stand_in4), IpNet::V6(plan.stand_in6)].into_iter()
}

fn rule<const N: usize>(matches: [Match; N], verdict: Verdict, comment: &'static str) -> Rule {
    Rule { matches: matches.into(), verdict, comment }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    fn texts(table: &Table, chain: &str) -> Vec<String> {
        let chain = table.chains.iter().find(|found| found.name == chain).unwrap();
        let bare = |rule: &Rule| rule.to_string().split(" comment ").next().unwrap().to_owned();
        chain.rules.iter().map(bare).collect()
    }

    #[test]
    fn the_sidecar_is_let_pass_before_anything_is_turned() {
        let rules = texts(&table(&plan("--uid 1337 --gid 1338 --mark 0x46554e")), "outbound");
        assert_eq!(rules[..3], ["meta skuid 1337 accept", "meta skgid 1338 accept", "meta mark 0x0046554e accept"]);
    }

    #[test]
    fn dns_and_stand_ins_are_turned_before_loopback_and_subnets_pass() {
        let rules = texts(&table(&plan("--uid 1 --skip-subnets 0.0.0.0/0,::/0 --skip-outbound-ports 53")), "outbound");
        let at =
            |text: &str| rules.iter().position(|rule| rule == text).unwrap_or_else(|| panic!("{text} in {rules:?}"));
        assert!(at("udp dport 53 redirect to :15053") < at("oif \"lo\" accept"));
        assert!(at("ip daddr 240.0.0.0/4 meta l4proto tcp redirect to :15001") < at("oif \"lo\" accept"));
        assert!(at("tcp dport 53 redirect to :15053") < at("ip daddr @skip_subnets4 accept"));
        assert_eq!(rules.last().unwrap(), "meta l4proto tcp redirect to :15001");
    }

    #[test]
    fn a_set_is_there_exactly_when_it_has_elements() {
        let names = |flags| table(&plan(flags)).sets.into_iter().map(|set| set.name).collect::<Vec<_>>();
        assert_eq!(names("--uid 1"), ["skip_inbound_ports"]);
        assert_eq!(
            names("--uid 1 --skip-subnets 10.0.0.0/8 --skip-uids 7"),
            ["skip_uids", "skip_subnets4", "skip_inbound_ports"]
        );
    }

    #[test]
    fn the_metrics_port_is_skipped_whatever_else_is() {
        let table = table(&plan("--uid 1 --skip-inbound-ports 9000-9010"));
        let inbound = table.sets.iter().find(|set| set.name == SKIP_INBOUND_PORTS).unwrap();
        assert_eq!(inbound.elements.texts(), ["15020", "9000-9010"]);
    }
}
