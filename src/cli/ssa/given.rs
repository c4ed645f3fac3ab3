//! What the flags of `funicular ssa` give: texts to checked values, each fault named with its flag.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::model::UnixSeconds;
use crate::model::ssa::{self, AplItem, BadSpace, Inputs, Known, Rule, Secret, Space};
use crate::ops::clock;

/// Flags that compute, check and explain share.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// The items of the name's APL records, as [!]2:PREFIX/LENGTH; other address families are ignored.
    #[arg(long, value_name = "ITEM", required = true, num_args = 1..)]
    apl: Vec<String>,
    /// A rule as DNS publishes it. Of several, the one in use is computed with, and fitting any is right.
    #[arg(long, value_name = "TEXT", default_value = "v=ssa1", allow_hyphen_values = true)]
    rule: Vec<String>,
    /// The caller's IPv6 address.
    #[arg(long, value_name = "ADDR", allow_hyphen_values = true)]
    source: Option<String>,
    /// The content key, octet for octet as it stands in the request.
    #[arg(long, value_name = "KEY", conflicts_with = "content_hex", allow_hyphen_values = true)]
    content: Option<String>,
    /// The content key's octets in hexadecimal.
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    content_hex: Option<String>,
    /// The time in seconds since 1970; the clock's when not given.
    #[arg(long, value_name = "UNIX", allow_hyphen_values = true)]
    now: Option<String>,
    /// The secret that the rule's secret=ID names, 32 hexadecimal digits.
    #[arg(long, value_name = "HEX32", env = "FUNICULAR_SSA_SECRET", hide_env_values = true)]
    secret: Option<Hidden>,
}

/// Text that is never printed.
#[derive(Clone)]
struct Hidden(String);

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    /// A value is not what its flag takes.
    #[error("{flag} {value:?}: {expected}")]
    Value { flag: &'static str, value: Box<str>, expected: Box<str> },
    /// The rule needs a flag that is not there.
    #[error("{flag} is missing: {because}")]
    Missing { flag: &'static str, because: Box<str> },
    /// The APL items make no space.
    #[error("--apl: {0}")]
    Space(BadSpace),
    /// The secret, which is not repeated here, is not 32 hexadecimal digits.
    #[error("--secret: expected 32 hexadecimal digits, found {characters} characters")]
    Secret { characters: usize },
}

impl UsageError {
    pub(super) fn value(flag: &'static str, value: &str, expected: impl Into<Box<str>>) -> Self {
        Self::Value { flag, value: value.into(), expected: expected.into() }
    }
}

/// Checked values.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) space: Space,
    /// Never empty.
    pub(super) rules: Vec<Rule>,
    pub(super) source: Option<Ipv6Addr>,
    pub(super) content: Option<Vec<u8>>,
    pub(super) secret: Option<Secret>,
    pub(super) now: UnixSeconds,
}

impl Given {
    /// # Errors
    /// The first flag that is wrong.
    pub(super) fn subject(&self) -> Result<Subject, UsageError> {
        let space =
            AplItem::list(&self.apl.join(" ")).and_then(|items| Space::new(&items)).map_err(UsageError::Space)?;
        let rule = |text: &String| {
            Rule::parse(text, &space).map_err(|error| UsageError::value("--rule", text, error.to_string()))
        };
        let rules = self.rule.iter().map(rule).collect::<Result<_, _>>()?;
        let source = self.source.as_deref().map(|text| address("--source", text)).transpose()?;
        Ok(Subject { space, rules, source, content: self.content()?, secret: self.secret()?, now: self.now()? })
    }

    fn content(&self) -> Result<Option<Vec<u8>>, UsageError> {
        let Some(hex) = &self.content_hex else { return Ok(self.content.clone().map(String::into_bytes)) };
        let octets = octets(hex)
            .ok_or_else(|| UsageError::value("--content-hex", hex, "expected two hexadecimal digits for each octet"))?;
        Ok(Some(octets))
    }

    fn secret(&self) -> Result<Option<Secret>, UsageError> {
        let Some(Hidden(hex)) = &self.secret else { return Ok(None) };
        let octets = octets(hex).and_then(|octets| octets.try_into().ok());
        let octets = octets.ok_or_else(|| UsageError::Secret { characters: hex.chars().count() })?;
        Ok(Some(Secret::new(octets)))
    }

    fn now(&self) -> Result<UnixSeconds, UsageError> {
        let Some(text) = &self.now else { return Ok(clock::now()) };
        let seconds = text.parse();
        seconds.map(UnixSeconds).map_err(|_| UsageError::value("--now", text, "expected whole seconds since 1970"))
    }
}

impl Subject {
    /// The rule in use.
    pub(super) fn current(&self) -> Option<&Rule> {
        ssa::current(&self.rules, self.now)
    }

    pub(super) fn known(&self) -> Known<'_> {
        Known {
            source: self.source,
            content: self.content.as_deref(),
            secret: self.secret.as_ref(),
            now: Some(self.now),
        }
    }

    /// What `rule` computes from.
    ///
    /// # Errors
    /// The flag that the rule needs and that was not given, or a replica that the rule does not have.
    pub(super) fn inputs(&self, rule: &Rule, replica: u8) -> Result<Inputs<'_>, UsageError> {
        let missing = |flag, because: &str| UsageError::Missing { flag, because: because.into() };
        if self.source.is_none() && rule.reads_source() {
            return Err(missing("--source", "the rule reads the caller's address"));
        }
        if self.content.is_none() && rule.reads_content() {
            return Err(missing("--content", "the rule reads a content key (the empty key is --content '')"));
        }
        if self.secret.is_none() && rule.needs_secret() {
            let id = rule.secret_id().unwrap_or_default();
            return Err(missing("--secret", &format!("the rule hops with the secret {id:?}")));
        }
        if u16::from(replica) >= rule.replicas() {
            let expected = match rule.replicas() {
                1 => "expected 0, as the rule has one replica".into(),
                replicas => format!("expected 0 to {}, as the rule has replicas={replicas}", replicas - 1),
            };
            return Err(UsageError::value("--replica", &replica.to_string(), expected));
        }
        Ok(Inputs {
            source: self.source.unwrap_or(Ipv6Addr::UNSPECIFIED),
            content: self.content.as_deref().unwrap_or_default(),
            secret: self.secret.as_ref(),
            now: self.now,
        })
    }
}

/// Reads the address of a flag.
pub(super) fn address(flag: &'static str, text: &str) -> Result<Ipv6Addr, UsageError> {
    text.parse().map_err(|_| UsageError::value(flag, text, "expected an IPv6 address such as 2001:db8::1"))
}

/// Reads the number of a replica.
pub(super) fn replica(text: &str) -> Result<u8, UsageError> {
    text.parse().map_err(|_| UsageError::value("--replica", text, "expected a number from 0 to 255"))
}

/// The octets that pairs of hexadecimal digits stand for.
pub(super) fn octets(hex: &str) -> Option<Vec<u8>> {
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    hex.len().is_multiple_of(2).then_some(())?;
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
