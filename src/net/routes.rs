//! Links, addresses, routes and rules of one network namespace, over rtnetlink.
//!
//! [`Route`] and [`Rule`] are what is wanted, and print as the `ip` command that would make them; [`Netlink`] makes,
//! lists and removes them. Whatever this writes carries a protocol number of its own, so that removing touches
//! nothing that somebody else wrote.
//!
//! Source: rtnetlink(7), ip-route(8), ip-rule(8).

use std::fmt;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::namespace::NetNs;

/// The table of ordinary routes, RT_TABLE_MAIN.
pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The loopback device, in every namespace.
pub const LOOPBACK: &str = "lo";

/// What the kernel gives an IPv6 route that names no metric.
const DEFAULT_IPV6_METRIC: u32 = 1024;

/// Why the kernel's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Netlink cannot be spoken at all.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The device is not there.
    #[error("there is no network device {name}; there {}: name one of them", list(known))]
    NoSuchDevice {
        /// The device that was asked for.
        name: String,
        /// The devices there are.
        known: Vec<String>,
    },
    /// The caller lacks CAP_NET_ADMIN in this namespace.
    #[error("may not `{attempted}`: CAP_NET_ADMIN is missing; run as root, or give the container that capability")]
    NotPermitted {
        /// The `ip` command that would do the same.
        attempted: String,
    },
    /// The kernel said no.
    #[error("the kernel refuses `{attempted}`: {source}")]
    Refused {
        /// The `ip` command that would do the same.
        attempted: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's answer made no sense, or the connection to it ended.
    #[error("netlink failed on `{attempted}`: {source}")]
    Protocol {
        /// The `ip` command that would do the same.
        attempted: String,
        /// What went wrong.
        source: Error,
    },
}

impl RouteError {
    /// Whether what was to be made is there already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST))
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "are none".to_owned(),
        [one] => format!("is {one}"),
        several => format!("are {}", several.join(", ")),
    }
}

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

    const fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }

    const fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    const fn everything(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
            Self::V6 => IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
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
}

/// What becomes of packets that a route matches.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// They are ours: every address of the prefix is this host's (AnyIP).
    Local {
        /// Normally [`LOOPBACK`].
        device: String,
    },
    /// They go to the next hop, or straight to the device's link.
    Unicast {
        /// The next hop, of the route's family.
        via: Option<IpAddr>,
        /// The device; with a next hop the kernel finds it.
        device: Option<String>,
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
    /// Only packets that came in here; [`LOOPBACK`] means those that this host sends.
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

/// The kernel's network in one namespace. Clones share one socket, which closes with the last of them.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`RouteError::Socket`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn here() -> Result<Self, RouteError> {
        let (connection, handle, _messages) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Of `namespace`, whichever namespace the caller is in.
    ///
    /// # Errors
    /// [`RouteError::Socket`], also when the namespace cannot be entered.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn inside(namespace: &NetNs) -> Result<Self, RouteError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = namespace.run(|| {
            let _runtime = runtime.enter();
            Self::here()
        });
        opened.map_err(RouteError::Socket)?
    }

    /// All devices, by index.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn links(&self) -> Result<Vec<Link>, RouteError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(|error| failed("ip link show", error))?;
        Ok(messages.into_iter().filter_map(link).collect())
    }

    /// The device called `name`.
    ///
    /// # Errors
    /// [`RouteError::NoSuchDevice`] with the devices there are.
    pub async fn link(&self, name: &str) -> Result<Link, RouteError> {
        let links = self.links().await?;
        let known = || links.iter().map(|link| link.name.clone()).collect();
        let found = links.iter().find(|link| link.name == name).cloned();
        found.ok_or_else(|| RouteError::NoSuchDevice { name: name.to_owned(), known: known() })
    }

    /// A pair of devices joined by a cable: `name` here, `peer` in `peer_namespace`. Both are down.
    ///
    /// # Errors
    /// [`RouteError`]; a name that exists, here or there, is [`RouteError::already_exists`].
    pub async fn add_veth(&self, name: &str, peer: &str, peer_namespace: BorrowedFd<'_>) -> Result<(), RouteError> {
        let attempted = format!("ip link add {name} type veth peer name {peer} netns FD");
        let far = LinkMessageBuilder::<LinkUnspec>::default()
            .name(peer.to_owned())
            .append_extra_attribute(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()))
            .build();
        let near = LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).build();
        self.handle.link().add(near).execute().await.map_err(|error| failed(&attempted, error))
    }

    /// Turns a device on.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn set_up(&self, name: &str) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(self.link(name).await?.index).up().build();
        self.change_link(message, &format!("ip link set {name} up")).await
    }

    /// Turns a device off; its IPv6 addresses and all its routes go.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn set_down(&self, name: &str) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(self.link(name).await?.index).down().build();
        self.change_link(message, &format!("ip link set {name} down")).await
    }

    async fn change_link(&self, message: LinkMessage, attempted: &str) -> Result<(), RouteError> {
        self.handle.link().change(message).execute().await.map_err(|error| failed(attempted, error))
    }

    /// Removes a device, and the other end of its pair.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn delete_link(&self, name: &str) -> Result<(), RouteError> {
        let index = self.link(name).await?.index;
        let deleted = self.handle.link().del(index).execute().await;
        deleted.map_err(|error| failed(&format!("ip link delete {name}"), error))
    }

    /// Gives a device an address, usable at once: duplicates are not looked for, since whoever makes namespaces knows
    /// who else is on the link.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn add_address(&self, device: &str, address: IpNet) -> Result<(), RouteError> {
        let index = self.link(device).await?.index;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if Family::of(&address) == Family::V6 {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let attempted = format!("ip {} address add {address} dev {device} nodad", Family::of(&address));
        request.execute().await.map_err(|error| failed(&attempted, error))
    }

    /// The addresses of a device, with their prefix lengths.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn addresses(&self, device: &str) -> Result<Vec<IpNet>, RouteError> {
        let index = self.link(device).await?.index;
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(|error| failed("ip address show", error))?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`RouteError`]; one with the same destination in the same table is [`RouteError::already_exists`].
    pub async fn add_route(&self, route: &Route) -> Result<(), RouteError> {
        let message = self.route_message(route).await?;
        let attempted = format!("ip {} route add {route}", route.family());
        self.handle.route().add(message).execute().await.map_err(|error| failed(&attempted, error))
    }

    /// Adds a route, in place of one with the same destination in the same table if there is one.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn replace_route(&self, route: &Route) -> Result<(), RouteError> {
        let message = self.route_message(route).await?;
        let attempted = format!("ip {} route replace {route}", route.family());
        self.handle.route().add(message).replace().execute().await.map_err(|error| failed(&attempted, error))
    }

    /// Removes a route, exactly as [`Netlink::routes`] lists it.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn delete_route(&self, route: &Route) -> Result<(), RouteError> {
        let message = self.route_message(route).await?;
        let attempted = format!("ip {} route delete {route}", route.family());
        self.handle.route().del(message).execute().await.map_err(|error| failed(&attempted, error))
    }

    /// The routes of `family`, in all tables, that `protocol` wrote. Kinds that [`Action`] lacks are left out.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn routes(&self, family: Family, protocol: u8) -> Result<Vec<Route>, RouteError> {
        let links = self.links().await?;
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family.address_family();
        let messages: Vec<_> = self
            .handle
            .route()
            .get(wanted)
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed(&format!("ip {family} route show table all"), error))?;
        let ours = messages.into_iter().filter(|message| u8::from(message.header.protocol) == protocol);
        Ok(ours.filter_map(|message| route(family, &message, &links)).collect())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// [`RouteError`]; an equal one is [`RouteError::already_exists`].
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule);
        let attempted = format!("ip {} rule add {rule}", rule.family);
        request.execute().await.map_err(|error| failed(&attempted, error))
    }

    /// Removes a rule, exactly as [`Netlink::rules`] lists it.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn delete_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        let attempted = format!("ip {} rule delete {rule}", rule.family);
        self.handle.rule().del(rule_message(rule)).execute().await.map_err(|error| failed(&attempted, error))
    }

    /// The rules of `family` that `protocol` wrote, in the order in which they are asked.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn rules(&self, family: Family, protocol: u8) -> Result<Vec<Rule>, RouteError> {
        let messages: Vec<_> = self
            .handle
            .rule()
            .get(family.version())
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed(&format!("ip {family} rule show"), error))?;
        let rules = messages.iter().map(|message| rule(family, message));
        Ok(rules.filter(|rule| rule.protocol == protocol).collect())
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, RouteError> {
        let (kind, scope, via, device) = match &route.action {
            Action::Local { device } => (RouteType::Local, RouteScope::Host, None, Some(device)),
            Action::Unicast { via: Some(via), device } => {
                (RouteType::Unicast, RouteScope::Universe, Some(*via), device.as_ref())
            }
            Action::Unicast { via: None, device } => (RouteType::Unicast, RouteScope::Link, None, device.as_ref()),
            Action::Throw => (RouteType::Throw, RouteScope::Universe, None, None),
            Action::Unreachable => (RouteType::Unreachable, RouteScope::Universe, None, None),
        };
        let scope = if route.family() == Family::V6 { RouteScope::Universe } else { scope };
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .kind(kind)
            .scope(scope)
            .table_id(route.table)
            .protocol(RouteProtocol::from(route.protocol));
        if let Some(device) = device {
            builder = builder.output_interface(self.link(device).await?.index);
        }
        let mut message = builder.build();
        message.header.address_family = route.family().address_family();
        message.header.destination_prefix_length = route.destination.prefix_len();
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
        message.attributes.extend(via.map(|via| RouteAttribute::Gateway(via.into())));
        message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
        Ok(message)
    }
}

/// Whose fault it is that `attempted` failed.
fn failed(attempted: &str, error: Error) -> RouteError {
    let attempted = attempted.to_owned();
    let Error::NetlinkError(answer) = &error else {
        return RouteError::Protocol { attempted, source: error };
    };
    let source = answer.to_io();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RouteError::NotPermitted { attempted },
        _ => RouteError::Refused { attempted, source },
    }
}

fn link(message: LinkMessage) -> Option<Link> {
    let name = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })?;
    Some(Link { index: message.header.index, name, up: message.header.flags.contains(LinkFlags::Up) })
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL, where there is one, is ours.
    let ours = find(|attribute| match attribute {
        AddressAttribute::Local(ours) => Some(*ours),
        _ => None,
    });
    let ours = ours.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(either) => Some(*either),
            _ => None,
        })
    })?;
    IpNet::new(ours, message.header.prefix_len).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(four) => Some(IpAddr::V4(*four)),
        RouteAddress::Inet6(six) => Some(IpAddr::V6(*six)),
        _ => None,
    }
}

/// A listed route, or nothing for a kind that [`Action`] lacks.
fn route(family: Family, message: &RouteMessage, links: &[Link]) -> Option<Route> {
    let mut found = Route {
        destination: family.everything(),
        action: Action::Throw,
        source: None,
        table: message.header.table.into(),
        protocol: message.header.protocol.into(),
    };
    let (mut via, mut device) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                found.destination = IpNet::new(ip(to)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => via = ip(gateway),
            RouteAttribute::PrefSource(source) => found.source = ip(source),
            RouteAttribute::Table(table) => found.table = *table,
            RouteAttribute::Oif(index) => device = links.iter().find(|link| link.index == *index),
            // A metric of somebody's choice makes it a route that we did not write.
            RouteAttribute::Priority(metric) if family == Family::V4 || *metric != DEFAULT_IPV6_METRIC => return None,
            _ => {}
        }
    }
    let device = device.map(|link| link.name.clone());
    found.action = match message.header.kind {
        RouteType::Local => Action::Local { device: device? },
        RouteType::Unicast => Action::Unicast { via, device },
        RouteType::Throw => Action::Throw,
        RouteType::Unreachable => Action::Unreachable,
        _ => return None,
    };
    Some(found)
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule.family.address_family();
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    message.attributes.extend(rule.input.clone().map(RuleAttribute::Iifname));
    message.attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        message.attributes.push(RuleAttribute::Destination(to.network()));
    }
    message
}

fn rule(family: Family, message: &RuleMessage) -> Rule {
    let mut found = Rule {
        family,
        priority: 0,
        input: None,
        to: None,
        mark: None,
        table: message.header.table.into(),
        protocol: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => found.priority = *priority,
            RuleAttribute::Iifname(input) => found.input = Some(input.clone()),
            RuleAttribute::FwMark(mark) => found.mark = Some(*mark),
            RuleAttribute::Table(table) => found.table = *table,
            RuleAttribute::Protocol(protocol) => found.protocol = u8::from(*protocol),
            RuleAttribute::Destination(to) => found.to = IpNet::new(*to, message.header.dst_len).ok(),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
