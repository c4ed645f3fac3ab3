//! How a program asks a proxy for a connection: SOCKS5, or HTTP CONNECT.
//!
//! Owns the bytes alone. Both tell a host and a port, and both are hostile input like any other: what is read has a
//! bound, and a name is only a name once it has been parsed as one.

pub mod connect;
pub mod socks;

use std::net::{IpAddr, SocketAddr};

use crate::model::Name;

/// Where a program wants to go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// To an address.
    Address(SocketAddr),
    /// To a name that is for the proxy to look up.
    Name(Name, u16),
}

impl Target {
    /// A host as text, an address or a name; `None` for what is neither.
    fn new(host: &str, port: u16) -> Option<Self> {
        match host.parse::<IpAddr>() {
            Ok(address) => Some(Self::Address(SocketAddr::new(address.to_canonical(), port))),
            Err(_) if host.is_empty() || host == "." => None,
            Err(_) => host.parse().ok().map(|name| Self::Name(name, port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_wherever_it_can_be_one() {
        let address = |text: &str| Some(Target::Address(text.parse().unwrap()));
        assert_eq!(Target::new("192.0.2.1", 80), address("192.0.2.1:80"));
        assert_eq!(Target::new("2001:db8::1", 80), address("[2001:db8::1]:80"));
        assert_eq!(Target::new("::ffff:192.0.2.1", 80), address("192.0.2.1:80"));
        assert_eq!(Target::new("orders.shop.peak", 80), Some(Target::Name("orders.shop.peak".parse().unwrap(), 80)));
        for neither in ["", ".", "a..b", &"x".repeat(64)] {
            assert_eq!(Target::new(neither, 80), None, "{neither:?}");
        }
    }
}
