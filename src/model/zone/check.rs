//! What must hold for a zone as a whole (RFC 1035 §5.2, RFC 1912, RFC 2181), told once for all of its records.

use super::node::Node;
use super::{ChangeError, Zone, types};
use crate::model::Name;

/// Why records make no zone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ZoneFault {
    /// A record or a set that does not belong where it stands.
    #[error(transparent)]
    Record(#[from] ChangeError),
    /// RFC 1035 §5.2, check 2.
    #[error("{0} has no SOA record, and a zone has exactly one, at its apex")]
    NoSoa(Name),
    /// RFC 1912 §2.8: a zone says who serves it.
    #[error("{0} has no NS record, and a zone names its servers at its apex")]
    NoNs(Name),
    /// RFC 1035 §5.2, check 4: without glue nobody can reach the servers.
    #[error("{cut} is delegated to {server}, which lies below it and has neither A nor AAAA record (glue)")]
    NoGlue {
        /// The zone cut.
        cut: Name,
        /// The server without an address.
        server: Name,
    },
    /// A server of the zone that the zone itself should know.
    #[error("{owner} names the server {server}, which this zone answers for and which has neither A nor AAAA record")]
    ServerWithoutAddress {
        /// The owner of the NS record.
        owner: Name,
        /// The server.
        server: Name,
    },
    /// RFC 2181 §10.3: a server's name is no alias.
    #[error("{owner} names the server {server}, which is an alias (CNAME)")]
    ServerIsAlias {
        /// The owner of the NS record.
        owner: Name,
        /// The server.
        server: Name,
    },
    /// RFC 4592 §4.2: nobody agrees what it means.
    #[error("{0} is a wildcard and has NS records: a wildcard cannot be delegated")]
    WildcardNs(Name),
}

/// Everything that is wrong with the zone as a whole, sorted by name.
pub(super) fn check(zone: &Zone) -> Vec<ZoneFault> {
    let mut faults = Vec::new();
    let apex = zone.node(&zone.apex);
    if apex.is_none_or(|apex| apex.set(types::SOA).is_none()) {
        faults.push(ZoneFault::NoSoa(zone.apex.clone()));
    }
    if apex.is_none_or(|apex| apex.set(types::NS).is_none()) {
        faults.push(ZoneFault::NoNs(zone.apex.clone()));
    }
    let mut owners: Vec<&Node> = zone.nodes().filter(|node| node.set(types::NS).is_some()).collect();
    owners.sort_by_cached_key(|node| node.name().to_lowercase().to_string());
    for owner in owners {
        check_servers(zone, owner, &mut faults);
    }
    faults
}

fn check_servers(zone: &Zone, owner: &Node, faults: &mut Vec<ZoneFault>) {
    let name = owner.name();
    let is_cut = *name != zone.apex;
    if is_cut && name.labels().next() == Some(b"*") {
        faults.push(ZoneFault::WildcardNs(name.clone()));
    }
    for target in owner.set(types::NS).into_iter().flat_map(|servers| servers.targets()) {
        let server = target.name().clone();
        let node = zone.node(&server);
        let has_address = node.is_some_and(|node| node.set(types::A).is_some() || node.set(types::AAAA).is_some());
        if has_address {
            continue;
        }
        if node.is_some_and(Node::is_alias) {
            faults.push(ZoneFault::ServerIsAlias { owner: name.clone(), server });
        } else if is_cut && server.is_at_or_below(name) {
            faults.push(ZoneFault::NoGlue { cut: name.clone(), server });
        } else if !zone.is_delegated(&server) {
            faults.push(ZoneFault::ServerWithoutAddress { owner: name.clone(), server });
        }
    }
}

impl Zone {
    /// Whether the name is at a zone cut or below one, so that another zone speaks for it.
    fn is_delegated(&self, name: &Name) -> bool {
        let mut at = Some(name.clone());
        while let Some(ancestor) = at.filter(|ancestor| *ancestor != self.apex) {
            if self.node(&ancestor).is_some_and(|node| node.set(types::NS).is_some()) {
                return true;
            }
            at = ancestor.parent();
        }
        false
    }
}
