//! What the records of a service say: its space, its rules, its port (SSA.md §1).
//!
//! Takes record data as it came; which records stand at `NAME` and `_ssa.NAME`, and how fresh they are, is for who resolved
//! them. Which of the rules holds now is [`crate::model::ssa::current`]'s to say.

use std::cmp::Reverse;

use crate::model::ssa::{MalformedRule, Rule, Space};

use super::rdata::apl::{self, AplError};
use super::rdata::svcb::{Key, Svcb};
use super::rdata::txt;

#[cfg(test)]
mod tests;

/// The rule of a service that publishes none (SSA.md §1).
const DEFAULT_RULE: &str = "v=ssa1";

/// The parameters that this program understands, so that a record may call them mandatory (RFC 9460 §8). Protocols and
/// hints have no say in an address that is computed.
const UNDERSTOOD: [Key; 6] = [Key::ALPN, Key::NO_DEFAULT_ALPN, Key::PORT, Key::IPV4HINT, Key::IPV6HINT, Key::RULE];

/// The data of the records that a service may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// APL at the name.
    pub apl: &'a [&'a [u8]],
    /// SVCB at `_ssa.` below it.
    pub svcb: &'a [&'a [u8]],
    /// TXT at `_ssa.` below it.
    pub txt: &'a [&'a [u8]],
    /// Rules of local configuration.
    pub local: &'a [&'a str],
}

/// A name that offers Structured Service Addressing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// Its addresses.
    pub space: Space,
    /// Its rules that can be used, at least one.
    pub rules: Vec<Rule>,
    /// The port that overrides the one the application dialled (RFC 9460 §7.2).
    pub port: Option<u16>,
    /// What was left out, to be counted and logged.
    pub malformed: Vec<MalformedRule>,
}

/// Why a name is a legacy name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Legacy {
    /// It has no APL record with a positive IPv6 item.
    #[error("it publishes no IPv6 space in an APL record")]
    NoSpace,
    /// One of its APL records is malformed, which refuses them all.
    #[error("an APL record of it is malformed: {0}")]
    Apl(#[from] AplError),
    /// It publishes rules, and none can be used.
    #[error("none of its {} rules can be used", malformed.len())]
    NoUsableRule {
        /// What is wrong with each.
        malformed: Vec<MalformedRule>,
    },
}

impl Legacy {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoSpace => "no-space",
            Self::Apl(error) => error.reason(),
            Self::NoUsableRule { .. } => "no-usable-rule",
        }
    }
}

/// What the records of a name say together.
///
/// The items of all APL records make the space. The rules are those of the first source, in the order SVCB, TXT, local
/// configuration, in which any record carries one, malformed or not; without a source there is the default rule. An SVCB
/// record set with a malformed record counts as absent (RFC 9460 §2.2); aliases, and records that call a key mandatory
/// which this program does not know, carry nothing (RFC 9460 §2.4.2, §8). Every TXT record at `_ssa.` is a rule.
///
/// Of several ports, that beside a usable rule is taken, then of the smallest priority, then of the largest `gen`, then
/// the smallest.
///
/// # Errors
/// Why the name is a legacy name.
pub fn service(sources: &Sources<'_>) -> Result<Published, Legacy> {
    let mut items = Vec::new();
    for rdata in sources.apl {
        items.extend(apl::decode(rdata)?);
    }
    // Items that came as octets can fail in one way alone: none of them is positive.
    let space = Space::new(&items).map_err(|_| Legacy::NoSpace)?;

    let mut reader = RuleReader { space: &space, malformed: Vec::new() };
    let bindings = reader.bindings(sources.svcb);
    let port = bindings.iter().min_by_key(|binding| binding.rank()).and_then(|binding| binding.svcb.port());
    let rules: Vec<Rule> = if bindings.iter().any(|binding| binding.svcb.rule().is_some()) {
        bindings.into_iter().filter_map(|binding| binding.rule).collect()
    } else if !sources.txt.is_empty() {
        sources.txt.iter().filter_map(|rdata| reader.txt_rule(rdata)).collect()
    } else if !sources.local.is_empty() {
        sources.local.iter().filter_map(|text| reader.rule(text.as_bytes())).collect()
    } else {
        reader.rule(DEFAULT_RULE.as_bytes()).into_iter().collect()
    };

    let malformed = reader.malformed;
    if rules.is_empty() {
        return Err(Legacy::NoUsableRule { malformed });
    }
    Ok(Published { space, rules, port, malformed })
}

/// An SVCB record in service mode, and its rule where that can be used.
struct Binding {
    svcb: Svcb,
    rule: Option<Rule>,
}

impl Binding {
    /// The smaller, the rather this binding's port is the service's.
    fn rank(&self) -> (bool, u16, Reverse<u32>, Option<u16>) {
        let generation = self.rule.as_ref().map_or(0, Rule::generation);
        (self.rule.is_none(), self.svcb.priority(), Reverse(generation), self.svcb.port())
    }
}

/// Reads rules for a space and keeps account of those that are none.
struct RuleReader<'a> {
    space: &'a Space,
    malformed: Vec<MalformedRule>,
}

impl RuleReader<'_> {
    fn bindings(&mut self, records: &[&[u8]]) -> Vec<Binding> {
        let svcbs: Vec<Svcb> = match records.iter().map(|rdata| Svcb::decode(rdata)).collect() {
            Ok(svcbs) => svcbs,
            Err(error) => {
                self.malformed.push(MalformedRule {
                    part: error.to_string().into(),
                    reason: "expected a well-formed SVCB record set",
                });
                return Vec::new();
            }
        };
        let understood = |svcb: &Svcb| svcb.mandatory().all(|key| UNDERSTOOD.contains(&key));
        svcbs
            .into_iter()
            .filter(|svcb| svcb.priority() > 0 && understood(svcb))
            .map(|svcb| Binding { rule: svcb.rule().and_then(|text| self.rule(text)), svcb })
            .collect()
    }

    fn txt_rule(&mut self, rdata: &[u8]) -> Option<Rule> {
        let text = txt::strings(rdata).map(|strings| strings.concat()).unwrap_or_default();
        self.rule(&text)
    }

    fn rule(&mut self, text: &[u8]) -> Option<Rule> {
        let rule = match std::str::from_utf8(text) {
            Ok(text) => Rule::parse(text, self.space),
            Err(_) => {
                let part = String::from_utf8_lossy(&text[..text.len().min(64)]).into();
                Err(MalformedRule { part, reason: "expected printable ASCII" })
            }
        };
        rule.map_err(|malformed| self.malformed.push(malformed)).ok()
    }
}
