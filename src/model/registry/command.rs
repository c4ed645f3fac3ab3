//! What can be asked of the registry, and what it replies.
//!
//! A command is one value that says everything except when: the node that puts it into the log adds the time. Its
//! octets begin with the version of the schema they need, so that a node that does not know it can say so.

use serde::{Deserialize, Serialize};

use super::lease;
use crate::model::Name;
use crate::model::zone::{Entry, Update, UpdateError};

/// The newest schema of commands and snapshots that this program knows. A new kind of command, or another form of one, is
/// a new schema; commands of older ones stay as they are.
///
/// | schema | brought |
/// |---|---|
/// | 1 | zones |
/// | 2 | leases and slices |
pub const SCHEMA: u8 = 2;
/// The first of them.
pub const FIRST_SCHEMA: u8 = 1;

/// Names one request among all of all clients: whoever asks draws it, and says it again when asking again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct RequestId(pub u128);

/// A command to the registry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Command {
    /// With it, asking again within the memory of requests gives the reply of the first time and changes nothing.
    pub request: Option<RequestId>,
    /// What is asked for.
    pub op: Op,
}

/// What a command asks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Op {
    /// Changes records: all of these updates in order, or none of them.
    Update(Vec<ZoneUpdate>),
    /// Takes a new zone in.
    Create {
        /// Its apex.
        apex: Name,
        /// When its questions are answered.
        reads: Reads,
        /// All of its records.
        entries: Vec<Entry>,
    },
    /// Gives a zone these records in the place of all it has. Its serial is the one given where that is newer, and the
    /// next one otherwise.
    Import {
        /// Its apex.
        apex: Name,
        /// All of its records.
        entries: Vec<Entry>,
    },
    /// Lets a zone go.
    Remove {
        /// Its apex.
        apex: Name,
    },
    /// Changes when a zone's questions are answered.
    Reads {
        /// Its apex.
        apex: Name,
        /// When they are.
        reads: Reads,
    },
    /// Changes leases and slices, in order. None of these is ever refused: what no longer fits changes nothing.
    Leases(Vec<lease::Command>),
}

/// An update of one zone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ZoneUpdate {
    /// The zone's apex.
    pub zone: Name,
    /// What must hold, and what changes.
    pub update: Update,
}

/// When a zone's questions are answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Reads {
    /// Always, from what the node has; it may be behind.
    #[default]
    Available,
    /// Only while the node knows that it has everything that was acknowledged before the question came.
    Strict,
}

/// What became of a command.
pub type Reply = Result<Applied, Refused>;

/// What a command that was not refused did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Applied {
    /// To zones: a step for each update, or one for the zone that was created, imported or set.
    Zones(Vec<Step>),
    /// The zone is gone.
    Removed,
    /// To leases, an outcome for each command.
    Leases(Vec<lease::Outcome>),
}

/// What became of a zone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    /// Its serial now.
    pub serial: u32,
    /// False when what was asked for was so already.
    pub changed: bool,
}

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum Refused {
    /// An update's prerequisite does not hold, or one of its changes cannot be.
    #[error("{cause} (update {} of the command, of the zone {zone})", .index + 1)]
    Update {
        /// Which of the command's updates, from 0.
        index: u32,
        /// Its zone.
        zone: Name,
        /// Why.
        cause: UpdateError,
    },
    /// The registry holds no such zone.
    #[error("the registry holds no zone {0}")]
    NoZone(Name),
    /// The zone to create is there.
    #[error("the registry holds the zone {0} already")]
    ZoneExists(Name),
    /// The records make no zone.
    #[error("the records of the zone {zone} have {faults} faults")]
    Faulty {
        /// The zone.
        zone: Name,
        /// How many.
        faults: u32,
    },
}

impl Refused {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Update { cause, .. } => cause.reason(),
            Self::NoZone(_) => "registry-no-zone",
            Self::ZoneExists(_) => "registry-zone-exists",
            Self::Faulty { .. } => "registry-zone-faulty",
        }
    }
}

/// Why octets are no command, or no snapshot, that this program knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SchemaError {
    /// Written by a newer program.
    #[error("it is of schema {schema}, and this program knows {knows}: a newer program is needed")]
    TooNew {
        /// Its schema.
        schema: u8,
        /// The newest that the program knows.
        knows: u8,
    },
    /// Nothing that any version has written.
    #[error("it is malformed")]
    Malformed,
}

impl SchemaError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooNew { .. } => "schema-too-new",
            Self::Malformed => "schema-malformed",
        }
    }
}

impl Command {
    /// The oldest schema in which the command can be said.
    #[must_use]
    pub const fn schema(&self) -> u8 {
        match self.op {
            Op::Update(_) | Op::Create { .. } | Op::Import { .. } | Op::Remove { .. } | Op::Reads { .. } => {
                FIRST_SCHEMA
            }
            Op::Leases(_) => 2,
        }
    }

    /// The command's octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory does not fail, and none of the types refuses to be written.
        postcard::to_extend(self, vec![self.schema()]).unwrap_or_default()
    }

    /// The schema that a command's octets need, before anything else of them is looked at.
    #[must_use]
    pub fn schema_of(octets: &[u8]) -> Option<u8> {
        octets.first().copied()
    }

    /// The command with these octets, for a program that knows schemas up to `knows`.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn decode(octets: &[u8], knows: u8) -> Result<Self, SchemaError> {
        match octets.split_first() {
            Some((&schema, _)) if schema > knows => Err(SchemaError::TooNew { schema, knows }),
            Some((FIRST_SCHEMA.., body)) => postcard::from_bytes(body).map_err(|_| SchemaError::Malformed),
            _ => Err(SchemaError::Malformed),
        }
    }
}
