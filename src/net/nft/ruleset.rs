//! What packet rules we want, in the words of nft(8). Plain data; prints as `nft -f` takes it.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A table of the `inet` family: its rules see IPv4 and IPv6.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name, unique in the namespace.
    pub name: String,
    /// What rules look things up in.
    pub sets: Vec<Set>,
    /// The rules, each chain at its hook.
    pub chains: Vec<Chain>,
}

/// A named set, searched in logarithmic time however long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Set {
    /// Its name, unique in its table.
    pub name: String,
    /// What is in it. Overlaps are merged on the way to the kernel.
    pub elements: Elements,
}

/// The elements of a [`Set`], all of one type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Elements {
    /// Ports.
    Ports(Vec<RangeInclusive<u16>>),
    /// User ids, as the namespace's owner sees them.
    Users(Vec<RangeInclusive<u32>>),
    /// IPv4 prefixes.
    V4(Vec<Ipv4Net>),
    /// IPv6 prefixes.
    V6(Vec<Ipv6Net>),
}

/// A chain at a hook; packets that no rule decides are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Its name, unique in its table.
    pub name: String,
    /// What its rules may do.
    pub kind: Kind,
    /// When packets meet it.
    pub hook: Hook,
    /// Where it stands among the chains of its hook; smaller is earlier.
    pub priority: i32,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// What a chain's rules may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Judge every packet.
    Filter,
    /// Turn a connection elsewhere; meets only its first packet.
    Nat,
    /// At [`Hook::Output`]: judge, and route anew what got another mark.
    Route,
}

/// When packets meet a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// As they come in, before routing.
    Prerouting,
    /// When they are for this host.
    Input,
    /// When this host has sent and routed them.
    Output,
    /// When their next hop is known, whoever sent them.
    Postrouting,
}

/// What happens to packets that fit all of `matches`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
    /// Why, for whoever lists the rules. At most 127 octets reach the kernel.
    pub comment: &'static str,
}

/// A condition on a packet. A set is named as it stands in the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Match {
    /// The sending socket belongs to this user.
    User(u32),
    /// The sending socket belongs to a user in this set.
    UserIn(String),
    /// The sending socket belongs to this group.
    Group(u32),
    /// The packet has exactly this mark; one that this host sends has its socket's.
    Mark(u32),
    /// It came in by the loopback device.
    InputLoopback,
    /// It came in by any device but loopback.
    InputElsewhere,
    /// It goes out by the loopback device.
    OutputLoopback,
    /// It is TCP.
    Tcp,
    /// It is TCP to this port.
    TcpPort(u16),
    /// It is TCP to a port in this set.
    TcpPortIn(String),
    /// It is UDP.
    Udp,
    /// It is UDP to this port.
    UdpPort(u16),
    /// It is UDP to a port in this set.
    UdpPortIn(String),
    /// It belongs to a flow that has been answered, or to one that such a flow has announced.
    Established,
    /// It goes to this prefix.
    To(IpNet),
    /// It goes to an IPv4 prefix in this set.
    ToV4In(String),
    /// It goes to an IPv6 prefix in this set.
    ToV6In(String),
    /// It is IPv6 to no prefix in this set.
    ToV6NotIn(String),
    /// It is IPv6 from no prefix in this set.
    FromV6NotIn(String),
    /// It came in by the device of this name, now or when there is one.
    InputDevice(String),
    /// Its next hop is this one; only at [`Hook::Postrouting`].
    NextHop(Ipv6Addr),
    /// It opens a TCP connection: SYN, and none of ACK, RST and FIN.
    Opening,
    /// It is TCP and opens no connection.
    NotOpening,
    /// Connection tracking can make nothing of it: as of a FIN of a connection whose beginning this host has not seen.
    Untracked,
    /// Its connection has exactly this mark; one that this host has seen nothing of has 0.
    ConnectionMark(u32),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It passes on, to the next chain.
    Accept,
    /// It is dropped without a word.
    Drop,
    /// It is refused: a sending socket fails at once (EPERM), and "port unreachable" goes back.
    Reject,
    /// The connection is reset. Needs [`Match::Tcp`]: a TCP socket that is just connecting does not hear "port
    /// unreachable".
    Reset,
    /// The connection goes to this port of this host instead. Needs a [`Match`] on TCP or UDP.
    Redirect(u16),
    /// It gets this mark, and meets the next rule.
    Mark(u32),
    /// It gets its connection's mark, and meets the next rule.
    MarkAsConnection,
    /// Its connection gets this mark, and it meets the next rule.
    MarkConnection(u32),
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for set in &self.sets {
            writeln!(f, "{set}")?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tset {} {{", self.name)?;
        writeln!(f, "\t\ttype {}\n\t\tflags interval\n\t\tauto-merge", self.elements.type_name())?;
        writeln!(f, "\t\telements = {{ {} }}\n\t}}", self.elements.texts().join(", "))
    }
}

impl Elements {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Ports(ranges) => ranges.is_empty(),
            Self::Users(ranges) => ranges.is_empty(),
            Self::V4(prefixes) => prefixes.is_empty(),
            Self::V6(prefixes) => prefixes.is_empty(),
        }
    }

    /// Each as nft writes it: `80`, `8000-8010`, `10.0.0.0/8`.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Ports(ranges) => ranges.iter().map(range).collect(),
            Self::Users(ranges) => ranges.iter().map(range).collect(),
            Self::V4(prefixes) => prefixes.iter().map(ToString::to_string).collect(),
            Self::V6(prefixes) => prefixes.iter().map(ToString::to_string).collect(),
        }
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::Ports(_) => "inet_service",
            Self::Users(_) => "uid",
            Self::V4(_) => "ipv4_addr",
            Self::V6(_) => "ipv6_addr",
        }
    }
}

fn range<T: fmt::Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    if range.start() == range.end() { range.start().to_string() } else { format!("{}-{}", range.start(), range.end()) }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, hook, priority, rules } = self;
        writeln!(f, "\tchain {name} {{")?;
        writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
        for rule in rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "{} comment \"{}\"", self.verdict, self.comment)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "meta skuid {user}"),
            Self::UserIn(set) => write!(f, "meta skuid @{set}"),
            Self::Group(group) => write!(f, "meta skgid {group}"),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::InputLoopback => f.write_str("iif \"lo\""),
            Self::InputElsewhere => f.write_str("iif != \"lo\""),
            Self::OutputLoopback => f.write_str("oif \"lo\""),
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::TcpPort(port) => write!(f, "tcp dport {port}"),
            Self::TcpPortIn(set) => write!(f, "tcp dport @{set}"),
            Self::Udp => f.write_str("meta l4proto udp"),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
            Self::UdpPortIn(set) => write!(f, "udp dport @{set}"),
            Self::Established => f.write_str("ct state established,related"),
            Self::To(IpNet::V4(prefix)) => write!(f, "ip daddr {prefix}"),
            Self::To(IpNet::V6(prefix)) => write!(f, "ip6 daddr {prefix}"),
            Self::ToV4In(set) => write!(f, "ip daddr @{set}"),
            Self::ToV6In(set) => write!(f, "ip6 daddr @{set}"),
            Self::ToV6NotIn(set) => write!(f, "ip6 daddr != @{set}"),
            Self::FromV6NotIn(set) => write!(f, "ip6 saddr != @{set}"),
            Self::InputDevice(name) => write!(f, "iifname \"{name}\""),
            Self::NextHop(address) => write!(f, "rt ip6 nexthop {address}"),
            Self::Opening => f.write_str("tcp flags & (fin | syn | rst | ack) == syn"),
            Self::NotOpening => f.write_str("tcp flags & (fin | syn | rst | ack) != syn"),
            Self::Untracked => f.write_str("ct state invalid"),
            Self::ConnectionMark(mark) => write!(f, "ct mark {mark:#010x}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject with icmpx port-unreachable"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Mark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::MarkAsConnection => f.write_str("meta mark set ct mark"),
            Self::MarkConnection(mark) => write!(f, "ct mark set {mark:#010x}"),
        }
    }
}
