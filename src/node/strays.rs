//! The packet rules: what is remembered of connections, and what becomes of strays.
//!
//! ```text
//! remember (postrouting)   an opening packet to a slice goes to pod n: its connection is marked n
//! strays (prerouting,      to a slice that is moving, of a connection that is marked: the packet gets that mark
//!         output)          to such a slice, of no connection that began here: the packet is marked as a stray
//! late (prerouting)        from a slice that has left, the answer to an opening packet: dropped
//! tunnel (prerouting)      from another node, to no slice: dropped
//! carried (input)          into the tunnel, from no node: dropped
//! ```
//!
//! The mark is set where the next hop is known, so it tells where the packet went and not where it should have gone:
//! between a change of routes and a change of rules there is no moment in which the two disagree. A connection that is
//! marked keeps its pod however often its slice moves.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::place::Node;
use crate::net::nft::{Chain, Elements, Hook, Kind, Match, Rule, Set, Table, Verdict};

/// The name of our table.
pub(super) const TABLE: &str = "funicular-node";

/// NF_IP_PRI_MANGLE: after connections are known (-200), before addresses are changed (-100).
const MANGLE: i32 = -150;
/// NF_IP_PRI_RAW: before anything is known of a packet.
const RAW: i32 = -300;
/// NF_IP_PRI_FILTER.
const FILTER: i32 = 0;

const SPACES: &str = "spaces";
const STRAYS: &str = "strays";
const NODES: &str = "nodes";

/// The table for these pods, each with its number, and these slices with strays.
pub(super) fn table(node: &Node, pods: &[(Ipv6Addr, u16)], strays: Vec<Ipv6Net>, left: &[Left]) -> Table {
    let set = |name: &str, prefixes| Set { name: name.to_owned(), elements: Elements::V6(prefixes) };
    let mut sets = vec![set(SPACES, node.spaces.clone()), set(STRAYS, strays), set(NODES, node.nodes.clone())];
    sets.extend(left.iter().map(|left| set(&left.set(), left.prefixes.clone())));
    let chains = vec![
        chain("remember", Kind::Filter, Hook::Postrouting, MANGLE, remember(node, pods)),
        chain("strays", Kind::Filter, Hook::Prerouting, MANGLE, marks(node)),
        // What the node's own programs send, and what they have in a connection with a slice.
        chain("own_strays", Kind::Route, Hook::Output, MANGLE, marks(node)),
        chain("tunnel", Kind::Filter, Hook::Prerouting, RAW, from_tunnel(node)),
        chain("late", Kind::Filter, Hook::Prerouting, MANGLE, late(left)),
        chain("carried", Kind::Filter, Hook::Input, FILTER, into_tunnel(node)),
    ];
    Table { name: TABLE.to_owned(), sets, chains }
}

fn chain(name: &str, kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), kind, hook, priority, rules }
}

fn remember(node: &Node, pods: &[(Ipv6Addr, u16)]) -> Vec<Rule> {
    let rule = |(address, number): &(Ipv6Addr, u16)| Rule {
        matches: vec![Match::ToV6In(SPACES.to_owned()), Match::Opening, Match::NextHop(*address)],
        verdict: Verdict::MarkConnection(node.mark_of(*number)),
        comment: "a connection keeps its pod",
    };
    pods.iter().map(rule).collect()
}

fn marks(node: &Node) -> Vec<Rule> {
    let moving = || Match::ToV6In(STRAYS.to_owned());
    vec![
        Rule {
            matches: vec![moving(), Match::Established],
            verdict: Verdict::MarkAsConnection,
            comment: "to the pod that has it",
        },
        Rule {
            matches: vec![moving(), Match::NotOpening, Match::ConnectionMark(0)],
            verdict: Verdict::Mark(node.mark),
            comment: "it began elsewhere",
        },
        // A packet without a connection has no mark to compare: a FIN may be the first that comes here.
        Rule {
            matches: vec![moving(), Match::NotOpening, Match::Untracked],
            verdict: Verdict::Mark(node.mark),
            comment: "its end comes first",
        },
    ]
}

/// Slices that have left a pod.
pub(super) struct Left {
    /// The pod's number.
    pub(super) number: u16,
    /// The device that leads to it and to no other.
    pub(super) device: String,
    pub(super) prefixes: Vec<Ipv6Net>,
}

impl Left {
    fn set(&self) -> String {
        format!("left_{}", self.number)
    }
}

/// Where an answer to an opening packet was lost, the packet comes again, and opens a connection at the new owner. If the
/// old one said its answer again as well, whichever the caller believes, the other would reset the connection.
fn late(left: &[Left]) -> Vec<Rule> {
    let rule = |left: &Left| Rule {
        matches: vec![Match::InputDevice(left.device.clone()), Match::FromV6In(left.set()), Match::Answering],
        verdict: Verdict::Drop,
        comment: "whoever opens it now opens it elsewhere",
    };
    left.iter().map(rule).collect()
}

fn from_tunnel(node: &Node) -> Vec<Rule> {
    let from = Match::InputDevice(node.tunnel.clone());
    vec![Rule {
        matches: vec![from, Match::ToV6NotIn(SPACES.to_owned())],
        verdict: Verdict::Drop,
        comment: "nodes carry nothing else",
    }]
}

fn into_tunnel(node: &Node) -> Vec<Rule> {
    const ANY_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0));
    let port = || Match::UdpPort(node.tunnel_port);
    let drop = |from| Rule { matches: vec![port(), from], verdict: Verdict::Drop, comment: "only nodes carry strays" };
    vec![drop(Match::FromV6NotIn(NODES.to_owned())), drop(Match::To(ANY_V4))]
}
