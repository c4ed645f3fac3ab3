//! The packet rules of a pod: which connections are turned to the sidecar, and which are not.
//!
//! ```text
//! a program's packet ──▶ outbound (nat, output)    sidecar's own, skipped uids: pass
//!                                                  port 53: the stub · stand-ins: outbound port
//!                                                  loopback, skipped subnets and ports: pass · TCP: outbound port
//!                   ──▶ refused (filter, output)   whatever still goes to a stand-in; QUIC where it is not wanted
//! from outside      ──▶ inbound (nat, prerouting)  skipped ports: pass · TCP: inbound port
//!                   ──▶ datagrams (filter, input)  UDP: answers and declared ports alone, the stub's never
//! ```
//!
//! A refused datagram fails at once in the sender's own call (EPERM, then ECONNREFUSED), connected or not, so that
//! QUIC falls back to TCP without waiting.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
const INBOUND_UDP_PORTS: &str = "inbound_udp_ports";
const REFUSE_QUIC4: &str = "refuse_quic4";
const REFUSE_QUIC6: &str = "refuse_quic6";
/// Where HTTP/3 listens unless it says otherwise (RFC 9114 §3.2).
const QUIC: u16 = 443;

/// The table that makes `plan` so.
pub(super) fn table(plan: &Plan) -> Table {
    let sets = sets(plan);
    let chains = vec![outbound(plan, &sets), refused(plan, &sets), inbound(plan, &sets), datagrams(plan, &sets)];
    Table { name: TABLE.to_owned(), sets, chains }
}

/// Those with elements: nft keeps an empty one too, but whoever reads the rules need not.
fn sets(plan: &Plan) -> Vec<Set> {
    let (four, six) = by_family(&plan.skip_subnets);
    let (quic4, quic6) = by_family(&plan.refuse_quic);
    let metrics = std::iter::once(plan.ports.metrics..=plan.ports.metrics);
    let inbound = metrics.chain(plan.skip_inbound_ports.iter().cloned());
    let all = [
        (SKIP_USERS, Elements::Users(plan.skip_users.clone())),
        (SKIP_SUBNETS4, Elements::V4(four)),
        (SKIP_SUBNETS6, Elements::V6(six)),
        (SKIP_OUTBOUND_PORTS, Elements::Ports(plan.skip_outbound_ports.clone())),
        (SKIP_INBOUND_PORTS, Elements::Ports(inbound.collect())),
        (INBOUND_UDP_PORTS, Elements::Ports(plan.inbound_udp_ports.clone())),
        (REFUSE_QUIC4, Elements::V4(quic4)),
        (REFUSE_QUIC6, Elements::V6(quic6)),
    ];
    let set = |(name, elements): (&str, Elements)| Set { name: name.to_owned(), elements };
    all.into_iter().filter(|(_, elements)| !elements.is_empty()).map(set).collect()
}

/// A rule that lets pass what is in the set called `name`, if there is one.
fn skip(sets: &[Set], name: &str, condition: fn(String) -> Match, comment: &'static str) -> Option<Rule> {
    in_set(sets, name, condition).map(|condition| rule([condition], Verdict::Accept, comment))
}

/// The condition on a set, where there is one.
fn in_set(sets: &[Set], name: &str, condition: fn(String) -> Match) -> Option<Match> {
    sets.iter().find(|set| set.name == name).map(|set| condition(set.name.clone()))
}

fn by_family(prefixes: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => four.push(*prefix),
            IpNet::V6(prefix) => six.push(*prefix),
        }
    }
    (four, six)
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

fn refused(plan: &Plan, sets: &[Set]) -> Chain {
    let refuse = |to| {
        let own = rule([Match::To(to), Match::Tcp], Verdict::Reset, "nobody is at a stand-in but the sidecar");
        [own, rule([Match::To(to)], Verdict::Reject, "a stand-in takes TCP, nothing else")]
    };
    // Every packet comes by here, and nearly all are of connections whose first one was let pass.
    let mut rules = vec![rule([Match::Tcp, Match::Established], Verdict::Accept, "let pass when it began")];
    rules.extend(both_stand_ins(plan).flat_map(refuse));
    for (name, condition) in [(REFUSE_QUIC4, Match::ToV4In as fn(String) -> Match), (REFUSE_QUIC6, Match::ToV6In)] {
        let quic =
            |to| rule([to, Match::UdpPort(QUIC)], Verdict::Reject, "--refuse-quic: TCP goes through the sidecar");
        rules.extend(in_set(sets, name, condition).map(quic));
    }
    Chain { name: "refused".to_owned(), kind: Kind::Filter, hook: Hook::Output, priority: FILTER, rules }
}

fn inbound(plan: &Plan, sets: &[Set]) -> Chain {
    let mut rules = vec![rule([Match::InputLoopback], Verdict::Accept, "the pod's calls to itself")];
    let skipped = "metrics, and those left alone by --skip-inbound-ports";
    rules.extend(skip(sets, SKIP_INBOUND_PORTS, Match::TcpPortIn, skipped));
    rules.push(rule([Match::Tcp], Verdict::Redirect(plan.ports.inbound), "every call from outside"));
    Chain { name: "inbound".to_owned(), kind: Kind::Nat, hook: Hook::Prerouting, priority: BEFORE_OTHERS, rules }
}

fn datagrams(plan: &Plan, sets: &[Set]) -> Chain {
    let stub = [Match::InputElsewhere, Match::UdpPort(plan.ports.dns)];
    let mut rules = vec![
        // The stub over TCP is behind the inbound redirect already.
        rule([Match::Tcp], Verdict::Accept, "no datagram"),
        rule(stub, Verdict::Drop, "the stub answers this pod alone"),
        rule([Match::InputElsewhere, Match::Udp, Match::Established], Verdict::Accept, "answers to the pod"),
    ];
    rules.extend(skip(sets, INBOUND_UDP_PORTS, Match::UdpPortIn, "declared by --inbound-udp-ports"));
    rules.push(rule([Match::InputElsewhere, Match::Udp], Verdict::Drop, "nobody gets round the sidecar over UDP"));
    Chain { name: "datagrams".to_owned(), kind: Kind::Filter, hook: Hook::Input, priority: FILTER, rules }
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
    fn datagrams_from_outside_pass_as_answers_or_to_declared_ports_and_the_stub_s_port_cannot_be_declared() {
        let rules = texts(&table(&plan("--uid 1 --inbound-udp-ports 443,15053")), "datagrams");
        assert_eq!(
            rules,
            [
                "meta l4proto tcp accept",
                "iif != \"lo\" udp dport 15053 drop",
                "iif != \"lo\" meta l4proto udp ct state established,related accept",
                "udp dport @inbound_udp_ports accept",
                "iif != \"lo\" meta l4proto udp drop",
            ]
        );
    }

    #[test]
    fn packets_of_tcp_connections_under_way_are_held_against_no_other_rule() {
        let table = table(&plan("--uid 1"));
        assert_eq!(texts(&table, "refused")[0], "meta l4proto tcp ct state established,related accept");
        assert_eq!(texts(&table, "datagrams")[0], "meta l4proto tcp accept");
    }

    #[test]
    fn quic_is_refused_where_it_is_not_wanted_and_nowhere_else() {
        let quic = |flags: &str| {
            let rules = texts(&table(&plan(flags)), "refused");
            rules.into_iter().filter(|rule| rule.contains("udp dport 443")).collect::<Vec<_>>()
        };
        assert_eq!(quic("--uid 1"), [""; 0]);
        let both = quic("--uid 1 --refuse-quic ::/0,0.0.0.0/0");
        assert_eq!(both.len(), 2);
        assert_eq!(both[0], "ip daddr @refuse_quic4 udp dport 443 reject with icmpx port-unreachable");
    }

    #[test]
    fn the_metrics_port_is_skipped_whatever_else_is() {
        let table = table(&plan("--uid 1 --skip-inbound-ports 9000-9010"));
        let inbound = table.sets.iter().find(|set| set.name == SKIP_INBOUND_PORTS).unwrap();
        assert_eq!(inbound.elements.texts(), ["15020", "9000-9010"]);
    }
}
