//! What can be wrong with a key set, and where.

use std::fmt;

use crate::model::token::Algorithm;

/// Why a text is no usable key set.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwksError {
    /// Not JSON at all.
    #[error("line {line}, column {column}: not JSON")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// RFC 7517 §5.1.
    #[error("no object with an array \"keys\"")]
    NoKeys,
    /// Keys that are wrong, each with its place in `keys`.
    #[error("{}", Listed(.0))]
    Keys(Vec<(usize, KeyFault)>),
}

/// What is wrong with one key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyFault {
    /// Something else than a JSON object.
    #[error("not an object")]
    NotAnObject,
    /// A member that must be text is something else.
    #[error("{member} is no string")]
    NotText {
        /// Its name.
        member: &'static str,
    },
    /// A member that must be there is not.
    #[error("{member} is missing")]
    Missing {
        /// Its name.
        member: &'static str,
    },
    /// An RSA modulus of less than 2048 bits (RFC 7518 §3.3) or more than 8192.
    #[error("n is not a modulus of 2048 to 8192 bits in base64url without padding")]
    Modulus,
    /// The exponent is no base64url.
    #[error("e is not an exponent in base64url without padding")]
    Exponent,
    /// A coordinate is not 32 octets in base64url.
    #[error("{member} is not 32 octets in base64url without padding")]
    Coordinate {
        /// Its name.
        member: &'static str,
    },
    /// `alg` contradicts the key's kind.
    #[error("alg is {alg:?}, but a key of this kind is for {expected}")]
    AlgorithmOfAnother {
        /// `alg`.
        alg: Box<str>,
        /// What the key is for.
        expected: Algorithm,
    },
    /// The private half stands in a public file.
    #[error("d is the private half: it must not be here, and the key should be replaced")]
    Private,
    /// Two keys of one name.
    #[error("kid {kid:?} is that of an earlier key")]
    Repeated {
        /// The name.
        kid: Box<str>,
    },
}

struct Listed<'a>(&'a [(usize, KeyFault)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (index, fault)) in self.0.iter().enumerate() {
            let gap = if nth == 0 { "" } else { "; " };
            write!(f, "{gap}keys[{index}]: {fault}")?;
        }
        Ok(())
    }
}
