//! The rules. Pure: no async, clock, randomness, log, socket or environment; all of that arrives as arguments.

pub mod inject;
pub mod lists;
mod name;
pub(crate) mod octets;
pub mod registry;
pub mod ssa;
pub mod token;
pub mod zone;

pub use name::{Name, NameError};

/// Wall-clock time: whole seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub struct UnixSeconds(pub u64);

/// Wall-clock time: whole milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
pub struct UnixMillis(pub u64);
