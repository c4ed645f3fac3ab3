//! Who may do what with which zone, as the configuration says.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::peak::{Allowed, Peer, Zone};
use crate::model::Name;

/// Who asks: an address, and the key that signed the request.
#[derive(Clone, Copy, Debug)]
pub(in crate::peak) struct Caller<'a> {
    pub(in crate::peak) peer: SocketAddr,
    pub(in crate::peak) key: Option<&'a Name>,
}

/// Who may do what with one zone.
#[derive(Clone, Debug, Default)]
pub(in crate::peak) struct Policy {
    transfer: Vec<Allowed>,
    update: Vec<Allowed>,
    forward: Vec<Allowed>,
    notify: Vec<Allowed>,
    /// Whether the zone comes from primaries.
    pub(in crate::peak) secondary: bool,
}

impl Policy {
    /// What the configuration says of the zone.
    pub(in crate::peak) fn of(zone: &Zone) -> Self {
        let peers = |peers: &[Peer], more: &[Allowed]| peers.iter().map(peer).chain(more.iter().cloned()).collect();
        // A notice says nothing that is believed, so a primary's address is enough (RFC 1996 §3.10).
        let primaries = zone.primaries.iter().map(|primary| Allowed { key: None, prefix: Some(host(primary)) });
        Self {
            transfer: peers(&zone.secondaries, &zone.allow_transfer),
            update: zone.allow_update.clone(),
            forward: zone.forward_update.clone(),
            notify: primaries.chain(zone.allow_notify.iter().cloned()).collect(),
            secondary: !zone.primaries.is_empty(),
        }
    }

    pub(in crate::peak) fn may_transfer(&self, caller: Caller<'_>) -> bool {
        allows(&self.transfer, caller)
    }

    pub(in crate::peak) fn may_update(&self, caller: Caller<'_>) -> bool {
        allows(&self.update, caller)
    }

    /// Whether an update of the caller's is passed on to the primaries.
    pub(in crate::peak) fn may_forward(&self, caller: Caller<'_>) -> bool {
        allows(&self.forward, caller)
    }

    pub(in crate::peak) fn may_notify(&self, caller: Caller<'_>) -> bool {
        allows(&self.notify, caller)
    }
}

/// Another server: by its key where it has one, else by its address.
fn peer(peer: &Peer) -> Allowed {
    match &peer.key {
        Some(key) => Allowed { key: Some(key.clone()), prefix: None },
        None => Allowed { key: None, prefix: Some(host(peer)) },
    }
}

fn host(peer: &Peer) -> IpNet {
    IpNet::from(peer.address.0.ip().to_canonical())
}

fn allows(list: &[Allowed], Caller { peer, key }: Caller<'_>) -> bool {
    let ip: IpAddr = peer.ip().to_canonical();
    let fits = |allowed: &Allowed| {
        let key_fits = allowed.key.as_ref().is_none_or(|wanted| key == Some(wanted));
        let prefix_fits = allowed.prefix.is_none_or(|prefix| prefix.contains(&ip));
        // The configuration has no entry without a condition; if it had, it would allow nothing.
        (allowed.key.is_some() || allowed.prefix.is_some()) && key_fits && prefix_fits
    };
    list.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(key: Option<&str>, prefix: Option<&str>) -> Allowed {
        Allowed { key: key.map(|key| key.parse().unwrap()), prefix: prefix.map(|prefix| prefix.parse().unwrap()) }
    }

    #[test]
    fn key_and_prefix_must_both_fit_where_both_are_given() {
        let list =
            [allowed(Some("both."), Some("192.0.2.0/24")), allowed(Some("key."), None), allowed(None, Some("::1/128"))];
        for (peer, key, may) in [
            ("192.0.2.1:5", Some("BOTH."), true),
            ("[::ffff:192.0.2.1]:5", Some("both."), true),
            ("192.0.3.1:5", Some("both."), false),
            ("192.0.2.1:5", None, false),
            ("192.0.2.1:5", Some("other."), false),
            ("203.0.113.1:5", Some("key."), true),
            ("[::1]:5", None, true),
            ("[::2]:5", None, false),
        ] {
            let key: Option<Name> = key.map(|key| key.parse().unwrap());
            let caller = Caller { peer: peer.parse().unwrap(), key: key.as_ref() };
            assert_eq!(allows(&list, caller), may, "{caller:?}");
        }
    }

    #[test]
    fn nobody_may_anything_unless_it_is_said() {
        let caller = Caller { peer: "[::1]:5".parse().unwrap(), key: None };
        let policy = Policy::default();
        assert!(!policy.may_transfer(caller) && !policy.may_update(caller) && !policy.may_notify(caller));
        assert!(!policy.may_forward(caller));
        assert!(!allows(&[allowed(None, None)], caller));
    }
}
