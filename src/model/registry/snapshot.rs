//! The registry as octets: a sequence of pieces, the same for the same registry on every node.
//!
//! ```text
//! head │ zone │ records … │ zone │ records … │ requests … │ leases │ end
//! ```
//!
//! A piece is small, so that neither side holds more than one beside the registry itself. How pieces are framed, kept
//! whole and carried is `peak::store`'s.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lease::Leases;
use super::{FIRST_SCHEMA, Held, Reads, Registry, Reply, RequestId, SchemaError};
use crate::model::zone::{Entry, Node, Rrset, Seed, Zone};
use crate::model::{Name, UnixMillis};

/// Records or requests in one piece.
const TOGETHER: usize = 512;

/// A piece of a snapshot.
#[derive(Debug, Deserialize, Serialize)]
enum Piece {
    /// The first: of which schema the others are, and the registry's time.
    Head { schema: u8, now: UnixMillis },
    /// A zone begins.
    Zone { apex: Name, reads: Reads },
    /// Records of the zone that began last.
    Records(Vec<Entry>),
    /// Remembered requests, the oldest first.
    Requests(Vec<(UnixMillis, RequestId, Reply)>),
    /// All leases and slices, once; a slice's owner takes a few octets.
    Leases(Leases),
    /// The last, with how much there was.
    End(Count),
}

/// How much a snapshot holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Count {
    zones: u64,
    records: u64,
    requests: u64,
    leases: u64,
}

/// Why pieces make no registry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    /// A piece that this program does not know.
    #[error("piece {piece} of the snapshot: {cause}")]
    Piece {
        /// Which, from 0.
        piece: u64,
        /// Why.
        cause: SchemaError,
    },
    /// A piece where it makes no sense, or one is missing.
    #[error("piece {piece} of the snapshot is out of place, or one before it is missing")]
    Order {
        /// Which, from 0.
        piece: u64,
    },
    /// A zone's records make no zone.
    #[error("the records of the zone {0} in the snapshot make no zone")]
    Zone(Name),
    /// The end has not come.
    #[error("the snapshot ends after {0} pieces, and is not whole")]
    Cut(u64),
}

impl SnapshotError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Piece { cause, .. } => cause.reason(),
            Self::Order { .. } => "snapshot-order",
            Self::Zone(_) => "snapshot-zone",
            Self::Cut(_) => "snapshot-cut",
        }
    }
}

impl Registry {
    /// Gives the registry's pieces one after another to `write`, and ends with the first error that it returns.
    ///
    /// # Errors
    /// That of `write`.
    pub fn encode<E>(&self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut count = Count::default();
        let mut put = |piece: &Piece| write(&postcard::to_stdvec(piece).unwrap_or_default());
        put(&Piece::Head { schema: self.schema, now: self.now })?;
        for Held { zone, reads } in self.zones.values() {
            count.zones += 1;
            put(&Piece::Zone { apex: zone.apex().clone(), reads: *reads })?;
            let mut records = Vec::with_capacity(TOGETHER);
            for entry in in_order(zone) {
                count.records += 1;
                records.push(entry);
                if records.len() == TOGETHER {
                    put(&Piece::Records(std::mem::take(&mut records)))?;
                }
            }
            if !records.is_empty() {
                put(&Piece::Records(records))?;
            }
        }
        let mut requests = Vec::with_capacity(TOGETHER);
        for (at, request, reply) in self.recent.iter() {
            count.requests += 1;
            requests.push((at, request, reply.clone()));
            if requests.len() == TOGETHER {
                put(&Piece::Requests(std::mem::take(&mut requests)))?;
            }
        }
        if !requests.is_empty() {
            put(&Piece::Requests(requests))?;
        }
        if self.schema > FIRST_SCHEMA {
            count.leases = 1;
            put(&Piece::Leases(Leases::clone(&self.leases)))?;
        }
        put(&Piece::End(count))
    }
}

/// A zone's records in the one order that does not depend on how the zone came to be.
fn in_order(zone: &Zone) -> impl Iterator<Item = Entry> + '_ {
    let mut nodes: Vec<&Node> = zone.nodes().filter(|node| node.has_records()).collect();
    nodes.sort_unstable_by(|one, other| one.wire().cmp(other.wire()));
    let sets = nodes.into_iter().flat_map(|node| node.sets().map(move |set| (node, set)));
    sets.flat_map(move |(node, set): (&Node, &Rrset)| {
        set.rdatas(zone.apex()).map(move |rdata| Entry {
            name: node.name(),
            rtype: set.rtype(),
            ttl: set.ttl(),
            rdata: rdata.into(),
        })
    })
}

/// Makes a registry of pieces.
#[derive(Debug)]
pub struct Decoder {
    registry: Registry,
    /// The newest schema that the program knows.
    knows: u8,
    pieces: u64,
    count: Count,
    /// The zone that began last, and its records so far.
    zone: Option<(Name, Reads, Vec<Entry>)>,
    whole: bool,
}

impl Decoder {
    /// At the beginning, for a program that knows schemas up to `knows`. `seed` is that of the zones beside which the
    /// registry's are served.
    #[must_use]
    pub fn new(seed: Seed, knows: u8) -> Self {
        Self { registry: Registry::new(seed), knows, pieces: 0, count: Count::default(), zone: None, whole: false }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`SnapshotError`]; then the decoder is of no more use.
    pub fn piece(&mut self, octets: &[u8]) -> Result<(), SnapshotError> {
        let number = self.pieces;
        self.pieces += 1;
        let order = SnapshotError::Order { piece: number };
        let read = postcard::from_bytes(octets);
        let malformed = |_| SnapshotError::Piece { piece: number, cause: SchemaError::Malformed };
        if self.whole || (number == 0) != matches!(read, Ok(Piece::Head { .. })) {
            return Err(order);
        }
        match read.map_err(malformed)? {
            Piece::Head { schema, .. } if schema > self.knows => {
                let cause = SchemaError::TooNew { schema, knows: self.knows };
                return Err(SnapshotError::Piece { piece: number, cause });
            }
            Piece::Head { schema, now } => (self.registry.schema, self.registry.now) = (schema, now),
            Piece::Zone { apex, reads } => {
                self.close_zone()?;
                self.count.zones += 1;
                self.zone = Some((apex, reads, Vec::new()));
            }
            Piece::Records(records) => {
                let (_, _, entries) = self.zone.as_mut().ok_or(order)?;
                self.count.records += records.len() as u64;
                entries.extend(records);
            }
            Piece::Requests(requests) => {
                self.close_zone()?;
                self.count.requests += requests.len() as u64;
                for (at, request, reply) in requests {
                    self.registry.recent.remember(at, request, reply);
                }
            }
            Piece::Leases(leases) => {
                self.close_zone()?;
                self.count.leases += 1;
                self.registry.leases = Arc::new(leases);
            }
            Piece::End(count) => {
                self.close_zone()?;
                if count != self.count {
                    return Err(order);
                }
                self.whole = true;
            }
        }
        Ok(())
    }

    fn close_zone(&mut self) -> Result<(), SnapshotError> {
        let Some((apex, reads, entries)) = self.zone.take() else { return Ok(()) };
        let loaded = Zone::received(&apex, self.registry.seed, &entries);
        let zone = loaded.map_err(|_| SnapshotError::Zone(apex.clone()))?.zone;
        self.registry.zones.insert(apex.wire().into(), Held::new(zone, reads));
        Ok(())
    }

    /// The registry.
    ///
    /// # Errors
    /// [`SnapshotError::Cut`] when the end has not come.
    pub fn finish(self) -> Result<Registry, SnapshotError> {
        if self.whole { Ok(self.registry) } else { Err(SnapshotError::Cut(self.pieces)) }
    }
}
