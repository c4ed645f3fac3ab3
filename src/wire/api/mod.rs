//! The JSON of Peak's API: what changes of a zone, sets of records and refusals look like, for the server and for the
//! commands that talk to it. `src/peak/api/openapi.yaml` describes the same.
//!
//! Records stand as in zone files: a type by its mnemonic or as `TYPEn`, data in presentation form, names completed with
//! the zone's where they have no final dot, `@` for the zone itself. What is given out has absolute names.

mod change;
mod request;
mod set;
mod slices;

pub use change::{ApiFault, Batch, Change, Changed, Changes, MOST, Outcome, Place, Require};
pub use request::{BadKey, LONGEST_KEY, request_number};
pub use set::RecordSet;
pub use slices::SlicesAsk;

use serde::{Deserialize, Serialize};

/// A zone that the server answers for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ZoneInfo {
    /// The apex.
    pub name: String,
    /// The serial in its SOA record.
    pub serial: u32,
    /// How many names have records or lie above one that has.
    pub names: u64,
    /// Whether the zone's records are the registry's, and may be changed at any node.
    pub replicated: bool,
    /// `available` or `strict`: when the questions of a replicated zone are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<String>,
}

/// The zones that the server answers for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ZoneList {
    /// In the order of their names.
    pub zones: Vec<ZoneInfo>,
}

/// What is to be changed of a zone besides its records.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ZonePatch {
    /// `available` or `strict`.
    pub reads: String,
}

/// The records of a zone, or those of them that were asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Records {
    /// The apex.
    pub zone: String,
    /// The serial of the version that the records are of.
    pub serial: u32,
    /// The sets, in the order of their names (RFC 4034 §6.1) and types.
    pub sets: Vec<RecordSet>,
}

/// Why a request was not done (RFC 9457).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs.
    pub reason: String,
    /// What happened, and who can act.
    pub detail: String,
}
