//! The private half: a key that signs tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::{EncodingKey, crypto};

use super::raw;
use crate::model::token::{Algorithm, Claims};

/// A private key with its name. Never printed.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: Box<str>,
    public: PublicOctets,
    /// The header of every token, encoded once.
    header: String,
}

/// A public key, in the coordinates in which a JWK gives it.
#[derive(Clone)]
pub(in crate::wire) enum PublicOctets {
    /// RFC 8037 §2: `x`.
    Ed25519(Vec<u8>),
    /// RFC 7518 §6.2.1: `x` and `y`.
    P256(Vec<u8>, Vec<u8>),
}

/// A key file holds no key that tokens can be signed with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSigningKey {
    /// Not PEM, not PKCS#8, or another kind of key.
    #[error("no PKCS#8 PEM of an Ed25519 or P-256 private key (\"BEGIN PRIVATE KEY\")")]
    NotAKey,
}

/// A token could not be signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// The provider refused; with a key that has signed before, this does not happen.
    #[error("the cryptographic provider would not sign")]
    Provider,
}

impl SigningKey {
    /// Reads a private key and makes sure that it signs.
    ///
    /// # Errors
    /// [`BadSigningKey`] for anything but Ed25519 or P-256 in PKCS#8 PEM.
    pub fn from_pem(pem: &[u8], kid: &str) -> Result<Self, BadSigningKey> {
        let (key, algorithm) = match EncodingKey::from_ed_pem(pem) {
            Ok(key) => (key, Algorithm::EdDsa),
            Err(_) => (EncodingKey::from_ec_pem(pem).map_err(|_| BadSigningKey::NotAKey)?, Algorithm::Es256),
        };
        let public = public_octets(&key, algorithm).map_err(|_| BadSigningKey::NotAKey)?;
        let header =
            raw::Header { typ: Some("JWT".into()), alg: algorithm.as_str().into(), kid: Some(kid.into()), crit: None };
        let signing = Self { key, algorithm, kid: kid.into(), public, header: encode(&header) };
        signing.signature(b"").map_err(|_| BadSigningKey::NotAKey)?;
        Ok(signing)
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name among the issuer's keys.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A token of these claims.
    ///
    /// # Errors
    /// [`SignError`] when the provider refuses.
    pub fn sign(&self, claims: &Claims) -> Result<String, SignError> {
        let mut token = format!("{}.{}", self.header, encode(&raw::Claims::new(claims)));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }

    pub(in crate::wire) fn public(&self) -> &PublicOctets {
        &self.public
    }

    fn signature(&self, message: &[u8]) -> Result<String, SignError> {
        crypto::sign(message, &self.key, jws(self.algorithm)).map_err(|_| SignError::Provider)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {:?})", self.algorithm, self.kid)
    }
}

/// The name of an algorithm in the library's words.
pub(in crate::wire) fn jws(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
    }
}

fn public_octets(key: &EncodingKey, algorithm: Algorithm) -> jsonwebtoken::errors::Result<PublicOctets> {
    let provider = &DEFAULT_PROVIDER.key_utils;
    match algorithm {
        Algorithm::EdDsa => {
            let x = (provider.ed_pub_components_from_private_key)(key.as_bytes(), &EllipticCurve::Ed25519)?;
            Ok(PublicOctets::Ed25519(x))
        }
        Algorithm::Es256 => {
            let (_, x, y) = (provider.ec_pub_components_from_private_key)(key.as_bytes(), jws(algorithm))?;
            Ok(PublicOctets::P256(x, y))
        }
        // No token of ours is signed so.
        Algorithm::Rs256 => Err(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into()),
    }
}

/// Base64url of the JSON. Only for values that have a JSON form for certain.
#[allow(clippy::expect_used, reason = "strings and numbers always have a JSON form")]
fn encode<T: serde::Serialize>(value: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("strings and numbers have a JSON form"))
}

#[cfg(test)]
impl SigningKey {
    /// A signature over anything, so that tests can forge what the key's owner never would sign.
    pub(super) fn signature_for_tests(&self, message: &[u8]) -> String {
        self.signature(message).unwrap()
    }
}
