//! Who may do what at the API.
//!
//! A caller is known by the certificate of its connection or by the token of its request; what it may do is the sum of
//! what the configuration allows to either. On a loopback address without TLS everybody is the machine's own, and may
//! do everything. Whoever is not known may do nothing.

use std::sync::Arc;

use super::refusal::Refusal;
use crate::config::api::{Api, ApiRight};
use crate::model::token::{Caller, CallerPattern};
use crate::model::{Name, UnixSeconds};
use crate::trust::{Unverifiable, Verifier};

/// What a route needs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::peak) enum Need {
    /// Nothing: the API's own description.
    Nothing,
    /// To look.
    Read,
    /// To change records.
    Write,
    /// To do everything.
    Admin,
}

impl From<ApiRight> for Need {
    fn from(right: ApiRight) -> Self {
        match right {
            ApiRight::Read => Self::Read,
            ApiRight::Write => Self::Write,
            ApiRight::Admin => Self::Admin,
        }
    }
}

/// What the API believes of a connection.
pub(super) trait Peer: Sync {
    /// Whether the peer has shown a certificate, signed by an authority for callers, that holds this name.
    fn proves(&self, name: &Name) -> bool;
}

/// Why a token is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::peak) enum TokenError {
    /// What it is, or claims.
    #[error(transparent)]
    Token(#[from] Unverifiable),
    /// No issuer is trusted here.
    #[error("no issuer of tokens is trusted here")]
    NoIssuer,
}

impl TokenError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Token(error) => error.reason(),
            Self::NoIssuer => "token-issuer-unknown",
        }
    }
}

/// What one entry of the configuration allows.
#[derive(Debug)]
struct Grant {
    who: Who,
    may: Need,
    /// None: all zones.
    zones: Vec<Name>,
}

#[derive(Debug)]
enum Who {
    Certificate(Name),
    Workload(CallerPattern),
}

/// What the caller of one request may do. Only [`Access::permit`] makes one.
#[derive(Clone, Debug)]
pub(in crate::peak) struct Permit {
    /// For the log, and to tell the names of one caller's requests from another's.
    who: String,
    /// Each with its zones; none: all.
    rights: Vec<(Need, Vec<Name>)>,
}

impl Permit {
    #[cfg(test)]
    pub(super) fn everything() -> Self {
        Self { who: "local".to_owned(), rights: vec![(Need::Admin, Vec::new())] }
    }

    /// Who the caller is.
    pub(in crate::peak) fn who(&self) -> &str {
        &self.who
    }

    fn allows(&self, need: Need) -> bool {
        need == Need::Nothing || self.rights.iter().any(|(may, _)| *may >= need)
    }

    /// That the caller may change this zone's records.
    pub(in crate::peak) fn changes(&self, zone: &Name) -> Result<(), Refusal> {
        let covers = |zones: &[Name]| zones.is_empty() || zones.contains(zone);
        if self.rights.iter().any(|(may, zones)| *may >= Need::Write && covers(zones)) {
            return Ok(());
        }
        Err(Refusal::Zone { who: self.who.clone(), zone: zone.clone() })
    }
}

/// The rules.
#[derive(Debug)]
pub(super) struct Access {
    /// Whether whoever can connect may do everything.
    open: bool,
    audience: Option<Name>,
    verifier: Arc<Verifier>,
    grants: Vec<Grant>,
}

impl Access {
    pub(super) fn new(api: &Api, verifier: Arc<Verifier>) -> Self {
        let grant = |caller: &crate::config::api::ApiCaller| {
            let who = match (&caller.certificate, &caller.workload) {
                (Some(name), _) => Who::Certificate(name.clone()),
                (None, Some(pattern)) => Who::Workload(pattern.clone()),
                (None, None) => return None,
            };
            Some(Grant { who, may: caller.may.into(), zones: caller.zones.clone() })
        };
        Self {
            open: api.tls.is_none() && api.listen.ip().is_loopback(),
            audience: api.audience.clone(),
            verifier,
            grants: api.callers.iter().filter_map(grant).collect(),
        }
    }

    /// Whether whoever can connect may do everything.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The names in certificates that mean something.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.grants.iter().filter_map(|grant| match &grant.who {
            Who::Certificate(name) => Some(name),
            Who::Workload(_) => None,
        })
    }

    /// Decides whether the caller may make a request that needs this.
    ///
    /// # Errors
    /// [`Refusal::Token`] for a token that is not believed, [`Refusal::Unknown`] when nothing is known of the caller,
    /// [`Refusal::NotAllowed`] when it is known and may not.
    pub(super) fn permit(
        &self,
        peer: &dyn Peer,
        authorization: Option<&[u8]>,
        need: Need,
        now: UnixSeconds,
    ) -> Result<Permit, Refusal> {
        if self.open {
            return Ok(Permit { who: "local".to_owned(), rights: vec![(Need::Admin, Vec::new())] });
        }
        let mut permit = Permit { who: String::new(), rights: Vec::new() };
        let mut know = |who: String, grant: &Grant| {
            if permit.who.is_empty() {
                permit.who = who;
            }
            permit.rights.push((grant.may, grant.zones.clone()));
        };
        for grant in &self.grants {
            if let Who::Certificate(name) = &grant.who
                && peer.proves(name)
            {
                know(name.to_string(), grant);
            }
        }
        if let Some(bearer) = authorization.and_then(bearer) {
            let id = self.workload(bearer, now)?;
            for grant in &self.grants {
                if let Who::Workload(pattern) = &grant.who
                    && pattern.matches(id.id())
                {
                    know(id.id().to_string(), grant);
                }
            }
            if permit.who.is_empty() && need != Need::Nothing {
                return Err(Refusal::NotAllowed { who: id.id().to_string(), need });
            }
        }
        if permit.allows(need) {
            return Ok(permit);
        }
        Err(if permit.who.is_empty() { Refusal::Unknown } else { Refusal::NotAllowed { who: permit.who, need } })
    }

    fn workload(&self, token: &[u8], now: UnixSeconds) -> Result<Caller, TokenError> {
        let audience = self.audience.as_ref().ok_or(TokenError::NoIssuer)?;
        Ok(self.verifier.verify(Some(token), audience, now)?)
    }
}

/// The token in an Authorization field (RFC 6750 §2.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
