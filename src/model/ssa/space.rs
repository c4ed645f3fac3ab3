//! The service space: what an APL record set says (SSA.md §1).

use std::net::Ipv6Addr;
use std::str::FromStr;

use ipnet::Ipv6Net;

/// One IPv6 item of an APL record: `[!]2:prefix/len`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AplItem {
    /// `!`: the addresses are excluded.
    pub negated: bool,
    /// The addresses; bits past the length are zero.
    pub prefix: Ipv6Net,
}

impl FromStr for AplItem {
    type Err = BadSpace;

    fn from_str(_text: &str) -> Result<Self, BadSpace> {
        todo!()
    }
}

/// Why APL items make no space.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSpace {
    /// Not `[!]2:prefix/len`.
    #[error("{text:?} is no APL item of the form [!]2:prefix/len")]
    NotAnItem {
        /// What was given.
        text: Box<str>,
    },
    /// No positive IPv6 item: a legacy name.
    #[error("no positive IPv6 item")]
    Empty,
}

/// A service's whole address space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Space {
    prefixes: Box<[Ipv6Net]>,
}

impl Space {
    /// The space of all APL items of a name together.
    ///
    /// # Errors
    /// [`BadSpace::Empty`] without a positive item.
    pub fn new(_items: &[AplItem]) -> Result<Self, BadSpace> {
        todo!()
    }

    /// Whether `address` is in the space: some item matches and none of its longest matches is negated.
    #[must_use]
    pub fn contains(&self, _address: Ipv6Addr) -> bool {
        todo!()
    }

    /// The positive items that lie in no other, each once, by address, then length. Never empty.
    #[must_use]
    pub fn prefixes(&self) -> &[Ipv6Net] {
        &self.prefixes
    }
}
