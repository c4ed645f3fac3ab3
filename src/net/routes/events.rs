//! What changes in a namespace's routing, whoever changes it.
#![allow(clippy::wildcard_enum_match_arm, reason = "what the kernel tells grows with kernels")]

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ipnet::IpNet;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::MulticastGroup;

use super::wanted::Family;
use super::{RouteError, message};

/// Something that has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// An IPv6 route is there, or has another way.
    Added(Changed),
    /// An IPv6 route is gone.
    Removed(Changed),
    /// A rule of IPv6 has come or gone.
    Rule,
    /// A device has come, gone or changed.
    Link,
    /// More has changed than could be told: look at everything.
    Lost,
}

/// Which route has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Changed {
    /// Where packets go to.
    pub destination: IpNet,
    /// The table it stands in.
    pub table: u32,
    /// Who wrote it.
    pub protocol: u8,
}

/// Everything that changes from the moment this is made.
pub struct Events {
    told: BoxStream<'static, Event>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`RouteError::Socket`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn here() -> Result<Self, RouteError> {
        let groups = [MulticastGroup::Ipv6Route, MulticastGroup::Ipv6Rule, MulticastGroup::Link];
        let (connection, _handle, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(RouteError::Socket)?;
        tokio::spawn(connection);
        let told = messages.filter_map(|(message, _)| std::future::ready(event(message.payload)));
        Ok(Self { told: told.boxed() })
    }

    /// Waits for the next change. Cancel safe: none is lost. When the kernel has nothing to say any longer, nothing
    /// comes any more.
    pub async fn next(&mut self) -> Event {
        match self.told.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => changed(&route).map(Event::Added),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => changed(&route).map(Event::Removed),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_)) => {
            Some(Event::Rule)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_)) => {
            Some(Event::Link)
        }
        NetlinkPayload::Overrun(_) => Some(Event::Lost),
        _ => None,
    }
}

fn changed(message: &RouteMessage) -> Option<Changed> {
    let (destination, table) = message::place(Family::V6, message)?;
    Some(Changed { destination, table, protocol: message.header.protocol.into() })
}
