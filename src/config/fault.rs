//! What is wrong with a configuration: every fault with its place, its key, its value and what was expected.

use std::borrow::Cow;
use std::fmt;

use super::place::Place;

/// One fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where it is.
    pub place: Place,
    /// The key's path, such as `inbound.services[0].name`; empty for the file as a whole.
    pub key: String,
    /// The value, as it was written, when it helps and is no secret.
    pub value: Option<String>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Cause {
    /// The file cannot be read.
    #[error("cannot be read: {error}; {advice}")]
    Unreadable {
        /// What the system said.
        error: String,
        /// Who can do what about it.
        advice: &'static str,
    },
    /// The text is no YAML.
    #[error("not valid YAML: {message}")]
    Syntax {
        /// What the parser said.
        message: String,
    },
    /// The text is YAML, but of a kind that configurations do not need.
    #[error("{what} cannot be used here")]
    Unused {
        /// What was found.
        what: &'static str,
    },
    /// Nothing reads this key.
    #[error("unknown key{}", suggestion(.meant.as_deref()))]
    UnknownKey {
        /// The key that was probably meant.
        meant: Option<String>,
    },
    /// The key stands twice in one section.
    #[error("given twice: the first is on line {first_line}")]
    Twice {
        /// Line of the first.
        first_line: u32,
    },
    /// A required key is missing.
    #[error("missing: expected {expected}")]
    Missing {
        /// What the value would be.
        expected: &'static str,
    },
    /// A list where a section belongs, and the like.
    #[error("found {found}, expected {expected}")]
    WrongKind {
        /// What stands there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// The value cannot be read as what it must be.
    #[error("expected {expected}{}", because(.detail))]
    Value {
        /// What it must be, with an example.
        expected: &'static str,
        /// What exactly is wrong, when more can be said.
        detail: Cow<'static, str>,
    },
    /// The value is well written, but does not fit the rest.
    #[error("{rule}")]
    Rule {
        /// What does not fit, and what would.
        rule: Cow<'static, str>,
    },
}

fn suggestion(meant: Option<&str>) -> String {
    meant.map(|key| format!(": did you mean {key}?")).unwrap_or_default()
}

fn because(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

impl Cause {
    /// A stable word for machines.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Syntax { .. } => "syntax",
            Self::Unused { .. } => "not-used-here",
            Self::UnknownKey { .. } => "unknown-key",
            Self::Twice { .. } => "given-twice",
            Self::Missing { .. } => "missing",
            Self::WrongKind { .. } => "wrong-kind",
            Self::Value { .. } => "bad-value",
            Self::Rule { .. } => "does-not-fit",
        }
    }
}

impl Fault {
    pub(super) fn new(place: Place, key: impl Into<String>, cause: Cause) -> Self {
        Self { place, key: key.into(), value: None, cause }
    }

    /// Adds the value; one that looks like a secret, put where the name of its file belongs, is not repeated.
    pub(super) fn with_value(mut self, text: &str) -> Self {
        let shown = if looks_secret(text) { "(withheld: it looks like a secret)".to_owned() } else { shortened(text) };
        self.value = Some(shown);
        self
    }
}

/// Whether `text` is rather a key or a token than the name of something.
pub(super) fn looks_secret(text: &str) -> bool {
    let long_hex = text.len() >= 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    long_hex || text.contains("-----BEGIN") || text.contains("PRIVATE KEY") || text.starts_with("eyJ")
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("{shown:?}")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        write!(f, "{}", self.cause)
    }
}

/// All faults of a configuration, at least one, by place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// None when there is nothing wrong.
    pub(super) fn of(mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort_by(|one, other| (&one.place, &one.key).cmp(&(&other.place, &other.key)));
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults, by place.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Faults {
    /// One fault a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(value: &str) -> Fault {
        let cause = Cause::Value { expected: "a file name", detail: Cow::Borrowed("") };
        Fault::new(Place::Default, "identity.signing_key", cause).with_value(value)
    }

    #[test]
    fn what_looks_like_a_secret_is_not_repeated() {
        let secrets = [
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA",
            "000102030405060708090a0b0c0d0e0f",
            "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
        ];
        for secret in secrets {
            let text = fault(secret).to_string();
            assert!(!text.contains(secret) && !text.contains(&secret[8..20]), "{text}");
        }
    }

    #[test]
    fn a_fault_names_place_key_value_and_what_was_expected() {
        assert_eq!(fault("a/b").to_string(), "default: identity.signing_key: \"a/b\": expected a file name");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert!(fault(&"x y".repeat(100)).to_string().chars().count() < 160);
    }
}
