//! Stand-ins: the addresses that the stub gives an application in place of a service's own.
//!
//! Owns the one table from a name to its IPv4 and IPv6 stand-in and back. A name keeps its pair for the sidecar's life,
//! because applications cache addresses for as long as they please; nothing is ever taken back, so the table is bounded
//! and says so when it is full.
//!
//! The IPv4 stand-in follows from a hash of the name, so that after a restart a name has its old address again unless
//! another took the place first; the IPv6 one carries the IPv4 one in its low 32 bits, so one search serves both.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use parking_lot::RwLock;
use siphasher::sip::SipHasher24;

use crate::model::Name;

/// How many names may have stand-ins at once.
pub const MOST_STAND_INS: usize = 65_536;

/// Every address of the pools is taken, or [`MOST_STAND_INS`] names have one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no stand-in is left: {in_use} names have one; ask for fewer different names, or give a larger ipv4 pool")]
pub struct NoStandIn {
    /// How many names have one.
    pub in_use: usize,
}

impl NoStandIn {
    /// The stable word for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "stand-ins-exhausted"
    }
}

/// Why these pools cannot serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPools {
    /// The IPv4 stand-in must fit behind the prefix.
    #[error("the IPv6 pool {0} is longer than /96: an IPv4 stand-in does not fit behind it")]
    Ipv6TooLong(Ipv6Net),
    /// Nothing is left once the unusual addresses are set aside.
    #[error("the IPv4 pool {0} holds no address but network and broadcast ones")]
    Ipv4Empty(Ipv4Net),
}

/// The table of stand-ins.
#[derive(Debug)]
pub struct StandIns {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<Name, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, Name>,
}

impl StandIns {
    /// An empty table over these pools.
    ///
    /// # Errors
    /// When no stand-in could ever be given.
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, BadPools> {
        if ipv6.prefix_len() > 96 {
            return Err(BadPools::Ipv6TooLong(ipv6));
        }
        if ipv4.prefix_len() > 24 && !ipv4.trunc().hosts().any(usable) {
            return Err(BadPools::Ipv4Empty(ipv4));
        }
        Ok(Self { ipv4: ipv4.trunc(), ipv6: ipv6.trunc(), table: RwLock::default() })
    }

    /// The stand-ins of `name`, given now if it had none.
    ///
    /// # Errors
    /// When the table is full.
    pub fn assign(&self, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), NoStandIn> {
        if let Some(&ipv4) = self.table.read().by_name.get(name) {
            return Ok((ipv4, self.behind_prefix(ipv4)));
        }
        let mut table = self.table.write();
        if let Some(&ipv4) = table.by_name.get(name) {
            return Ok((ipv4, self.behind_prefix(ipv4)));
        }
        let full = NoStandIn { in_use: table.by_name.len() };
        if full.in_use >= MOST_STAND_INS {
            return Err(full);
        }
        let ipv4 = self.first_free(name, &table).ok_or(full)?;
        table.by_name.insert(name.clone(), ipv4);
        table.by_address.insert(ipv4, name.clone());
        Ok((ipv4, self.behind_prefix(ipv4)))
    }

    /// The name behind a stand-in; none for other addresses and for stand-ins not given since the start.
    ///
    /// An IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2) counts as the IPv4 address.
    #[must_use]
    pub fn name_of(&self, addr: IpAddr) -> Option<Name> {
        let ipv4 = match addr.to_canonical() {
            IpAddr::V4(ipv4) => ipv4,
            IpAddr::V6(ipv6) => {
                let ipv4 = Ipv4Addr::from_bits(u128::from(ipv6) as u32);
                (self.behind_prefix(ipv4) == ipv6).then_some(ipv4)?
            }
        };
        self.table.read().by_address.get(&ipv4).cloned()
    }

    /// Whether the address lies in a pool, given to a name or not. No such address means anything outside the pod.
    #[must_use]
    pub fn is_stand_in(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(ipv4) => self.ipv4.contains(&ipv4),
            IpAddr::V6(ipv6) => self.ipv6.contains(&ipv6),
        }
    }

    /// Every name that has stand-ins, with the IPv4 one, from which the other follows.
    #[must_use]
    pub fn given(&self) -> Vec<(Name, Ipv4Addr)> {
        self.table.read().by_name.iter().map(|(name, &ipv4)| (name.clone(), ipv4)).collect()
    }

    /// Gives names what they were given elsewhere; what is taken, or outside the pool, is left out.
    pub fn give_again(&self, given: Vec<(Name, Ipv4Addr)>) {
        let mut table = self.table.write();
        for (name, ipv4) in given {
            let free = !table.by_name.contains_key(&name) && !table.by_address.contains_key(&ipv4);
            if free && self.ipv4.contains(&ipv4) && table.by_name.len() < MOST_STAND_INS {
                table.by_name.insert(name.clone(), ipv4);
                table.by_address.insert(ipv4, name);
            }
        }
    }

    /// How many names have stand-ins.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.table.read().by_name.len()
    }

    /// Linear probing from the place that the name's hash gives.
    fn first_free(&self, name: &Name, table: &Table) -> Option<Ipv4Addr> {
        let network = u64::from(self.ipv4.network().to_bits());
        let size = 1_u64 << (32 - u32::from(self.ipv4.prefix_len()));
        let start = hash(name) % size;
        // Two addresses of each 256 are unusable, so a free one, if any, is among these.
        let probes = size.min(2 * MOST_STAND_INS as u64);
        (0..probes)
            .map(|step| Ipv4Addr::from_bits((network + (start + step) % size) as u32))
            .find(|&addr| usable(addr) && !table.by_address.contains_key(&addr))
    }

    fn behind_prefix(&self, ipv4: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.ipv6.network().to_bits() | u128::from(ipv4.to_bits()))
    }
}

/// Programs take a last octet of 0 or 255 for a network or a broadcast address; some refuse to connect to one.
fn usable(addr: Ipv4Addr) -> bool {
    !matches!(addr.octets()[3], 0 | 255)
}

/// The same in every process: no random key, or a restart would move every name.
fn hash(name: &Name) -> u64 {
    let mut hasher = SipHasher24::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn over(ipv4: &str) -> StandIns {
        StandIns::new(ipv4.parse().unwrap(), "fd46:554e:1c00::/64".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_name_keeps_its_stand_ins_in_every_spelling_and_after_a_restart() {
        let before = over("240.0.0.0/4");
        let first = before.assign(&name("orders.shop.peak")).unwrap();
        assert_eq!(before.assign(&name("ORDERS.shop.peak")).unwrap(), first);
        assert_eq!(before.in_use(), 1);
        assert_eq!(over("240.0.0.0/4").assign(&name("orders.shop.peak")).unwrap(), first);
    }

    #[test]
    fn a_table_that_was_given_on_knows_every_name_by_the_same_address() {
        let before = over("240.0.0.0/24");
        let names: Vec<_> = (0..200).map(|n| name(&format!("n{n}.peak"))).collect();
        let given: Vec<_> = names.iter().map(|name| before.assign(name).unwrap()).collect();
        let after = over("240.0.0.0/24");
        after.give_again(before.given());
        after
            .give_again(vec![(name("elsewhere.peak"), "241.0.0.1".parse().unwrap()), (name("taken.peak"), given[0].0)]);
        assert_eq!(after.in_use(), 200);
        for (name, given) in names.iter().zip(given) {
            assert_eq!(after.name_of(given.0.into()).as_ref(), Some(name));
            assert_eq!(after.assign(name).unwrap(), given);
        }
    }

    #[test]
    fn both_stand_ins_lead_back_to_the_name_and_only_they_do() {
        let table = over("240.0.0.0/4");
        let (ipv4, ipv6) = table.assign(&name("orders.shop.peak")).unwrap();
        assert_eq!(table.name_of(ipv4.into()), Some(name("orders.shop.peak")));
        assert_eq!(table.name_of(ipv6.into()), Some(name("orders.shop.peak")));
        assert_eq!(table.name_of(ipv4.to_ipv6_mapped().into()), Some(name("orders.shop.peak")));
        let not_given = Ipv6Addr::from_bits(ipv6.to_bits() | 1 << 40);
        assert_eq!(table.name_of(not_given.into()), None);
        assert_eq!(table.name_of("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn an_address_is_a_stand_in_exactly_inside_the_pools() {
        let table = over("240.0.0.0/4");
        for (addr, expected) in [
            ("240.0.0.0", true),
            ("255.255.255.255", true),
            ("239.255.255.255", false),
            ("fd46:554e:1c00::", true),
            ("fd46:554e:1c00:0:ffff:ffff:ffff:ffff", true),
            ("fd46:554e:1c00:1::", false),
            ("::ffff:240.0.0.1", true),
        ] {
            assert_eq!(table.is_stand_in(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn a_full_pool_refuses_the_next_name_and_still_serves_the_others() {
        let table = over("240.1.2.0/29");
        let given: Vec<_> = (0..7).map(|n| table.assign(&name(&format!("n{n}.peak"))).unwrap()).collect();
        assert_eq!(table.assign(&name("n7.peak")).unwrap_err(), NoStandIn { in_use: 7 });
        assert_eq!(table.assign(&name("n3.peak")).unwrap(), given[3]);
        assert!(given.iter().all(|(ipv4, _)| ipv4.octets()[3] != 0));
    }

    #[test]
    fn no_stand_in_ends_in_0_or_255() {
        let table = over("240.0.0.0/23");
        let mut given: Vec<_> = (0..508).map(|n| table.assign(&name(&format!("n{n}.peak"))).unwrap().0).collect();
        assert!(table.assign(&name("one-more.peak")).is_err());
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 508);
        assert!(given.into_iter().all(usable));
    }

    #[test]
    fn the_table_takes_65536_names_and_not_one_more() {
        let table = over("240.0.0.0/4");
        for n in 0..MOST_STAND_INS {
            table.assign(&name(&format!("n{n}.peak"))).unwrap();
        }
        assert_eq!(table.assign(&name("one-more.peak")).unwrap_err(), NoStandIn { in_use: MOST_STAND_INS });
    }

    #[test]
    fn pools_that_could_never_serve_are_refused() {
        let ipv6: Ipv6Net = "fd46:554e:1c00::/97".parse().unwrap();
        let ipv4: Ipv4Net = "240.0.0.0/4".parse().unwrap();
        assert_eq!(StandIns::new(ipv4, ipv6).unwrap_err(), BadPools::Ipv6TooLong(ipv6));
        let empty: Ipv4Net = "240.0.0.0/32".parse().unwrap();
        let error = StandIns::new(empty, "fd46:554e:1c00::/96".parse().unwrap()).unwrap_err();
        assert_eq!(error, BadPools::Ipv4Empty(empty));
    }
}
