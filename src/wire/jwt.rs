//! JSON Web Tokens in compact form: taken apart, signed, verified.
//!
//! Owns the form of a token and its signature. What the claims mean for a call is decided by [`crate::model::token`];
//! no clock is read here. A token is hostile input: the claims come out of [`Unverified::verify`] alone, once their
//! signature has been checked.
//!
//! The algorithm is never the token's choice: it is the key's, and the issuer's accepted list must hold it as well
//! (RFC 8725 §3.1). A symmetric algorithm or `none` has no key to be checked with.
//!
//! Source: RFC 7519, RFC 7515 §3.1 and §5.2, RFC 8725.

mod raw;
mod sign;
#[cfg(test)]
mod tests;

pub use sign::{BadSigningKey, SignError, SigningKey};
pub(super) use sign::{PublicOctets, jws};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jwks::Jwks;
use crate::model::UnixSeconds;
use crate::model::token::{Algorithm, BadWorkloadId, Claims, TrustDomain};

/// The most octets of a token that are looked at. A header, a handful of claims and a signature take some 500.
pub const LONGEST: usize = 6 * 1024;

/// Why a token is refused before its claims are judged. One cause, one variant, one `reason`. Nothing of the token's
/// text stands in it but the names of keys, algorithms and issuers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwtError {
    /// Longer than [`LONGEST`].
    #[error("the token has {octets} octets, at most {LONGEST} are read")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// Not three parts between two dots.
    #[error("the token is not three parts between two dots")]
    Parts,
    /// RFC 7515 §2: base64url without padding.
    #[error("the token's {part} is no base64url")]
    Base64 {
        /// `header`, `claims` or `signature`.
        part: &'static str,
    },
    /// No JSON object of the expected members, or a member twice.
    #[error("the token's {part} is not the expected JSON: column {column}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// Where in the decoded part, from 1.
        column: usize,
    },
    /// `typ` is not `JWT`: something else signed with the same key, an ID token's logout token perhaps.
    #[error("the token's typ is {found:?}, expected \"JWT\"")]
    Type {
        /// `typ`.
        found: Option<Box<str>>,
    },
    /// RFC 7515 §4.1.11: an extension that must be understood.
    #[error("the token's header says crit: it wants extensions that are not known here")]
    Critical,
    /// RFC 8725 §2.1.
    #[error("the token's alg is none: it is not signed")]
    Unsigned,
    /// An algorithm that has no form here, HS256 with a public key as its secret among them, or one that the issuer
    /// is not trusted with.
    #[error("the token's alg is {found:?}, which is not accepted from its issuer")]
    Algorithm {
        /// `alg`.
        found: Box<str>,
    },
    /// Nobody we trust.
    #[error("the token's iss is {found:?}, which is not among the trusted issuers")]
    UnknownIssuer {
        /// `iss`.
        found: Box<str>,
    },
    /// Without a name there is no telling which key.
    #[error("the token's header has no kid")]
    NoKeyId,
    /// The issuer has no such key, perhaps no longer, perhaps not yet here.
    #[error("the issuer's key set has no key {kid:?}: if its keys were just changed, the set here is old")]
    UnknownKey {
        /// `kid`.
        kid: Box<str>,
    },
    /// The key is of another algorithm than the header claims.
    #[error("the token's alg is {found}, but key {kid:?} is for {key}")]
    KeyMismatch {
        /// `alg`.
        found: Algorithm,
        /// `kid`.
        kid: Box<str>,
        /// What the key is for.
        key: Algorithm,
    },
    /// Made by somebody without the key, or changed since.
    #[error("the signature is not that of key {kid:?}")]
    Signature {
        /// `kid`.
        kid: Box<str>,
    },
    /// `sub` names no workload.
    #[error("the token's sub is no workload identity: {0}")]
    Subject(BadWorkloadId),
}

impl JwtError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "token-too-long",
            Self::Parts | Self::Base64 { .. } | Self::Json { .. } => "token-malformed",
            Self::Type { .. } => "token-type-wrong",
            Self::Critical => "token-critical-extension",
            Self::Unsigned => "token-unsigned",
            Self::Algorithm { .. } | Self::KeyMismatch { .. } => "token-algorithm-refused",
            Self::UnknownIssuer { .. } => "token-issuer-unknown",
            Self::NoKeyId | Self::UnknownKey { .. } => "token-key-unknown",
            Self::Signature { .. } => "token-signature-wrong",
            Self::Subject(_) => "token-subject-malformed",
        }
    }
}

/// An issuer whose tokens are accepted: its name, its keys, and what it may sign with.
#[derive(Clone, Debug)]
pub struct TrustedIssuer {
    /// `iss`, compared octet for octet.
    pub issuer: Box<str>,
    /// Its public keys.
    pub keys: Jwks,
    /// The algorithms accepted from it.
    pub algorithms: Box<[Algorithm]>,
    /// Whom its tokens speak of.
    pub subjects: Subjects,
    /// What `aud` must hold in place of the called service's name; none: that name.
    pub audience: Option<Box<str>>,
}

/// How an issuer names the bearers of its tokens in `sub`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Subjects {
    /// By their workload identity.
    #[default]
    Workloads,
    /// As a Kubernetes cluster names service accounts. Its tokens have no `typ`.
    ServiceAccounts {
        /// The trust domain that stands for the cluster.
        trust_domain: TrustDomain,
    },
}

impl TrustedIssuer {
    /// An issuer of tokens for one service each, which speak of workloads.
    #[must_use]
    pub fn new(issuer: &str, keys: Jwks, algorithms: &[Algorithm]) -> Self {
        let subjects = Subjects::default();
        Self { issuer: issuer.into(), keys, algorithms: algorithms.into(), subjects, audience: None }
    }
}

/// A well-formed token that nobody has vouched for yet.
pub struct Unverified<'a> {
    /// What the signature is over.
    signed: &'a str,
    signature: &'a str,
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    /// Whether the header says what the token is.
    typed: bool,
    claims: raw::Claims,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// The first thing that is wrong with its form, its type or its algorithm's name.
    pub fn parse(token: &'a [u8]) -> Result<Self, JwtError> {
        if token.len() > LONGEST {
            return Err(JwtError::TooLong { octets: token.len() });
        }
        let token = std::str::from_utf8(token).map_err(|_| JwtError::Parts)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Parts)?;
        if claims.contains('.') {
            return Err(JwtError::Parts);
        }
        let header: raw::Header = decode(header, "header")?;
        let algorithm = accepted_form(&header)?;
        let typed = header.typ.is_some();
        Ok(Self { signed, signature, kid: header.kid, algorithm, typed, claims: decode(claims, "claims")? })
    }

    /// When it says it expires: for its bearer, who need not doubt it.
    #[must_use]
    pub fn expires(&self) -> UnixSeconds {
        self.claims.expires()
    }

    /// Finds the issuer among those trusted, checks the signature with its key, and only then gives the claims.
    ///
    /// # Errors
    /// The first that holds, in this order: unknown issuer, no type although the issuer's tokens have one, algorithm not
    /// accepted from it, no or unknown key, key of another algorithm, wrong signature, malformed subject.
    pub fn verify(self, trusted: &[TrustedIssuer]) -> Result<Claims, JwtError> {
        let by_name = |trusted: &&TrustedIssuer| trusted.issuer == self.claims.iss;
        let Some(issuer) = trusted.iter().find(by_name) else {
            return Err(JwtError::UnknownIssuer { found: self.claims.iss });
        };
        if !self.typed && issuer.subjects == Subjects::Workloads {
            return Err(JwtError::Type { found: None });
        }
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(JwtError::Algorithm { found: self.algorithm.as_str().into() });
        }
        let kid = self.kid.ok_or(JwtError::NoKeyId)?;
        let Some(key) = issuer.keys.find(&kid) else { return Err(JwtError::UnknownKey { kid }) };
        if key.algorithm() != self.algorithm {
            return Err(JwtError::KeyMismatch { found: self.algorithm, kid, key: key.algorithm() });
        }
        if URL_SAFE_NO_PAD.decode(self.signature).is_err() {
            return Err(JwtError::Base64 { part: "signature" });
        }
        if !key.verifies(self.signed.as_bytes(), self.signature) {
            return Err(JwtError::Signature { kid });
        }
        self.claims.checked(&issuer.subjects)
    }
}

/// Decodes one part of a token.
fn decode<T: serde::de::DeserializeOwned>(text: &str, part: &'static str) -> Result<T, JwtError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Base64 { part })?;
    serde_json::from_slice(&json).map_err(|error| JwtError::Json { part, column: error.column() })
}

/// Checks what a header must say whoever signed it, and gives its algorithm.
fn accepted_form(header: &raw::Header) -> Result<Algorithm, JwtError> {
    if header.alg.eq_ignore_ascii_case("none") {
        return Err(JwtError::Unsigned);
    }
    // RFC 7519 §5.1: a media type, so compared without case. Whether there must be one is the issuer's matter.
    if !header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT")) {
        return Err(JwtError::Type { found: header.typ.clone() });
    }
    if header.crit.is_some() {
        return Err(JwtError::Critical);
    }
    header.alg.parse().map_err(|_| JwtError::Algorithm { found: header.alg.clone() })
}
