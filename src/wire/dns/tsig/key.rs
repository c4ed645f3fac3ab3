//! Shared keys, and what computes signatures with them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;

use super::TsigError;
use crate::model::Name;

/// The fewest octets of a secret that is no invitation to guess.
pub const LEAST_SECRET: usize = 16;

/// What computes the signature.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    Sha256,
    /// `hmac-sha384`.
    Sha384,
    /// `hmac-sha512`.
    Sha512,
}

impl Algorithm {
    pub(super) const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name without the final dot (RFC 8945 §6).
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    /// Its name in wire form.
    pub(super) fn wire(self) -> Vec<u8> {
        let text = self.text().as_bytes();
        [&[text.len() as u8], text, &[0]].concat()
    }

    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// The same as a name.
    #[allow(clippy::expect_used, reason = "the names are constants, and a test reads them all")]
    pub(super) fn name(self) -> Name {
        Name::from_wire(&self.wire()).expect("an algorithm's name is a domain name")
    }

    /// Octets of a signature.
    pub(super) const fn octets(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Algorithm {
    type Err = TsigError;

    fn from_str(text: &str) -> Result<Self, TsigError> {
        Self::ALL.into_iter().find(|one| one.text().eq_ignore_ascii_case(text)).ok_or(TsigError::Algorithm)
    }
}

/// A shared key.
pub struct Key {
    /// In lower case, as it is signed (RFC 8945 §4.3.3).
    pub(super) name: Name,
    pub(super) algorithm: Algorithm,
    pub(super) hmac: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.algorithm)
    }
}

impl Key {
    /// The key `name`.
    ///
    /// # Errors
    /// [`TsigError::Secret`] when the secret is shorter than [`LEAST_SECRET`].
    pub fn new(name: &Name, algorithm: Algorithm, secret: &[u8]) -> Result<Self, TsigError> {
        if secret.len() < LEAST_SECRET {
            return Err(TsigError::Secret);
        }
        Ok(Self { name: name.to_lowercase(), algorithm, hmac: hmac::Key::new(algorithm.hmac(), secret) })
    }

    /// Its name, in lower case.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Octets that a signature with this key adds to a message, at most.
    #[must_use]
    pub fn octets(&self) -> usize {
        // Owner, type, class, TTL, length; algorithm, time, fudge, MAC, id, error, time of a BADTIME.
        self.name.wire().len() + 10 + self.algorithm.wire().len() + 16 + self.algorithm.octets() + 6
    }
}
