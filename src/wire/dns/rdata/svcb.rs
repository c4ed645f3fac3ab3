//! Service bindings, SVCB and HTTPS (RFC 9460): the octets, and what a service's record says in them.
//!
//! Invariant of [`Svcb`]: keys are strictly ascending, each known key's value has the form of §7, and every mandatory
//! key is there. The text form is read and written beside it, in `svcb_text`.

use std::fmt;
use std::str::FromStr;

use crate::model::Name;
use crate::wire::dns::cursor::{Reader, WireError};
use crate::wire::dns::text::decimal;

/// The key of a parameter.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key(pub u16);

impl Key {
    /// The keys that a client has to understand (§8).
    pub const MANDATORY: Self = Self(0);
    /// Protocols (§7.1).
    pub const ALPN: Self = Self(1);
    /// The scheme's own protocol is not spoken (§7.1).
    pub const NO_DEFAULT_ALPN: Self = Self(2);
    /// The port (§7.2).
    pub const PORT: Self = Self(3);
    /// Likely IPv4 addresses (§7.3).
    pub const IPV4HINT: Self = Self(4);
    /// Encrypted ClientHello (§14.3.2), opaque here.
    pub const ECH: Self = Self(5);
    /// Likely IPv6 addresses (§7.3).
    pub const IPV6HINT: Self = Self(6);
    /// A rule (SSA.md §1), of the private range.
    pub const RULE: Self = Self(65400);
}

/// The keys with a name of their own.
const NAMES: [(Key, &str); 7] = [
    (Key::MANDATORY, "mandatory"),
    (Key::ALPN, "alpn"),
    (Key::NO_DEFAULT_ALPN, "no-default-alpn"),
    (Key::PORT, "port"),
    (Key::IPV4HINT, "ipv4hint"),
    (Key::ECH, "ech"),
    (Key::IPV6HINT, "ipv6hint"),
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(key, _)| key == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "key{}", self.0),
        }
    }
}

impl FromStr for Key {
    type Err = ();

    /// A name in lower case, or `key` and a number up to 65535 without leading zeros (§2.1).
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((key, _)) = NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*key);
        }
        let digits = text.strip_prefix("key").ok_or(())?;
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        decimal(digits).filter(|_| !leading_zero).map(Self).ok_or(())
    }
}

/// One parameter.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Param {
    /// What it is.
    pub key: Key,
    /// Its value on the wire.
    pub value: Box<[u8]>,
}

/// A service binding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Svcb {
    priority: u16,
    target: Name,
    params: Box<[Param]>,
}

/// What is wrong with the parameters of a service binding. On the wire it makes a client ignore the whole record set
/// (§2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SvcbFault {
    /// A key comes twice, or (on the wire) not in ascending order.
    #[error("parameter {0} comes twice, or out of order")]
    Order(Key),
    /// A value has not the form of its key.
    #[error("the value of parameter {key} is not {expected}")]
    Value {
        /// The key.
        key: Key,
        /// What it should be.
        expected: &'static str,
    },
    /// `mandatory` names a key that is not there.
    #[error("parameter {0} is mandatory, and missing")]
    Mandatory(Key),
    /// `no-default-alpn` without `alpn` leaves no protocol at all (§7.1).
    #[error("parameter no-default-alpn needs alpn beside it")]
    NoProtocol,
}

/// Why octets are no service binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SvcbError {
    /// The data ends inside the priority, the target or a parameter, or the target is compressed.
    #[error("the data is cut short, or its target is no uncompressed name")]
    Data(#[from] WireError),
    /// The parameters are wrong.
    #[error(transparent)]
    Params(#[from] SvcbFault),
}

impl SvcbError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Data(_) => "svcb-data",
            Self::Params(SvcbFault::Order(_)) => "svcb-order",
            Self::Params(SvcbFault::Value { .. }) => "svcb-value",
            Self::Params(SvcbFault::Mandatory(_)) => "svcb-mandatory",
            Self::Params(SvcbFault::NoProtocol) => "svcb-no-protocol",
        }
    }
}

impl Svcb {
    /// A binding with these parameters, in any order.
    ///
    /// # Errors
    /// The first rule of RFC 9460 that the parameters break.
    pub fn new(priority: u16, target: Name, mut params: Vec<Param>) -> Result<Self, SvcbFault> {
        params.sort_by_key(|param| param.key);
        Self::checked(priority, target, params)
    }

    /// The binding that a record's data says.
    ///
    /// # Errors
    /// Anything but exactly a binding; the client then ignores the whole record set (§2.2).
    pub fn decode(rdata: &[u8]) -> Result<Self, SvcbError> {
        let mut reader = Reader::new(rdata);
        let priority = reader.u16()?;
        let target = reader.uncompressed_name()?;
        let mut params = Vec::new();
        while !reader.is_empty() {
            let key = Key(reader.u16()?);
            let length = reader.u16()?;
            params.push(Param { key, value: reader.take(usize::from(length))?.into() });
        }
        Ok(Self::checked(priority, target, params)?)
    }

    fn checked(priority: u16, target: Name, params: Vec<Param>) -> Result<Self, SvcbFault> {
        for pair in params.windows(2) {
            if pair[0].key >= pair[1].key {
                return Err(SvcbFault::Order(pair[1].key));
            }
        }
        for Param { key, value } in &params {
            check_value(*key, value)?;
        }
        let svcb = Self { priority, target, params: params.into() };
        if let Some(missing) = svcb.mandatory().find(|key| svcb.value(*key).is_none()) {
            return Err(SvcbFault::Mandatory(missing));
        }
        if svcb.value(Key::NO_DEFAULT_ALPN).is_some() && svcb.value(Key::ALPN).is_none() {
            return Err(SvcbFault::NoProtocol);
        }
        Ok(svcb)
    }

    /// The record's data. A value above 65,535 octets, which no record can hold, is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut rdata = self.priority.to_be_bytes().to_vec();
        rdata.extend_from_slice(self.target.wire());
        for Param { key, value } in &self.params {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            rdata.extend_from_slice(&key.0.to_be_bytes());
            rdata.extend_from_slice(&length.to_be_bytes());
            rdata.extend_from_slice(&value[..usize::from(length)]);
        }
        rdata
    }

    /// 0: an alias, whose parameters mean nothing (§2.4.2); otherwise the smaller the sooner to be used.
    #[must_use]
    pub const fn priority(&self) -> u16 {
        self.priority
    }

    /// Where the service is; the root stands for the record's owner, or (of an alias) for no service (§2.5).
    #[must_use]
    pub const fn target(&self) -> &Name {
        &self.target
    }

    /// The parameters, by key.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The value of a parameter.
    #[must_use]
    pub fn value(&self, key: Key) -> Option<&[u8]> {
        let at = self.params.binary_search_by_key(&key, |param| param.key).ok()?;
        Some(&self.params[at].value)
    }

    /// `port=` (§7.2).
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.value(Key::PORT)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The text of the rule in `key65400` (SSA.md §1), not judged.
    #[must_use]
    pub fn rule(&self) -> Option<&[u8]> {
        self.value(Key::RULE)
    }

    /// The keys without which the binding must not be used by who does not understand them (§8).
    pub fn mandatory(&self) -> impl Iterator<Item = Key> {
        keys(self.value(Key::MANDATORY).unwrap_or_default())
    }
}

/// The keys in a value of `mandatory`.
pub(super) fn keys(value: &[u8]) -> impl Iterator<Item = Key> {
    value.chunks_exact(2).map(|pair| Key(u16::from_be_bytes([pair[0], pair[1]])))
}

/// The protocols in a value of `alpn`; none where it ends inside one, or one is empty.
pub(super) fn protocols(mut value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut protocols = Vec::new();
    while let Some((&length, rest)) = value.split_first() {
        let (protocol, rest) = rest.split_at_checked(usize::from(length)).filter(|_| length > 0)?;
        protocols.push(protocol);
        value = rest;
    }
    Some(protocols)
}

/// Whether a value has the form of its key (§7, §8); values of other keys are opaque.
pub(super) fn check_value(key: Key, value: &[u8]) -> Result<(), SvcbFault> {
    let ascending = || keys(value).collect::<Vec<_>>().windows(2).all(|pair| pair[0] < pair[1]);
    let list_of = |octets: usize| !value.is_empty() && value.len().is_multiple_of(octets);
    let (right, expected) = match key {
        Key::MANDATORY => {
            let right = list_of(2) && ascending() && keys(value).all(|key| key != Key::MANDATORY);
            (right, "a list of other keys, each once")
        }
        Key::ALPN => (protocols(value).is_some_and(|some| !some.is_empty()), "a list of protocols of 1 to 255 octets"),
        Key::NO_DEFAULT_ALPN => (value.is_empty(), "empty, as it must be"),
        Key::PORT => (value.len() == 2, "a port, 0 to 65535"),
        Key::IPV4HINT => (list_of(4), "a list of IPv4 addresses"),
        Key::ECH => (!value.is_empty(), "a list of configurations in base64"),
        Key::IPV6HINT => (list_of(16), "a list of IPv6 addresses"),
        Key(_) => (true, ""),
    };
    if right { Ok(()) } else { Err(SvcbFault::Value { key, expected }) }
}

/// What the value of a key is, for a message about a text that is none.
pub(super) fn expected_value(key: Key) -> &'static str {
    match check_value(key, &[]) {
        Err(SvcbFault::Value { expected, .. }) => expected,
        _ => "empty, as it must be",
    }
}
