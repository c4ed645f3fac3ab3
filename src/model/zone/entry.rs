//! A record on its own, as zone files, transfers and updates bring it.

use serde::{Deserialize, Serialize};

use crate::model::Name;

/// One record: class IN, data in uncompressed wire form.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The owner.
    pub name: Name,
    /// The type.
    pub rtype: u16,
    /// The time to live in seconds.
    pub ttl: u32,
    /// The data.
    #[serde(with = "crate::model::octets")]
    pub rdata: Box<[u8]>,
}
