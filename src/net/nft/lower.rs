//! Rules in the kernel's own terms: sets of octets, and rules as lists of expressions over one register.
//!
//! Lowering is exact and total. Reading back gives the same terms, and [`Expression::Foreign`] for what this module
//! never writes, so that comparing tells whether anybody has changed anything.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ruleset::{Chain, Elements, Hook, Kind, Match, Rule, Set, Table, Verdict};
use super::{Difference, attributes};

/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

/// A table's content, the order of sets and chains aside.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Lowered {
    pub(super) sets: BTreeMap<String, LoweredSet>,
    pub(super) chains: BTreeMap<String, LoweredChain>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LoweredSet {
    /// The number by which nft knows the type of the elements.
    pub(super) key_type: u32,
    /// Octets in an element.
    pub(super) key_len: u32,
    /// In order: where each interval starts, and the first element after it.
    pub(super) edges: Vec<Edge>,
}

/// A point where a set begins or ends to hold, big-endian.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Edge {
    pub(super) key: Vec<u8>,
    pub(super) ends: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LoweredChain {
    pub(super) kind: String,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) rules: Vec<LoweredRule>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LoweredRule {
    pub(super) expressions: Vec<Expression>,
    pub(super) comment: String,
}

/// One step of a rule. Whatever loads, loads into register 1; whatever reads, reads from there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Expression {
    /// Loads what the packet is about, see the constants in [`meta`].
    Meta(u32),
    /// Loads what connection tracking knows of the packet's flow, see the constants in [`conntrack`].
    Conntrack(u32),
    /// Loads octets of the packet.
    Payload { base: u32, offset: u32, len: u32 },
    /// Clears the bits of the register that are zero here.
    Mask(Vec<u8>),
    /// Turns a 4-octet number in the register big-endian.
    ToNetworkOrder,
    /// Goes on only if the register equals `value` (differs from it, if `negated`).
    Compare { negated: bool, value: Vec<u8> },
    /// Goes on only if the register is in the set (is not, if `negated`).
    Lookup { set: String, negated: bool },
    /// Loads the packet's next hop, an IPv6 address.
    NextHop,
    /// The register becomes the packet's mark.
    SetMark,
    /// The register becomes the mark of the packet's connection.
    SetConnectionMark,
    /// Loads these octets.
    Load(Vec<u8>),
    /// Ends: the packet passes.
    Accept,
    /// Ends: the packet is dropped.
    Drop,
    /// Ends: port unreachable, ICMP or ICMPv6.
    Reject,
    /// Ends: TCP reset.
    Reset,
    /// Ends: to this host, at the port in the register.
    Redirect,
    /// Something that this module never writes; its name.
    Foreign(String),
}

/// Keys of [`Expression::Meta`]: enum nft_meta_keys.
pub(super) mod meta {
    pub(in super::super) const MARK: u32 = 3;
    pub(in super::super) const IIF: u32 = 4;
    pub(in super::super) const IIFNAME: u32 = 6;
    pub(in super::super) const OIF: u32 = 5;
    pub(in super::super) const SKUID: u32 = 10;
    pub(in super::super) const SKGID: u32 = 11;
    pub(in super::super) const NFPROTO: u32 = 15;
    pub(in super::super) const L4PROTO: u32 = 16;
}

/// Octets that a device's name takes in a register, IFNAMSIZ.
const DEVICE_NAME: usize = 16;

/// TCP's flags: where they stand, and those that tell an opening packet.
const TCP_FLAGS: Expression = Expression::Payload { base: TRANSPORT_HEADER, offset: 13, len: 1 };
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

/// Keys of [`Expression::Conntrack`], enum nft_ct_keys, and what they load.
pub(super) mod conntrack {
    pub(in super::super) const STATE: u32 = 0;
    pub(in super::super) const MARK: u32 = 3;
    /// NF_CT_STATE_INVALID_BIT.
    pub(in super::super) const INVALID: u32 = 1;
    /// NF_CT_STATE_BIT of IP_CT_ESTABLISHED and of IP_CT_RELATED.
    pub(in super::super) const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
}

/// Bases of [`Expression::Payload`]: enum nft_payload_bases.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Where the destination stands in an IPv4 and an IPv6 header, and a port in a TCP and a UDP one.
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const DESTINATION_PORT: Expression = Expression::Payload { base: TRANSPORT_HEADER, offset: 2, len: 2 };

impl From<&Table> for Lowered {
    fn from(table: &Table) -> Self {
        Self {
            sets: table.sets.iter().map(|set| (set.name.clone(), lower_set(set))).collect(),
            chains: table.chains.iter().map(|chain| (chain.name.clone(), lower_chain(chain))).collect(),
        }
    }
}

impl Lowered {
    /// How `found` differs from this.
    pub(super) fn difference(&self, found: &Self) -> Option<Difference> {
        if self.sets != found.sets {
            return Some(Difference::Sets);
        }
        if !self.chains.keys().eq(found.chains.keys()) {
            return Some(Difference::Chains);
        }
        self.chains.iter().zip(found.chains.values()).find_map(|((name, wanted), found)| {
            let hook = |chain: &LoweredChain| (chain.kind.clone(), chain.hook, chain.priority);
            if hook(wanted) != hook(found) {
                return Some(Difference::Chains);
            }
            let longest = wanted.rules.len().max(found.rules.len());
            let index = (0..longest).find(|index| wanted.rules.get(*index) != found.rules.get(*index))?;
            Some(Difference::Rule { chain: name.clone(), number: index + 1 })
        })
    }
}

fn lower_set(set: &Set) -> LoweredSet {
    // The types' numbers: enum datatypes in nft's datatype.h, which its listing needs to print them.
    let (key_type, key_len, edges) = match &set.elements {
        Elements::V4(prefixes) => (7, 4, edges(prefixes.iter().map(four), u32::MAX.into(), 4)),
        Elements::V6(prefixes) => (8, 16, edges(prefixes.iter().map(six), u128::MAX, 16)),
        Elements::Ports(ranges) => (13, 2, edges(ranges.iter().map(wide), u16::MAX.into(), 2)),
        Elements::Users(ranges) => (24, 4, edges(ranges.iter().map(wide), u32::MAX.into(), 4)),
    };
    LoweredSet { key_type, key_len, edges }
}

fn four(prefix: &Ipv4Net) -> RangeInclusive<u128> {
    u32::from(prefix.network()).into()..=u32::from(prefix.broadcast()).into()
}

fn six(prefix: &Ipv6Net) -> RangeInclusive<u128> {
    prefix.network().into()..=prefix.broadcast().into()
}

fn wide<T: Copy + Into<u128>>(range: &RangeInclusive<T>) -> RangeInclusive<u128> {
    (*range.start()).into()..=(*range.end()).into()
}

/// The edges of the union of `ranges`: the kernel refuses intervals that overlap, and edges that coincide.
fn edges(ranges: impl Iterator<Item = RangeInclusive<u128>>, max: u128, octets: usize) -> Vec<Edge> {
    let mut ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).map(RangeInclusive::into_inner).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            Some(_) | None => merged.push((start, end)),
        }
    }
    let key = |value: u128| value.to_be_bytes()[16 - octets..].to_vec();
    let edge = |(start, end): (u128, u128)| {
        // One that reaches the largest element has no end.
        let after = (end < max).then(|| Edge { key: key(end + 1), ends: true });
        std::iter::once(Edge { key: key(start), ends: false }).chain(after)
    };
    merged.into_iter().flat_map(edge).collect()
}

fn lower_chain(chain: &Chain) -> LoweredChain {
    LoweredChain {
        kind: match chain.kind {
            Kind::Filter => "filter".to_owned(),
            Kind::Nat => "nat".to_owned(),
            Kind::Route => "route".to_owned(),
        },
        // enum nf_inet_hooks
        hook: match chain.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        },
        priority: chain.priority,
        rules: chain.rules.iter().map(lower_rule).collect(),
    }
}

fn lower_rule(rule: &Rule) -> LoweredRule {
    let mut expressions: Vec<_> = rule.matches.iter().flat_map(lower_match).collect();
    match rule.verdict {
        Verdict::Accept => expressions.push(Expression::Accept),
        Verdict::Drop => expressions.push(Expression::Drop),
        Verdict::Reject => expressions.push(Expression::Reject),
        Verdict::Reset => expressions.push(Expression::Reset),
        Verdict::Redirect(port) => {
            expressions.extend([Expression::Load(port.to_be_bytes().to_vec()), Expression::Redirect]);
        }
        Verdict::Mark(mark) => {
            expressions.extend([Expression::Load(mark.to_ne_bytes().to_vec()), Expression::SetMark]);
        }
        Verdict::MarkAsConnection => {
            expressions.extend([Expression::Conntrack(conntrack::MARK), Expression::SetMark]);
        }
        Verdict::MarkConnection(mark) => {
            expressions.extend([Expression::Load(mark.to_ne_bytes().to_vec()), Expression::SetConnectionMark]);
        }
    }
    LoweredRule { expressions, comment: rule.comment.to_owned() }
}

fn lower_match(condition: &Match) -> Vec<Expression> {
    // What the kernel knows as numbers of its own, it compares in its own byte order.
    let number = |key, value: u32| vec![Expression::Meta(key), equals(&value.to_ne_bytes())];
    let transport = |protocol: u8| vec![Expression::Meta(meta::L4PROTO), equals(&[protocol])];
    let port = |protocol, then| [transport(protocol), vec![DESTINATION_PORT, then]].concat();
    let network = |family: u8, offset, len, then| {
        let load = Expression::Payload { base: NETWORK_HEADER, offset, len };
        vec![Expression::Meta(meta::NFPROTO), equals(&[family]), load, then]
    };
    match condition {
        Match::User(user) => number(meta::SKUID, *user),
        Match::UserIn(set) => {
            vec![Expression::Meta(meta::SKUID), Expression::ToNetworkOrder, within_set(set)]
        }
        Match::Group(group) => number(meta::SKGID, *group),
        Match::Mark(mark) => number(meta::MARK, *mark),
        Match::InputLoopback => number(meta::IIF, LOOPBACK),
        Match::InputElsewhere => {
            let value = LOOPBACK.to_ne_bytes().to_vec();
            vec![Expression::Meta(meta::IIF), Expression::Compare { negated: true, value }]
        }
        Match::OutputLoopback => number(meta::OIF, LOOPBACK),
        Match::Tcp => transport(IPPROTO_TCP),
        Match::TcpPort(to) => port(IPPROTO_TCP, equals(&to.to_be_bytes())),
        Match::TcpPortIn(set) => port(IPPROTO_TCP, within_set(set)),
        Match::Udp => transport(IPPROTO_UDP),
        Match::UdpPort(to) => port(IPPROTO_UDP, equals(&to.to_be_bytes())),
        Match::UdpPortIn(set) => port(IPPROTO_UDP, within_set(set)),
        Match::Established => vec![
            Expression::Conntrack(conntrack::STATE),
            Expression::Mask(conntrack::ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
            Expression::Compare { negated: true, value: vec![0; 4] },
        ],
        Match::To(IpNet::V4(prefix)) => {
            let (mask, value) = (prefix.netmask().octets(), prefix.network().octets());
            within(NFPROTO_IPV4, IPV4_DESTINATION, &mask, &value)
        }
        Match::To(IpNet::V6(prefix)) => {
            let (mask, value) = (prefix.netmask().octets(), prefix.network().octets());
            within(NFPROTO_IPV6, IPV6_DESTINATION, &mask, &value)
        }
        Match::ToV4In(set) => network(NFPROTO_IPV4, IPV4_DESTINATION, 4, within_set(set)),
        Match::ToV6In(set) => network(NFPROTO_IPV6, IPV6_DESTINATION, 16, within_set(set)),
        Match::ToV6NotIn(set) => network(NFPROTO_IPV6, IPV6_DESTINATION, 16, outside_set(set)),
        Match::FromV6NotIn(set) => network(NFPROTO_IPV6, IPV6_SOURCE, 16, outside_set(set)),
        Match::InputDevice(name) => {
            let mut value: Vec<u8> = name.bytes().take(DEVICE_NAME - 1).collect();
            value.resize(DEVICE_NAME, 0);
            vec![Expression::Meta(meta::IIFNAME), equals(&value)]
        }
        // As nft does it: the family first, since the hook sees both.
        Match::NextHop(address) => vec![
            Expression::Meta(meta::NFPROTO),
            equals(&[NFPROTO_IPV6]),
            Expression::NextHop,
            equals(&address.octets()),
        ],
        Match::Opening => [transport(IPPROTO_TCP), opening(false)].concat(),
        Match::NotOpening => [transport(IPPROTO_TCP), opening(true)].concat(),
        Match::Untracked => vec![
            Expression::Conntrack(conntrack::STATE),
            Expression::Mask(conntrack::INVALID.to_ne_bytes().to_vec()),
            Expression::Compare { negated: true, value: vec![0; 4] },
        ],
        Match::ConnectionMark(mark) => vec![Expression::Conntrack(conntrack::MARK), equals(&mark.to_ne_bytes())],
    }
}

/// Holds for the prefix `value` under `mask` at `offset` of the network header. As nft does it: a prefix of whole octets
/// is compared as those octets, so that a table which `nft` loaded from our text equals the one we would write.
fn within(family: u8, offset: u32, mask: &[u8], value: &[u8]) -> Vec<Expression> {
    let whole = mask.iter().take_while(|octet| **octet == 0xff).count();
    let in_whole_octets = whole > 0 && mask[whole..].iter().all(|octet| *octet == 0);
    let taken = if in_whole_octets { whole } else { value.len() };
    let len = u32::try_from(taken).unwrap_or(u32::MAX);
    let load = Expression::Payload { base: NETWORK_HEADER, offset, len };
    let mask = (!in_whole_octets).then(|| Expression::Mask(mask.to_vec()));
    let mut steps = vec![Expression::Meta(meta::NFPROTO), equals(&[family]), load];
    steps.extend(mask);
    steps.push(equals(&value[..taken]));
    steps
}

/// Holds for TCP flags that open a connection, or for all others.
fn opening(negated: bool) -> Vec<Expression> {
    vec![TCP_FLAGS, Expression::Mask(vec![FIN_SYN_RST_ACK]), Expression::Compare { negated, value: vec![SYN] }]
}

fn within_set(set: &str) -> Expression {
    Expression::Lookup { set: set.to_owned(), negated: false }
}

fn outside_set(set: &str) -> Expression {
    Expression::Lookup { set: set.to_owned(), negated: true }
}

fn equals(value: &[u8]) -> Expression {
    Expression::Compare { negated: false, value: value.to_vec() }
}

/// The comment in a rule's user data: a list of type, length, value, one octet each; type 0, closed by a zero.
pub(super) fn comment_to_user_data(comment: &str) -> Vec<u8> {
    let kept: Vec<u8> = comment.bytes().take(127).chain([0]).collect();
    [vec![0, kept.len().to_le_bytes()[0]], kept].concat()
}

/// The inverse of [`comment_to_user_data`]; empty for anything else.
pub(super) fn comment_from_user_data(data: &[u8]) -> String {
    match data {
        [0, len, rest @ ..] => rest.get(..usize::from(*len)).map(attributes::text).unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports(ranges: &[RangeInclusive<u16>]) -> Vec<(u16, bool)> {
        let set = Set { name: "p".into(), elements: Elements::Ports(ranges.to_vec()) };
        let number = |edge: &Edge| (u16::from_be_bytes([edge.key[0], edge.key[1]]), edge.ends);
        lower_set(&set).edges.iter().map(number).collect()
    }

    #[test]
    fn touching_and_overlapping_ranges_become_one() {
        assert_eq!(ports(&[90..=99, 80..=89]), [(80, false), (100, true)]);
        assert_eq!(ports(&[80..=95, 90..=99, 85..=86]), [(80, false), (100, true)]);
        assert_eq!(ports(&[80..=88, 90..=99]), [(80, false), (89, true), (90, false), (100, true)]);
    }

    #[test]
    fn a_range_to_the_last_element_has_no_end() {
        assert_eq!(ports(&[65535..=65535, 0..=0]), [(0, false), (1, true), (65535, false)]);
        assert_eq!(ports(&[65000..=65534]), [(65000, false), (65535, true)]);
    }

    #[test]
    fn a_prefix_of_everything_is_the_whole_set() {
        let set = Set { name: "all".into(), elements: Elements::V6(vec!["::/0".parse().unwrap()]) };
        assert_eq!(lower_set(&set).edges, [Edge { key: vec![0; 16], ends: false }]);
    }

    #[test]
    fn comments_survive_the_kernel_s_form_cut_to_what_it_holds() {
        assert_eq!(comment_from_user_data(&comment_to_user_data("the sidecar")), "the sidecar");
        assert_eq!(comment_from_user_data(&comment_to_user_data(&"x".repeat(300))).len(), 127);
        assert_eq!(comment_from_user_data(&[0, 200, 1]), "");
    }

    #[test]
    fn the_first_difference_is_named() {
        let rule = |port| Rule { matches: vec![Match::Tcp], verdict: Verdict::Redirect(port), comment: "" };
        let chain = |rules| Chain { name: "out".into(), kind: Kind::Nat, hook: Hook::Output, priority: 0, rules };
        let table = |rules| Lowered::from(&Table { name: "t".into(), sets: vec![], chains: vec![chain(rules)] });
        let wanted = table(vec![rule(1), rule(2)]);
        let differs = |number| Some(Difference::Rule { chain: "out".into(), number });
        assert_eq!(wanted.difference(&wanted), None);
        assert_eq!(wanted.difference(&table(vec![rule(1), rule(3)])), differs(2));
        assert_eq!(wanted.difference(&table(vec![rule(1)])), differs(2));
        assert_eq!(wanted.difference(&table(vec![rule(1), rule(2), rule(3)])), differs(3));
        assert_eq!(wanted.difference(&Lowered::default()), Some(Difference::Chains));
    }

    proptest! {
        #[test]
        fn a_port_is_between_edges_exactly_when_a_range_holds_it(
            ranges in proptest::collection::vec((0_u16.., 0_u16..400), 0..12), probe: u16,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..=start.saturating_add(len)).collect();
            let last = ports(&ranges).into_iter().rev().find(|(at, _)| *at <= probe);
            let inside = last.is_some_and(|(_, ends)| !ends);
            prop_assert_eq!(inside, ranges.iter().any(|range| range.contains(&probe)));
        }
    }
}
