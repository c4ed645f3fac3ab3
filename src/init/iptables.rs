//! The same packet rules as input for `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! One text for both: a rule that concerns one family carries `-4` or `-6`, and the other program leaves it out. A set
//! becomes a rule for each element. Our chains are filled before the built-in ones jump to them; each table is taken
//! whole. Where nft accepts, iptables returns, so that whoever has rules after ours still sees the packet.
//!
//! Source: iptables-restore(8), iptables(8) (`-4`, `-6`), iptables-extensions(8).

use std::fmt::Write as _;

use ipnet::IpNet;

use super::plan::Plan;
use super::redirect;
use super::routing::{Pod, Routing, routing};
use super::steps;
use crate::net::nft::{Chain, Elements, Hook, Kind, Match, Rule, Table, Verdict};

const HEADER: &str = "\
# For `iptables-restore --noflush` and for `ip6tables-restore --noflush`: each leaves out the other's lines.
# Once: to apply it anew, first apply what `funicular init --backend iptables --remove` prints.
";

/// The built-in chains we jump from, with our own: table, built-in, ours.
const JUMPS: [(&str, &str, &str); 4] = [
    ("nat", "OUTPUT", "FUNICULAR_OUTBOUND"),
    ("nat", "PREROUTING", "FUNICULAR_INBOUND"),
    ("filter", "OUTPUT", "FUNICULAR_REFUSED"),
    ("filter", "INPUT", "FUNICULAR_DATAGRAMS"),
];

/// What makes `plan` so in `pod`.
pub(super) fn installation(plan: &Plan, pod: Pod) -> String {
    let table = redirect::table(plan);
    let mut text = HEADER.to_owned();
    text.push_str("# The routes that belong to it, as root:\n");
    for step in steps::towards(&routing(plan, pod), &Routing::default(), None) {
        let _ = writeln!(text, "#   {step}");
    }
    for kind in [Kind::Nat, Kind::Filter] {
        let chains: Vec<_> = table.chains.iter().filter(|chain| chain.kind == kind).collect();
        let _ = writeln!(text, "*{kind}");
        for chain in &chains {
            let _ = writeln!(text, ":{} - [0:0]", name(chain));
        }
        for chain in &chains {
            chain.rules.iter().flat_map(|rule| lines(&table, chain, rule)).for_each(|line| text.push_str(&line));
        }
        for chain in &chains {
            let _ = writeln!(text, "-I {} 1 -j {}", built_in(chain.hook), name(chain));
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// What undoes any installation.
pub(super) fn removal() -> String {
    let mut text = "# For `iptables-restore --noflush` and for `ip6tables-restore --noflush`.\n".to_owned();
    text.push_str("# The routes that belong to it go with `funicular init --remove`.\n");
    for table in ["nat", "filter"] {
        let _ = writeln!(text, "*{table}");
        for (_, built_in, ours) in JUMPS.iter().filter(|(of, _, _)| *of == table) {
            let _ = writeln!(text, "-D {built_in} -j {ours}\n-F {ours}\n-X {ours}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

fn name(chain: &Chain) -> String {
    format!("FUNICULAR_{}", chain.name.to_uppercase())
}

const fn built_in(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

/// A condition in iptables' words, and the family that it concerns: all of the alternatives a set stands for.
struct Condition {
    family: Option<&'static str>,
    alternatives: Vec<String>,
}

fn lines(table: &Table, chain: &Chain, rule: &Rule) -> Vec<String> {
    let conditions: Vec<_> = rule.matches.iter().map(|condition| translate(table, condition)).collect();
    let family = conditions.iter().find_map(|condition| condition.family).unwrap_or_default();
    let mut alternatives = vec![String::new()];
    for condition in &conditions {
        let mut extended = Vec::new();
        for so_far in &alternatives {
            extended.extend(condition.alternatives.iter().map(|more| format!("{so_far} {more}")));
        }
        alternatives = extended;
    }
    let (name, verdict, comment) = (name(chain), target(rule.verdict), rule.comment);
    let line = |fits: String| format!("{family}-A {name}{fits} -m comment --comment \"{comment}\" -j {verdict}\n");
    alternatives.into_iter().map(line).collect()
}

fn target(verdict: Verdict) -> String {
    match verdict {
        Verdict::Accept => "RETURN".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        // Port unreachable, in either family.
        Verdict::Reject => "REJECT".to_owned(),
        Verdict::Reset => "REJECT --reject-with tcp-reset".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Verdict::Mark(mark) => format!("MARK --set-mark {mark:#x}"),
        Verdict::MarkAsConnection => "CONNMARK --restore-mark".to_owned(),
        Verdict::MarkConnection(mark) => format!("CONNMARK --set-mark {mark:#x}"),
    }
}

fn translate(table: &Table, condition: &Match) -> Condition {
    let one = |text: String| Condition { family: None, alternatives: vec![text] };
    let each = |set: &str, family, before: &str| {
        let found = table.sets.iter().find(|found| found.name == set);
        let texts = found.map(|found| elements(&found.elements)).unwrap_or_default();
        Condition { family, alternatives: texts.iter().map(|text| format!("{before} {text}")).collect() }
    };
    match condition {
        Match::User(user) => one(format!("-m owner --uid-owner {user}")),
        Match::UserIn(set) => each(set, None, "-m owner --uid-owner"),
        Match::Group(group) => one(format!("-m owner --gid-owner {group}")),
        Match::Mark(mark) => one(format!("-m mark --mark {mark:#x}")),
        Match::InputLoopback => one("-i lo".to_owned()),
        Match::InputElsewhere => one("! -i lo".to_owned()),
        Match::OutputLoopback => one("-o lo".to_owned()),
        Match::Tcp => one("-p tcp".to_owned()),
        Match::TcpPort(port) => one(format!("-p tcp --dport {port}")),
        Match::TcpPortIn(set) => each(set, None, "-p tcp --dport"),
        Match::Udp => one("-p udp".to_owned()),
        Match::UdpPort(port) => one(format!("-p udp --dport {port}")),
        Match::UdpPortIn(set) => each(set, None, "-p udp --dport"),
        Match::Established => one("-m conntrack --ctstate ESTABLISHED,RELATED".to_owned()),
        Match::To(IpNet::V4(prefix)) => Condition { family: Some(IPV4), ..one(format!("-d {prefix}")) },
        Match::To(IpNet::V6(prefix)) => Condition { family: Some(IPV6), ..one(format!("-d {prefix}")) },
        Match::ToV4In(set) => each(set, Some(IPV4), "-d"),
        Match::ToV6In(set) => each(set, Some(IPV6), "-d"),
        Match::InputDevice(name) => one(format!("-i {name}")),
        Match::Opening => one("-p tcp --tcp-flags FIN,SYN,RST,ACK SYN".to_owned()),
        Match::NotOpening => one("-p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN".to_owned()),
        Match::Untracked => one("-m conntrack --ctstate INVALID".to_owned()),
        Match::ConnectionMark(mark) => one(format!("-m connmark --mark {mark:#x}")),
        Match::NextHop(_) | Match::ToV6NotIn(_) | Match::FromV6NotIn(_) => {
            unreachable!("iptables cannot say it, and no rule of a pod needs it")
        }
    }
}

const IPV4: &str = "-4 ";
const IPV6: &str = "-6 ";

/// Each as iptables writes it: a range of ports has a colon.
fn elements(elements: &Elements) -> Vec<String> {
    match elements {
        Elements::Ports(_) => elements.texts().into_iter().map(|range| range.replace('-', ":")).collect(),
        Elements::Users(_) | Elements::V4(_) | Elements::V6(_) => elements.texts(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    const POD: Pod = Pod { ipv6: true, ipv4_address: true };

    #[test]
    fn a_set_becomes_a_rule_for_each_element() {
        let text = installation(&plan("--uid 1 --skip-outbound-ports 25,8000-8010 --skip-uids 5-7"), POD);
        for fits in ["-p tcp --dport 25 ", "-p tcp --dport 8000:8010 ", "-m owner --uid-owner 5-7 "] {
            let line = text.lines().find(|line| line.starts_with("-A FUNICULAR_OUTBOUND") && line.contains(fits));
            assert!(line.is_some_and(|line| line.ends_with("-j RETURN")), "{fits} in {text}");
        }
    }

    #[test]
    fn what_concerns_one_family_says_so() {
        let text = installation(&plan("--uid 1 --skip-subnets 10.0.0.0/8,2001:db8::/32"), POD);
        assert!(text.contains("\n-4 -A FUNICULAR_OUTBOUND -d 10.0.0.0/8 "), "{text}");
        assert!(text.contains("\n-6 -A FUNICULAR_OUTBOUND -d 2001:db8::/32 "), "{text}");
    }

    #[test]
    fn removal_names_every_chain_that_installation_makes() {
        let (made, removed) = (installation(&plan("--uid 1"), POD), removal());
        let chains: Vec<_> = made.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).collect();
        assert_eq!(chains.len(), JUMPS.len());
        assert!(chains.iter().all(|chain| removed.contains(&format!("-X {chain}\n"))), "{removed}");
    }
}
