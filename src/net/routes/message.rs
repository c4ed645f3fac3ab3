//! Between [`wanted`](super) and rtnetlink's messages.
#![allow(clippy::wildcard_enum_match_arm, reason = "what the kernel lists about a link or a route grows with kernels")]

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteLwEnCapType, RouteLwTunnelEncap,
    RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::RouteMessageBuilder;

use super::TUNNEL_ID;
use super::wanted::{Action, Family, Link, Route, Rule};

/// What the kernel gives an IPv6 route that names no metric.
const DEFAULT_IPV6_METRIC: u32 = 1024;

/// A route as it is asked for; `device` is the index of the one that it names.
pub(super) fn from_route(route: &Route, device: Option<u32>) -> RouteMessage {
    // IPv6 knows no scope; IPv4 compares it when a route is deleted.
    let (kind, scope, via) = match &route.action {
        Action::Local { .. } => (RouteType::Local, RouteScope::Host, None),
        Action::Unicast { via: Some(via), .. } => (RouteType::Unicast, RouteScope::Universe, Some(*via)),
        Action::Unicast { via: None, .. } | Action::Tunnel { .. } => (RouteType::Unicast, RouteScope::Link, None),
        Action::Throw => (RouteType::Throw, RouteScope::Universe, None),
        Action::Unreachable => (RouteType::Unreachable, RouteScope::Universe, None),
    };
    let scope = if route.family() == Family::V6 { RouteScope::Universe } else { scope };
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .kind(kind)
        .scope(scope)
        .table_id(route.table)
        .protocol(RouteProtocol::from(route.protocol));
    let mut message = builder.build();
    message.header.address_family = route.family().address_family();
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    message.attributes.extend(device.map(RouteAttribute::Oif));
    message.attributes.extend(via.map(|via| RouteAttribute::Gateway(via.into())));
    if let Action::Tunnel { remote, .. } = route.action {
        message.attributes.extend(tunnel(remote));
    }
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// What wraps packets for `remote`. With checksums, because hosts refuse UDP without them over IPv6 (RFC 8200 §8.1).
fn tunnel(remote: Ipv6Addr) -> [RouteAttribute; 2] {
    let wrap = [
        RouteIp6Tunnel::Id(TUNNEL_ID.into()),
        RouteIp6Tunnel::Destination(remote),
        RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum),
    ];
    let wrap = wrap.map(RouteLwTunnelEncap::Ip6).to_vec();
    [RouteAttribute::EncapType(RouteLwEnCapType::Ip6), RouteAttribute::Encap(wrap)]
}

pub(super) fn link(message: LinkMessage) -> Option<Link> {
    let (mut name, mut state, mut mtu) = (None, State::Unknown, 0);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::OperState(found) => state = found,
            LinkAttribute::Mtu(found) => mtu = found,
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    // The loopback device has no cable, and never leaves the unknown state.
    let carries = state == State::Up || message.header.flags.contains(LinkFlags::Loopback) && up;
    Some(Link { index: message.header.index, name: name?, up, carries, mtu })
}

pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
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

/// A route's destination and table.
pub(super) fn place(family: Family, message: &RouteMessage) -> Option<(IpNet, u32)> {
    let (mut destination, mut table) = (family.everything(), message.header.table.into());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                destination = IpNet::new(ip(to)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(found) => table = *found,
            _ => {}
        }
    }
    Some((destination, table))
}

/// A listed route, or nothing for a kind that [`Action`] lacks.
pub(super) fn route(family: Family, message: &RouteMessage, links: &[Link]) -> Option<Route> {
    let (destination, table) = place(family, message)?;
    let protocol = message.header.protocol.into();
    let mut found = Route { destination, action: Action::Throw, source: None, table, protocol };
    let (mut via, mut device, mut remote) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => via = ip(gateway),
            RouteAttribute::PrefSource(source) => found.source = ip(source),
            RouteAttribute::Oif(index) => device = links.iter().find(|link| link.index == *index),
            RouteAttribute::Encap(wrap) => remote = Some(wrapped_for(wrap)?),
            // A metric of somebody's choice makes it a route that `Route` cannot say.
            RouteAttribute::Priority(0) => {}
            RouteAttribute::Priority(DEFAULT_IPV6_METRIC) if family == Family::V6 => {}
            RouteAttribute::Priority(_) => return None,
            _ => {}
        }
    }
    let device = device.map(|link| link.name.clone());
    found.action = match message.header.kind {
        RouteType::Local => Action::Local { device: device? },
        RouteType::Unicast => match remote {
            Some(remote) => Action::Tunnel { device: device?, remote },
            None => Action::Unicast { via, device },
        },
        RouteType::Throw => Action::Throw,
        RouteType::Unreachable => Action::Unreachable,
        _ => return None,
    };
    Some(found)
}

/// The other end of a tunnel of ours; none for what [`tunnel`] would not write.
fn wrapped_for(wrap: &[RouteLwTunnelEncap]) -> Option<Ipv6Addr> {
    let mut remote = None;
    for part in wrap {
        match part {
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(found)) => remote = Some(*found),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(id)) if *id == u64::from(TUNNEL_ID) => {}
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Flags(flags)) if *flags == RouteIp6TunnelFlags::Checksum => {}
            // What the kernel adds: no source of our choice, and its own defaults.
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(Ipv6Addr::UNSPECIFIED)) => {}
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(0) | RouteIp6Tunnel::Tc(0)) => {}
            _ => return None,
        }
    }
    remote
}

/// Where a route that the kernel found leads: its device's index, and the next hop if there is one.
pub(super) fn way(message: &RouteMessage) -> Option<(u32, Option<IpAddr>)> {
    let (mut via, mut device) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => via = ip(gateway),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    (message.header.kind == RouteType::Unicast).then_some((device?, via))
}

pub(super) fn from_rule(rule: &Rule) -> RuleMessage {
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

pub(super) fn rule(family: Family, message: &RuleMessage) -> Rule {
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
