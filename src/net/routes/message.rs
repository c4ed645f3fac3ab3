//! Between [`wanted`](super) and rtnetlink's messages.
#![allow(clippy::wildcard_enum_match_arm, reason = "what the kernel lists about a link or a route grows with kernels")]

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::RouteMessageBuilder;

use super::wanted::{Action, Family, Link, Route, Rule};

/// What the kernel gives an IPv6 route that names no metric.
const DEFAULT_IPV6_METRIC: u32 = 1024;

/// A route as it is asked for; `device` is the index of the one that it names.
pub(super) fn from_route(route: &Route, device: Option<u32>) -> RouteMessage {
    // IPv6 knows no scope; IPv4 compares it when a route is deleted.
    let (kind, scope, via) = match &route.action {
        Action::Local { .. } => (RouteType::Local, RouteScope::Host, None),
        Action::Unicast { via: Some(via), .. } => (RouteType::Unicast, RouteScope::Universe, Some(*via)),
        Action::Unicast { via: None, .. } => (RouteType::Unicast, RouteScope::Link, None),
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
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

pub(super) fn link(message: LinkMessage) -> Option<Link> {
    let (mut name, mut state) = (None, State::Unknown);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::OperState(found) => state = found,
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    // The loopback device has no cable, and never leaves the unknown state.
    let carries = state == State::Up || message.header.flags.contains(LinkFlags::Loopback) && up;
    Some(Link { index: message.header.index, name: name?, up, carries })
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

/// A listed route, or nothing for a kind that [`Action`] lacks.
pub(super) fn route(family: Family, message: &RouteMessage, links: &[Link]) -> Option<Route> {
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
        RouteType::Unicast => Action::Unicast { via, device },
        RouteType::Throw => Action::Throw,
        RouteType::Unreachable => Action::Unreachable,
        _ => return None,
    };
    Some(found)
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
