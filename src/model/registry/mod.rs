//! The registry: what all nodes of a Peak hold alike, as one value that changes by commands alone.
//!
//! Owns the replicated zones and leases ([`lease`]), the rules by which commands change them, and the memory of requests that makes a retry
//! harmless. How commands are agreed on, kept on disk and carried between nodes is `peak::store`'s.
//!
//! ```text
//!  (time, Command) ──► seen before? ──yes──► the reply of then
//!                          │ no
//!                          ▼
//!                      Op ──► Reply, remembered ──► and Effects: what whoever shows the zones has to know
//! ```
//!
//! Invariants: the same commands at the same times make the same registry, to the octet of its snapshot, on every
//! node; a refused command changes nothing but the memory of requests; time never goes back. Owner names are kept in
//! lower case, so that their spelling cannot depend on who came first (RFC 4343 §3: case means nothing).

mod command;
pub mod lease;
mod recent;
mod snapshot;
#[cfg(test)]
mod tests;
mod zones;

pub use command::{
    Applied, Command, FIRST_SCHEMA, Op, Reads, Refused, Reply, RequestId, SCHEMA, SchemaError, Step, ZoneUpdate,
};
pub use snapshot::{Decoder, SnapshotError};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::zone::{Delta, Seed, Zone};
use crate::model::{Name, UnixMillis};
use lease::Leases;
use recent::Recent;

/// The replicated state. Cloning it costs a few pointers for each zone, and the memory of requests.
#[derive(Clone, Debug)]
pub struct Registry {
    seed: Seed,
    /// The newest schema of any command so far: that of its snapshots, so that who knew the commands knows those.
    schema: u8,
    /// The latest time of any command.
    now: UnixMillis,
    /// By apex in lower case, in wire form.
    zones: BTreeMap<Box<[u8]>, Held>,
    leases: Arc<Leases>,
    recent: Recent,
}

/// A replicated zone.
#[derive(Clone, Debug)]
pub struct Held {
    zone: Arc<Zone>,
    reads: Reads,
}

impl Held {
    fn new(mut zone: Zone, reads: Reads) -> Self {
        zone.set_strict(reads == Reads::Strict);
        Self { zone: Arc::new(zone), reads }
    }

    /// The zone's contents.
    #[must_use]
    pub fn zone(&self) -> &Arc<Zone> {
        &self.zone
    }

    /// When its questions are answered.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// What its sender is told.
    pub reply: Reply,
    /// What changed, in order.
    pub effects: Vec<Effect>,
}

/// A change to what is served.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A zone has gone on by this step; what it is after all of them is in the registry.
    Changed(Arc<Delta>),
    /// The zone is new, or its questions are answered by another rule.
    Held(Held),
    /// The zone is no more.
    Gone(Name),
}

impl Registry {
    /// A registry that holds nothing. `seed` is that of the zones beside which its zones are served, and none of
    /// what is replicated.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            schema: FIRST_SCHEMA,
            now: UnixMillis(0),
            zones: BTreeMap::new(),
            leases: Arc::default(),
            recent: Recent::default(),
        }
    }

    /// That of the zones beside which its zones are served.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The schema that whoever goes on from this registry has to know.
    #[must_use]
    pub fn schema(&self) -> u8 {
        self.schema
    }

    /// The latest time of any command: the time by which everything in the registry is judged.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// The zone at `apex`.
    #[must_use]
    pub fn zone(&self, apex: &Name) -> Option<&Held> {
        self.zones.get(apex.to_lowercase().wire())
    }

    /// All zones, by the octets of their names.
    pub fn zones(&self) -> impl Iterator<Item = &Held> {
        self.zones.values()
    }

    /// The pods that serve, and their slices.
    #[must_use]
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Applies a command that was agreed on at `at`; an earlier time than the registry's own counts as that. Zones that
    /// nobody else has are changed in place: commands that are shown together cost little more than their records.
    pub fn apply(&mut self, at: UnixMillis, command: &Command) -> Outcome {
        self.now = self.now.max(at);
        self.schema = self.schema.max(command.schema());
        if let Some(reply) = command.request.and_then(|request| self.recent.reply(request)) {
            return Outcome { reply: reply.clone(), effects: Vec::new() };
        }
        let mut effects = Vec::new();
        let reply = match &command.op {
            Op::Update(updates) => self.update(updates, &mut effects),
            Op::Create { apex, reads, entries } => self.create(apex, *reads, entries, &mut effects),
            Op::Import { apex, entries } => self.import(apex, entries, &mut effects),
            Op::Remove { apex } => self.remove(apex, &mut effects),
            Op::Reads { apex, reads } => self.set_reads(apex, *reads, &mut effects),
            Op::Leases(commands) => {
                let leases = Arc::make_mut(&mut self.leases);
                Ok(Applied::Leases(commands.iter().map(|command| leases.apply(command)).collect()))
            }
        };
        if let Some(request) = command.request {
            self.recent.remember(self.now, request, reply.clone());
        }
        Outcome { reply, effects }
    }
}
