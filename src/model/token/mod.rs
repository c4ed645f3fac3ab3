//! Workload tokens: who a caller says it is, and what that permits.
//!
//! Owns the identity's form ([`WorkloadId`]), the claims a token makes ([`Claims`]), whether they hold for one service
//! at one moment ([`judge`]) and whether that caller may pass ([`admit()`]). Signatures are `wire::jwt`'s business: what
//! arrives here has been verified. Source: RFC 7519 §4.1.

mod admit;
mod claims;
mod workload;

pub use admit::{Admitted, NotAllowed, admit};
pub use claims::{Caller, Claims, Expected, Unacceptable, judge};
pub use workload::{BadWorkloadId, CallerPattern, TrustDomain, WorkloadId};

use std::fmt;
use std::str::FromStr;

/// A signature algorithm of workload tokens (RFC 7518 §3.1, RFC 8037 §3.1). Symmetric ones and `none` have no form here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256: verified alone, for issuers that have nothing better (RFC 7518 §3.3).
    Rs256,
}

impl Algorithm {
    /// The `alg` header parameter, spelled as registered.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of an algorithm that tokens may be signed with.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is no accepted algorithm: EdDSA, ES256 or RS256")]
pub struct UnknownAlgorithm {
    /// What was given.
    pub text: Box<str>,
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        match text {
            "EdDSA" => Ok(Self::EdDsa),
            "ES256" => Ok(Self::Es256),
            "RS256" => Ok(Self::Rs256),
            _ => Err(UnknownAlgorithm { text: text.into() }),
        }
    }
}
