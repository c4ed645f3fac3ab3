//! Structured Service Addressing: spaces, rules, computing and checking addresses (SSA.md).
//!
//! Everything here is arithmetic on its arguments. `compute` and `check` allocate nothing.

mod rule;
mod secret;
mod space;

pub use rule::{ContentSource, Layout, MalformedRule, Rule, TokenMode};
pub use secret::Secret;
pub use space::{AplItem, BadSpace, Space};

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::UnixSeconds;

/// What a client knows when it computes an address.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The caller's own address; an IPv4-only program has its pod's.
    pub source: Ipv6Addr,
    /// The content key, octets as they stand in the request; empty where the rule reads none.
    pub content: &'a [u8],
    /// The secret that the rule's `secret=ID` names, where this client holds it.
    pub secret: Option<&'a Secret>,
    /// Wall-clock time.
    pub now: UnixSeconds,
}

/// What a checker knows; what is `None` is not checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The caller's address.
    pub source: Option<Ipv6Addr>,
    /// The content key.
    pub content: Option<&'a [u8]>,
    /// The secret that the rule's `secret=ID` names.
    pub secret: Option<&'a Secret>,
    /// Wall-clock time.
    pub now: Option<UnixSeconds>,
}

/// Why no address could be computed for a replica.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ComputeError {
    /// The rule has a `hop` field and this client does not hold the secret.
    #[error("the rule hops with secret {id:?}, which this client does not hold")]
    NoSecret {
        /// The secret's name.
        id: Box<str>,
    },
    /// `content` reads hexadecimal digits and the key is something else, or empty.
    #[error("the content key is not one or more hexadecimal digits")]
    ContentNotHex,
    /// No draw gave an address in the space with the work done.
    #[error("none of the draws gave an address inside the space with its work done")]
    NoDraw,
}

/// The first thing that is wrong with a destination (SSA.md §3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("{}", .0)]
pub struct Wrong(pub &'static str);

impl Rule {
    /// The address for exactly `replica` (SSA.md §2), from `draw`, which gives 128 random bits a call.
    ///
    /// The rule must fit the space ([`Rule::parse`] saw to it).
    ///
    /// # Errors
    /// Why this replica has none; the client goes on to the next replica.
    pub fn compute(
        &self,
        _space: &Space,
        _inputs: &Inputs<'_>,
        _replica: u8,
        _draw: &mut dyn FnMut() -> u128,
    ) -> Result<Ipv6Addr, ComputeError> {
        todo!()
    }

    /// Checks a destination against this one rule (SSA.md §3).
    ///
    /// # Errors
    /// The first thing that is wrong: `prefix` or the name of a field.
    pub fn check(&self, _space: &Space, _destination: Ipv6Addr, _known: &Known<'_>) -> Result<(), Wrong> {
        todo!()
    }
}

/// The rule a client uses at `now`: the largest `gen` whose `from` is not in the future (SSA.md §1).
#[must_use]
pub fn current(_rules: &[Rule], _now: UnixSeconds) -> Option<&Rule> {
    todo!()
}

/// Checks a destination against several rules: it is right when it fits any of them, otherwise what is wrong by the
/// rule a client would use now.
///
/// # Errors
/// The first thing wrong by that rule.
pub fn check_any(_rules: &[Rule], _space: &Space, _destination: Ipv6Addr, _known: &Known<'_>) -> Result<(), Wrong> {
    todo!()
}

/// The prefixes of the slices `[first, first + count)` of 2^`slice_bits` in `prefix`, as few as possible, in order.
#[must_use]
pub fn slice_prefixes(_prefix: Ipv6Net, _slice_bits: u8, _first: u128, _count: u128) -> Vec<Ipv6Net> {
    todo!()
}
