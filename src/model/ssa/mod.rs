//! Structured Service Addressing: spaces, rules, computing and checking addresses (SSA.md).
//!
//! Everything here is arithmetic on its arguments. [`Rule::compute`] and [`Rule::check`] allocate nothing.
//!
//! ```text
//! APL items ── space ──┐                  ┌── compute   inputs, draws → an address
//!                      ├── parse ── rule ─┼── check     an address, what is known → the first thing wrong
//! the rule's text ─────┘                  └── explain   the same, every field with its reasons
//! ```

mod bits;
mod candidates;
mod check;
mod compute;
mod content_key;
mod explain;
mod hex_key;
mod keyed_hash;
mod layout;
mod parse;
pub mod plan;
mod rule;
mod secret;
mod slice;
mod space;
#[cfg(test)]
mod tests;

pub use check::{Missing, Verdict};
pub use content_key::Asked;
pub use explain::{Expected, Explanation, FieldPart, PrefixPart};
pub use rule::{ContentSource, MalformedRule, Rule, TokenMode};
pub use secret::Secret;
pub use slice::slice_prefixes;
pub use space::{AplItem, BadSpace, Space};

use std::net::Ipv6Addr;
use std::sync::Arc;

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
        id: Arc<str>,
    },
    /// `content` reads hexadecimal digits and the key is something else, or empty.
    #[error("the content key is not one or more hexadecimal digits")]
    ContentNotHex,
    /// The rule does not have this replica.
    #[error("there is no replica {replica}: the rule has replicas 0 to {}", replicas - 1)]
    NoSuchReplica {
        /// The replica asked for.
        replica: u8,
        /// How many there are, at least 1.
        replicas: u16,
    },
    /// No draw gave an address in the space with the work done.
    #[error("none of the draws gave an address inside the space with its work done")]
    NoDraw,
}

impl ComputeError {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSecret { .. } => "secret-unknown",
            Self::ContentNotHex => "content-not-hex",
            Self::NoSuchReplica { .. } => "no-such-replica",
            Self::NoDraw => "no-draw",
        }
    }
}

/// The first thing that is wrong with a destination (SSA.md §3): `prefix`, the name of a field, or `rule` where there
/// is no rule at all.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("{}", .0)]
pub struct Wrong(pub &'static str);

/// The rule a client uses at `now`: the largest `gen` whose `from` is not in the future; of equal ones the larger
/// `from`, then the octet-wise larger text (SSA.md §1).
#[must_use]
pub fn current(rules: &[Rule], now: UnixSeconds) -> Option<&Rule> {
    rules.iter().filter(|rule| rule.from() <= now).max_by(|one, other| order(one).cmp(&order(other)))
}

/// What a client goes by when it picks one of several rules.
fn order(rule: &Rule) -> (u32, UnixSeconds, &[u8]) {
    (rule.generation(), rule.from(), rule.text().as_bytes())
}

/// Checks a destination against several rules: it is right when it fits any of them, otherwise what is wrong by the
/// rule a client would use now (without a time, by the one with the largest `gen`).
///
/// # Errors
/// The first thing wrong by that rule; where no rule is in use yet, by the first of them. `rule` where there is none:
/// nothing fits no rule.
pub fn check_any(rules: &[Rule], space: &Space, destination: Ipv6Addr, known: &Known<'_>) -> Result<(), Wrong> {
    let in_use = current(rules, known.now.unwrap_or(UnixSeconds(u64::MAX))).or(rules.first()).ok_or(Wrong("rule"))?;
    // Most addresses follow the rule in use, so it is asked first.
    let wrong = match in_use.check(space, destination, known) {
        Ok(()) => return Ok(()),
        Err(wrong) => wrong,
    };
    let fits_another = rules
        .iter()
        .filter(|&rule| !std::ptr::eq(rule, in_use))
        .any(|rule| rule.check(space, destination, known).is_ok());
    if fits_another { Ok(()) } else { Err(wrong) }
}
