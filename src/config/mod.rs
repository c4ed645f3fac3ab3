//! Configuration: raw form to checked form, one per role; every fault reported with its place.

pub mod common;
mod section;
pub mod sidecar;
pub mod values;
