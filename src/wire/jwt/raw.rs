//! Header and claims as the JSON says them (RFC 7515 §4.1, RFC 7519 §4.1). Unknown members are skipped, known ones
//! refused when they come twice.

use serde::{Deserialize, Serialize};

use super::{JwtError, Subjects};
use crate::model::UnixSeconds;
use crate::model::token::{self, WorkloadId};

#[derive(Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) typ: Option<Box<str>>,
    pub(super) alg: Box<str>,
    pub(super) kid: Option<Box<str>>,
    #[serde(default, skip_serializing)]
    pub(super) crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Claims {
    pub(super) iss: Box<str>,
    sub: Box<str>,
    aud: Audience,
    iat: Seconds,
    nbf: Seconds,
    exp: Seconds,
}

/// RFC 7519 §4.1.3: one string or an array of them.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Audience {
    One(Box<str>),
    Several(Vec<Box<str>>),
}

/// RFC 7519 §2: a NumericDate, which may have a fraction; that is cut, so a token never lives longer than it says.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Fraction(f64),
}

impl From<Seconds> for UnixSeconds {
    fn from(seconds: Seconds) -> Self {
        match seconds {
            Seconds::Whole(seconds) => Self(seconds),
            // A negative number becomes 0 and one past the end the last second: the cast saturates.
            Seconds::Fraction(seconds) => Self(seconds as u64),
        }
    }
}

impl Claims {
    pub(super) fn new(claims: &token::Claims) -> Self {
        Self {
            iss: claims.issuer.clone(),
            sub: claims.subject.as_str().into(),
            aud: match claims.audience.as_slice() {
                [one] => Audience::One(one.clone()),
                several => Audience::Several(several.to_vec()),
            },
            iat: Seconds::Whole(claims.issued_at.0),
            nbf: Seconds::Whole(claims.not_before.0),
            exp: Seconds::Whole(claims.expires.0),
        }
    }

    pub(super) fn expires(&self) -> UnixSeconds {
        self.exp.into()
    }

    pub(super) fn checked(self, subjects: &Subjects) -> Result<token::Claims, JwtError> {
        let subject = match subjects {
            Subjects::Workloads => self.sub.parse(),
            Subjects::ServiceAccounts { trust_domain } => WorkloadId::of_service_account(trust_domain, &self.sub),
        };
        Ok(token::Claims {
            issuer: self.iss,
            subject: subject.map_err(JwtError::Subject)?,
            audience: match self.aud {
                Audience::One(one) => vec![one],
                Audience::Several(several) => several,
            },
            issued_at: self.iat.into(),
            not_before: self.nbf.into(),
            expires: self.exp.into(),
        })
    }
}
