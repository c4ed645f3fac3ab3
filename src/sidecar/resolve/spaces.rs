//! Which service an address belongs to: the spaces of the services looked up so far.
//!
//! What is known stays known past its TTL, until DNS says otherwise: a connection to a service's address must never be
//! taken for an ordinary one only because nobody could be asked in the meantime.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use parking_lot::RwLock;

use super::Service;
use crate::model::Name;

/// How many prefixes are remembered; beyond, services are still found by name.
const MOST_PREFIXES: usize = 16_384;

/// The index, by prefix.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    services: HashMap<Ipv6Net, Arc<Service>>,
    /// How many prefixes have each length: a search tries these lengths alone.
    lengths: BTreeMap<u8, usize>,
}

impl Spaces {
    /// The service whose space holds `addr`; of nested ones the innermost, of equal ones the last looked up.
    pub(super) fn find(&self, addr: Ipv6Addr) -> Option<Arc<Service>> {
        let index = self.index.read();
        index.lengths.keys().rev().find_map(|&length| {
            let prefix = Ipv6Net::new(addr, length).ok()?.trunc();
            index.services.get(&prefix).filter(|service| service.space.contains(addr)).cloned()
        })
    }

    /// All of them, each once, by name.
    pub(super) fn all(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> = self.index.read().services.values().cloned().collect();
        all.sort_by_key(|service| service.name.to_string());
        all.dedup_by(|one, other| one.name == other.name);
        all
    }

    /// Remembers the service, in place of what was known of its name.
    pub(super) fn put(&self, service: &Arc<Service>) {
        let prefixes = service.space.prefixes();
        let mut index = self.index.write();
        let is_known = |prefix: &Ipv6Net| index.services.get(prefix).is_some_and(|known| known.space == service.space);
        if !prefixes.iter().all(is_known) {
            index.remove(&service.name);
        }
        for prefix in prefixes {
            if index.services.len() >= MOST_PREFIXES && !index.services.contains_key(prefix) {
                break;
            }
            if index.services.insert(*prefix, service.clone()).is_none() {
                *index.lengths.entry(prefix.prefix_len()).or_default() += 1;
            }
        }
    }

    /// Forgets what was known of `name`: DNS says that it is no service any more.
    pub(super) fn remove(&self, name: &Name) {
        if self.index.read().services.values().any(|service| service.name == *name) {
            self.index.write().remove(name);
        }
    }
}

impl Index {
    fn remove(&mut self, name: &Name) {
        let lengths = &mut self.lengths;
        self.services.retain(|prefix, service| {
            let stays = service.name != *name;
            if !stays && let Some(count) = lengths.get_mut(&prefix.prefix_len()) {
                *count -= 1;
            }
            stays
        });
        lengths.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ssa::{AplItem, Space};

    fn service(name: &str, items: &[&str]) -> Arc<Service> {
        let items: Vec<AplItem> = items.iter().map(|item| item.parse().unwrap()).collect();
        let space = Space::new(&items).unwrap();
        Arc::new(Service { name: name.parse().unwrap(), space, rules: Vec::new(), port: None })
    }

    fn found(spaces: &Spaces, addr: &str) -> Option<String> {
        spaces.find(addr.parse().unwrap()).map(|service| service.name.to_string())
    }

    #[test]
    fn an_address_is_found_in_the_innermost_space_that_holds_it() {
        let spaces = Spaces::default();
        spaces.put(&service("wide.peak", &["2:2001:db8:5::/48"]));
        spaces.put(&service("narrow.peak", &["2:2001:db8:5:1::/64"]));
        assert_eq!(found(&spaces, "2001:db8:5:1::9").as_deref(), Some("narrow.peak."));
        assert_eq!(found(&spaces, "2001:db8:5:2::9").as_deref(), Some("wide.peak."));
        assert_eq!(found(&spaces, "2001:db8:6::9"), None);
    }

    #[test]
    fn a_negated_part_of_a_space_is_not_in_it() {
        let spaces = Spaces::default();
        spaces.put(&service("orders.peak", &["2:2001:db8:5::/48", "!2:2001:db8:5:1::/64"]));
        assert_eq!(found(&spaces, "2001:db8:5:1::9"), None);
        assert_eq!(found(&spaces, "2001:db8:5:2::9").as_deref(), Some("orders.peak."));
    }

    #[test]
    fn a_service_that_moves_or_goes_leaves_nothing_behind() {
        let spaces = Spaces::default();
        spaces.put(&service("orders.peak", &["2:2001:db8:5::/64", "2:2001:db8:6::/60"]));
        spaces.put(&service("orders.peak", &["2:2001:db8:7::/64"]));
        assert_eq!(found(&spaces, "2001:db8:5::1"), None);
        assert_eq!(found(&spaces, "2001:db8:7::1").as_deref(), Some("orders.peak."));
        spaces.remove(&"orders.peak".parse().unwrap());
        assert_eq!(found(&spaces, "2001:db8:7::1"), None);
        assert!(spaces.index.read().lengths.is_empty());
    }
}
