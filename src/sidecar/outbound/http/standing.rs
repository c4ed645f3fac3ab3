//! What the requests of a conversation go by: service, rule and token. Looked up anew every second, so that a connection of
//! an application that lasts for days follows what DNS says, and goes on with what it said while nobody can be asked.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::header::HeaderValue;
use tokio::time::Instant;

use super::super::pick::InForce;
use super::super::recognise::{Called, Unrecognised};
use super::super::{NoCredential, OutboundError};
use super::Conversation;
use crate::model::ssa::Rule;
use crate::ops::clock;
use crate::sidecar::http::Seen;
use crate::sidecar::http::fields::TOKEN;

/// How long it stands.
const STANDS: Duration = Duration::from_secs(1);

/// What requests go by for a while.
pub(super) struct Standing {
    called: Called,
    in_force: InForce,
    token: HeaderValue,
    since: Instant,
}

impl Standing {
    /// The service, and how it was called.
    pub(super) fn called(&self) -> &Called {
        &self.called
    }

    /// The rule, and its place among the service's.
    pub(super) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The rule.
    pub(super) fn rule(&self) -> &Rule {
        self.in_force.rule()
    }

    /// A request's content key, where the rule reads one.
    pub(super) fn key<B>(&self, request: &Request<B>) -> Option<Vec<u8>> {
        let read = || self.rule().content_source().key(&Seen(request), &self.called.service.name).into_owned();
        self.rule().reads_content().then(read)
    }

    /// The value of [`TOKEN`].
    pub(super) fn token(&self) -> HeaderValue {
        self.token.clone()
    }
}

impl Conversation {
    /// What stands now.
    pub(super) async fn standing(&self) -> Result<Arc<Standing>, OutboundError> {
        let stood = self.standing.lock().clone();
        if let Some(standing) = &stood
            && standing.since.elapsed() < STANDS
        {
            return Ok(Arc::clone(standing));
        }
        // Apart, as it is long and every request would have room for it.
        let standing = Arc::new(Box::pin(self.stand(stood.as_deref())).await?);
        *self.standing.lock() = Some(Arc::clone(&standing));
        Ok(standing)
    }

    async fn stand(&self, stood: Option<&Standing>) -> Result<Standing, OutboundError> {
        let service = match self.outbound.directory.lookup(&self.called.asked).await {
            Ok(service) => service,
            Err(error) if error.is_verdict() => return Err(Unrecognised::from(error).into()),
            // Nobody can be asked.
            Err(_) => Arc::clone(stood.map_or(&self.called.service, |stood| &stood.called.service)),
        };
        let now = clock::now();
        let in_force = InForce::at(&service, now)?;
        let identity = self.outbound.identity.as_ref().ok_or(NoCredential::NoIdentity)?;
        let credential = identity.tokens.authenticate(&service.name, now)?;
        let called = Called { service, ..self.called.clone() };
        Ok(Standing { called, in_force, token: bearer(credential.octets())?, since: Instant::now() })
    }
}

/// Not marked as sensitive: HTTP/2 is to send it once for many requests (RFC 7541 §7.1.3 concerns secrets that an attacker
/// may guess part by part, which a signature is not).
fn bearer(token: &[u8]) -> Result<HeaderValue, OutboundError> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
    value.map_err(|_| NoCredential::NoField { field: TOKEN.as_str().to_owned() }.into())
}
