//! Links, routes and rules as plain data. They print as `ip` takes them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use rtnetlink::IpVersion;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `prefix`.
    #[must_use]
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    pub(super) const fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }

    pub(super) const fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    pub(super) const fn everything(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
            Self::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        }
    }
}

/// `-4` or `-6`, as `ip` takes it.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        })
    }
}

/// A network device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its number, unique in its namespace.
    pub index: u32,
    /// Its name, unique in its namespace.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries, as far as the kernel has noticed: it is up, and so is the other end of its cable.
    pub carries: bool,
    /// The largest packet that it sends, in octets.
    pub mtu: u32,
}

/// What becomes of packets that a route matches.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// They are ours: every address of the prefix is this host's (AnyIP).
    Local {
        /// Normally [`LOOPBACK`](super::LOOPBACK).
        device: String,
    },
    /// They go to the next hop, or straight to the device's link.
    Unicast {
        /// The next hop, of the route's family.
        via: Option<IpAddr>,
        /// The device; with a next hop the kernel finds it.
        device: Option<String>,
    },
    /// They are carried to another host, as the payload of UDP, and go on from there as if they had come straight.
    Tunnel {
        /// A device made by [`Netlink::add_tunnel`](super::Netlink::add_tunnel).
        device: String,
        /// The other host.
        remote: Ipv6Addr,
    },
    /// The search goes on with the next rule.
    Throw,
    /// They are refused.
    Unreachable,
}

/// A route. Prints as what follows `ip -4 route add` (or `-6`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Route {
    /// Where packets go to.
    pub destination: IpNet,
    /// What becomes of them.
    pub action: Action,
    /// The source address of sockets that have chosen none. Of the destination's family.
    pub source: Option<IpAddr>,
    /// The table it stands in.
    pub table: u32,
    /// Who wrote it (RTA_PROTOCOL); 4 is an administrator.
    pub protocol: u8,
}

impl Route {
    /// The family of its destination.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(&self.destination)
    }

    /// The device that it names.
    pub(super) fn device(&self) -> Option<&str> {
        match &self.action {
            Action::Local { device } => Some(device),
            Action::Unicast { device, .. } => device.as_deref(),
            Action::Tunnel { device, .. } => Some(device),
            Action::Throw | Action::Unreachable => None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Local { device } => write!(f, "local {} dev {device}", self.destination)?,
            Action::Unicast { via, device } => {
                write!(f, "{}", self.destination)?;
                if let Some(via) = via {
                    write!(f, " via {via}")?;
                }
                if let Some(device) = device {
                    write!(f, " dev {device}")?;
                }
            }
            Action::Tunnel { device, remote } => {
                let id = super::TUNNEL_ID;
                write!(f, "{} encap ip6 id {id} dst {remote} csum dev {device}", self.destination)?;
            }
            Action::Throw => write!(f, "throw {}", self.destination)?,
            Action::Unreachable => write!(f, "unreachable {}", self.destination)?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " table {} proto {}", self.table, self.protocol)
    }
}

/// A rule: which packets look into which table. Prints as what follows `ip -4 rule add` (or `-6`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Rule {
    /// Whose routing it concerns.
    pub family: Family,
    /// Smaller is asked first; the main table stands at 32766.
    pub priority: u32,
    /// Only packets that came in here; [`LOOPBACK`](super::LOOPBACK) means those that this host sends.
    pub input: Option<String>,
    /// Only packets to here.
    pub to: Option<IpNet>,
    /// Only packets with this mark.
    pub mark: Option<u32>,
    /// Where they look.
    pub table: u32,
    /// Who wrote it (FRA_PROTOCOL).
    pub protocol: u8,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pref {}", self.priority)?;
        if let Some(input) = &self.input {
            write!(f, " iif {input}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        write!(f, " lookup {} proto {}", self.table, self.protocol)
    }
}
