//! JSON Web Key Sets: an issuer's public keys.
//!
//! Owns the form of a set. A key of a kind that is not used here (another `kty` or `crv`, a key for encryption) is left
//! out, since a set is shared with others (RFC 7517 §5); a key of a kind that *is* used and is wrong makes the whole
//! set wrong, with every fault and its place.
//!
//! Source: RFC 7517, RFC 7518 §6.2 and §6.3, RFC 8037 §2.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};

use super::jwt::SigningKey;
use crate::model::token::Algorithm;

mod fault;
#[cfg(test)]
mod tests;

pub use fault::{JwksError, KeyFault};

/// A set of public keys, each found by its name. Invariant: no two keys have the same name.
#[derive(Clone, Debug, Default)]
pub struct Jwks {
    keys: Vec<PublicKey>,
    /// What it was read from; two sets are the same when their texts are.
    text: Box<[u8]>,
}

impl PartialEq for Jwks {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A public key that verifies tokens.
#[derive(Clone)]
pub struct PublicKey {
    kid: Box<str>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl PublicKey {
    /// What it verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature`, base64url, is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = super::jwt::jws(self.algorithm);
        jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {:?})", self.algorithm, self.kid)
    }
}

impl Jwks {
    /// Reads a set.
    ///
    /// # Errors
    /// [`JwksError`] with every fault and its place, or the place where the text stops being JSON.
    pub fn parse(text: &[u8]) -> Result<Self, JwksError> {
        let set: Value = serde_json::from_slice(text)
            .map_err(|error| JwksError::NotJson { line: error.line(), column: error.column() })?;
        let members = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NoKeys)?;
        let mut keys: Vec<PublicKey> = Vec::new();
        let mut faults = Vec::new();
        for (index, member) in members.iter().enumerate() {
            match public_key(member) {
                Ok(Some(key)) if keys.iter().any(|other| other.kid == key.kid) => {
                    faults.push((index, KeyFault::Repeated { kid: key.kid }));
                }
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(fault) => faults.push((index, fault)),
            }
        }
        if faults.is_empty() { Ok(Self { keys, text: text.into() }) } else { Err(JwksError::Keys(faults)) }
    }

    /// The key of this name.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|key| *key.kid == *kid)
    }

    /// How many keys there are that can verify something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can verify anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The set of the public halves of these keys, as JSON text.
#[must_use]
pub fn to_jwks(keys: &[&SigningKey]) -> String {
    let members: Vec<Value> = keys.iter().map(|key| to_jwk(key)).collect();
    format!("{:#}", json!({ "keys": members }))
}

fn to_jwk(key: &SigningKey) -> Value {
    let (kid, alg) = (key.kid(), key.algorithm().as_str());
    let text = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    match key.public() {
        super::jwt::PublicOctets::Ed25519(x) => {
            json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": alg, "kid": kid, "x": text(x) })
        }
        super::jwt::PublicOctets::P256(x, y) => {
            json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": alg, "kid": kid, "x": text(x), "y": text(y) })
        }
    }
}

/// The key a member describes; `None` for one of a kind that is not used here.
fn public_key(member: &Value) -> Result<Option<PublicKey>, KeyFault> {
    if !member.is_object() {
        return Err(KeyFault::NotAnObject);
    }
    let text = |name: &'static str| match member.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(KeyFault::NotText { member: name }),
    };
    let kty = text("kty")?.ok_or(KeyFault::Missing { member: "kty" })?;
    let algorithm = match (kty, text("crv")?) {
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("RSA", None) => Algorithm::Rs256,
        _ => return Ok(None),
    };
    if text("use")?.is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    if member.get("d").is_some() {
        return Err(KeyFault::Private);
    }
    if let Some(alg) = text("alg")?
        && alg != algorithm.as_str()
    {
        if kty == "RSA" {
            // One kind of key for many algorithms, of which this is another.
            return Ok(None);
        }
        return Err(KeyFault::AlgorithmOfAnother { alg: alg.into(), expected: algorithm });
    }
    let kid = text("kid")?.ok_or(KeyFault::Missing { member: "kid" })?;
    let key = match algorithm {
        Algorithm::EdDsa => DecodingKey::from_ed_components(coordinate("x", text("x")?)?),
        Algorithm::Es256 => DecodingKey::from_ec_components(coordinate("x", text("x")?)?, coordinate("y", text("y")?)?),
        Algorithm::Rs256 => {
            let exponent = text("e")?.ok_or(KeyFault::Missing { member: "e" })?;
            DecodingKey::from_rsa_components(modulus(text("n")?)?, exponent)
        }
    };
    let key = key.map_err(|_| match algorithm {
        Algorithm::EdDsa | Algorithm::Es256 => KeyFault::Coordinate { member: "x" },
        Algorithm::Rs256 => KeyFault::Exponent,
    })?;
    Ok(Some(PublicKey { kid: kid.into(), algorithm, key }))
}

/// A modulus as it stands, once its size is one that RFC 7518 §3.3 and the provider allow.
fn modulus(text: Option<&str>) -> Result<&str, KeyFault> {
    let text = text.ok_or(KeyFault::Missing { member: "n" })?;
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(octets) if (256..=1024).contains(&octets.len()) => Ok(text),
        Ok(_) | Err(_) => Err(KeyFault::Modulus),
    }
}

/// A coordinate as it stands, once it is known to be 32 octets: both curves have that many.
fn coordinate<'a>(member: &'static str, text: Option<&'a str>) -> Result<&'a str, KeyFault> {
    let text = text.ok_or(KeyFault::Missing { member })?;
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(octets) if octets.len() == 32 => Ok(text),
        Ok(_) | Err(_) => Err(KeyFault::Coordinate { member }),
    }
}
