//! What must hold for a zone as a whole (RFC 1035 §5.2, RFC 1912, RFC 2181), told once for all of its records.

use super::entry::Entry;
use super::node::Node;
use super::{ChangeError, Zone, types};
use crate::model::Name;

/// A fault of a zone, and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The index of the entry to look at; none when what is wrong is that there is no such entry.
    pub entry: Option<usize>,
    /// What is wrong.
    pub cause: ZoneFault,
}

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

/// Everything that is wrong with the zone as a whole, which was made of `entries`.
pub(super) fn check(zone: &Zone, entries: &[Entry]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let apex = zone.node(&zone.apex);
    let lacks = |rtype| apex.is_none_or(|apex| apex.set(rtype).is_none());
    if lacks(types::SOA) {
        faults.push(Fault { entry: None, cause: ZoneFault::NoSoa(zone.apex.clone()) });
    }
    if lacks(types::NS) {
        faults.push(Fault { entry: None, cause: ZoneFault::NoNs(zone.apex.clone()) });
    }
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.rtype == types::NS) {
        if let Some(cause) = check_server(zone, entry) {
            faults.push(Fault { entry: Some(index), cause });
        }
    }
    faults
}

/// What is wrong with one NS record.
fn check_server(zone: &Zone, entry: &Entry) -> Option<ZoneFault> {
    let owner = entry.name.clone();
    let is_cut = owner != zone.apex;
    if is_cut && owner.labels().next() == Some(b"*") {
        return Some(ZoneFault::WildcardNs(owner));
    }
    let server = Name::from_wire(&entry.rdata).ok().filter(|server| server.is_at_or_below(&zone.apex))?;
    let node = zone.node(&server);
    if node.is_some_and(|node| node.set(types::A).is_some() || node.set(types::AAAA).is_some()) {
        return None;
    }
    if node.is_some_and(Node::is_alias) {
        Some(ZoneFault::ServerIsAlias { owner, server })
    } else if is_cut && server.is_at_or_below(&owner) {
        Some(ZoneFault::NoGlue { cut: owner, server })
    } else if zone.is_delegated(&server) {
        // Another zone knows the address.
        None
    } else {
        Some(ZoneFault::ServerWithoutAddress { owner, server })
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
