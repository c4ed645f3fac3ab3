//! Links, addresses, routes and rules of one network namespace, over rtnetlink.
//!
//! [`Route`] and [`Rule`] are what is wanted, and print as the `ip` command that would make them; [`Netlink`] makes,
//! lists and removes them. Whatever this writes carries a protocol number of its own, so that removing touches
//! nothing that somebody else wrote.
//!
//! Source: rtnetlink(7), ip-route(8), ip-rule(8).

mod batch;
mod events;
mod message;
mod wanted;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{InfoData, InfoVeth, InfoVxlan, LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

pub use batch::{Batch, Change};
pub use events::{Changed, Event, Events};
pub use wanted::{Action, Family, Link, Route, Rule};

use super::namespace::NetNs;

/// The table of ordinary routes, RT_TABLE_MAIN.
pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The loopback device, in every namespace.
pub const LOOPBACK: &str = "lo";

/// What tells our packets in a tunnel from others' (the VNI of VXLAN): an `F`.
pub const TUNNEL_ID: u32 = b'F' as u32;

/// Who writes the routes that come with addresses.
const RTPROT_KERNEL: u8 = 2;

/// How often, and how often at most, [`Netlink::settled`] looks: five seconds.
const SETTLING_PAUSE: Duration = Duration::from_millis(2);
const SETTLING_LOOKS: usize = 2_500;

/// Why the kernel's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Netlink cannot be spoken at all.
    #[error("cannot open a netlink socket: {0}")]
    Socket(io::Error),
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
    #[error("the kernel refuses `{attempted}`: {answer}")]
    Refused {
        /// The `ip` command that would do the same.
        attempted: String,
        /// What the kernel said.
        answer: io::Error,
    },
    /// An address of a device does not become usable.
    #[error("the IPv6 addresses of {device} cannot be reached: is it up, and the other end of its cable?")]
    Unsettled {
        /// The device.
        device: String,
    },
    /// The kernel's answer made no sense, or the connection to it ended.
    #[error("netlink failed on `{attempted}`: {answer}")]
    Protocol {
        /// The `ip` command that would do the same.
        attempted: String,
        /// What went wrong.
        answer: Error,
    },
}

impl RouteError {
    /// Whether what was to be made is there already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        matches!(self, Self::Refused { answer, .. } if answer.raw_os_error() == Some(libc::EEXIST))
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "are none".to_owned(),
        [one] => format!("is {one}"),
        several => format!("are {}", several.join(", ")),
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
        Ok(messages.into_iter().filter_map(message::link).collect())
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

    /// A device for routes with [`Action::Tunnel`]: it wraps packets as VXLAN's generic protocol extension, without
    /// Ethernet headers, and unwraps those that come to UDP `port`. It is up.
    ///
    /// # Errors
    /// [`RouteError`]; a device of that name, or one that has the port, is [`RouteError::already_exists`].
    pub async fn add_tunnel(&self, name: &str, port: u16, mtu: u32) -> Result<(), RouteError> {
        let attempted = format!("ip link add {name} mtu {mtu} up type vxlan external gpe dstport {port}");
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .append_info_data(InfoVxlan::CollectMetadata(true))
            .append_info_data(InfoVxlan::Gpe)
            .append_info_data(InfoVxlan::Port(port))
            .append_info_data(InfoVxlan::Learning(false))
            .mtu(mtu)
            .up()
            .build();
        self.handle.link().add(message).execute().await.map_err(|error| failed(&attempted, error))
    }

    /// The device by which packets to `address` would leave this host, and the next hop, if it is not on the device's
    /// own link; nothing when there is no way, or `address` is this host's own.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn way_to(&self, address: IpAddr) -> Result<Option<(Link, Option<IpAddr>)>, RouteError> {
        let destination = IpNet::from(address);
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = Family::of(&destination).address_family();
        wanted.header.destination_prefix_length = destination.prefix_len();
        wanted.attributes.push(RouteAttribute::Destination(address.into()));
        let found: Result<Vec<_>, _> = self.handle.route().get(wanted).execute().try_collect().await;
        let found = match found.map_err(|error| failed(&format!("ip route get {address}"), error)) {
            // "Unreachable", in the kernel's words, is an answer.
            Err(RouteError::Refused { .. }) => return Ok(None),
            found => found?,
        };
        let Some((index, via)) = found.first().and_then(message::way) else { return Ok(None) };
        let link = self.links().await?.into_iter().find(|link| link.index == index);
        Ok(link.map(|link| (link, via)))
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

    /// Gives a device an address. Duplicates are not looked for, since whoever makes namespaces knows who else is on the
    /// link; see [`Netlink::settled`] for when it can be used.
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
        Ok(messages.iter().filter_map(message::address).collect())
    }

    /// Waits until a device carries, and every IPv6 address of it can be reached.
    ///
    /// The kernel notices late (up to a second, when both ends have the same index) that a cable is whole, and then takes
    /// the local routes of IPv6 addresses away for a moment; after this it will not.
    ///
    /// # Errors
    /// [`RouteError::Unsettled`] after some seconds, as when the other end of the cable is down.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub async fn settled(&self, device: &str) -> Result<(), RouteError> {
        for _ in 0..SETTLING_LOOKS {
            let reached = self.routes(Family::V6, RTPROT_KERNEL).await?;
            let is_reached = |address: &IpNet| {
                let local = |route: &Route| matches!(route.action, Action::Local { .. });
                reached.iter().any(|route| local(route) && route.destination == IpNet::from(address.addr()))
            };
            let mut addresses = self.addresses(device).await?.into_iter();
            if self.link(device).await?.carries
                && addresses.all(|address| Family::of(&address) == Family::V4 || is_reached(&address))
            {
                return Ok(());
            }
            tokio::time::sleep(SETTLING_PAUSE).await;
        }
        Err(RouteError::Unsettled { device: device.to_owned() })
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

    /// The routes of `family`, in all tables, that `protocol` wrote. Kinds that [`Action`] lacks, and routes with
    /// a metric of their own, are left out.
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
        Ok(ours.filter_map(|message| message::route(family, &message, &links)).collect())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// [`RouteError`]; an equal one is [`RouteError::already_exists`].
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = message::from_rule(rule);
        let attempted = format!("ip {} rule add {rule}", rule.family);
        request.execute().await.map_err(|error| failed(&attempted, error))
    }

    /// Removes a rule, exactly as [`Netlink::rules`] lists it.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn delete_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        let attempted = format!("ip {} rule delete {rule}", rule.family);
        self.handle.rule().del(message::from_rule(rule)).execute().await.map_err(|error| failed(&attempted, error))
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
        let rules = messages.iter().map(|message| message::rule(family, message));
        Ok(rules.filter(|rule| rule.protocol == protocol).collect())
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, RouteError> {
        let index = match route.device() {
            Some(device) => Some(self.link(device).await?.index),
            None => None,
        };
        Ok(message::from_route(route, index))
    }
}

/// Whose fault it is that `attempted` failed.
fn failed(attempted: &str, error: Error) -> RouteError {
    let attempted = attempted.to_owned();
    let Error::NetlinkError(refusal) = &error else {
        return RouteError::Protocol { attempted, answer: error };
    };
    let answer = refusal.to_io();
    match answer.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RouteError::NotPermitted { attempted },
        _ => RouteError::Refused { attempted, answer },
    }
}

#[cfg(test)]
mod tests;
