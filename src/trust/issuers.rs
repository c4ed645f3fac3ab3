//! The issuers whose tokens are accepted, and their keys: from files, or from afar.
//!
//! Keys that were had are kept until better ones are: a file that went bad, or a server that does not answer, changes
//! nothing. A set from afar is asked for again every five minutes, and when a token names a key that nobody knows, but
//! not more than once in ten seconds, or callers could make us ask without end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::verifier::Verifier;
use crate::config::common::Trust;
use crate::config::values::{HttpsUrl, KeySet};
use crate::net::http_client::{Ask, Client, ClientError, Credentials, Server};
use crate::net::tls::{ClientTls, NoHostName, TlsFileError, host_name};
use crate::wire::jwks::{Jwks, JwksError};
use crate::wire::jwt::{Subjects, TrustedIssuer};

/// How long a set from afar is used before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// How long after a failure.
const ASK_AGAIN_SOON: Duration = Duration::from_secs(10);
/// How long the fetching of a set may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most octets of a set.
const LONGEST: usize = 1 << 20;

/// Keeps a verifier's issuers up to date.
pub struct Issuers {
    verifier: Arc<Verifier>,
    /// SO_MARK of connections to servers of key sets.
    mark: Option<u32>,
    known: Mutex<Vec<Known>>,
}

/// An issuer, and the keys last had of it.
#[derive(Clone)]
struct Known {
    trust: Trust,
    keys: Option<Jwks>,
}

/// Why a file does not serve. Names it and the cause, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// It could not be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is no key set.
    #[error("{}: {cause}", .path.display())]
    Jwks {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: JwksError,
    },
}

/// Why there are no new keys from afar.
#[derive(Debug, thiserror::Error)]
enum Unfetched {
    #[error(transparent)]
    File(#[from] IssuersError),
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    #[error(transparent)]
    Name(#[from] NoHostName),
    #[error(transparent)]
    Fetch(#[from] ClientError),
    /// No redirect is followed: whoever answers must be the one who was asked.
    #[error("the server answers {0}")]
    Status(u16),
    #[error("what came is no key set: {0}")]
    Jwks(#[from] JwksError),
}

impl Issuers {
    /// Reads the key sets that are in files; those from afar are asked for by [`Issuers::look_after`].
    ///
    /// # Errors
    /// The first file that does not serve.
    pub fn new(trust: &[Trust], verifier: Arc<Verifier>, mark: Option<u32>) -> Result<Self, IssuersError> {
        let known = trust.iter().map(|trust| Ok(Known { trust: trust.clone(), keys: from_file(trust)? }));
        let known = known.collect::<Result<Vec<_>, IssuersError>>()?;
        let issuers = Self { verifier, mark, known: Mutex::new(known) };
        issuers.publish();
        Ok(issuers)
    }

    /// Trusts what `trust` lists from now on, with the keys that the files have now. An issuer whose file does not serve
    /// keeps the keys that it had.
    ///
    /// # Errors
    /// The files that do not serve.
    pub fn read_again(&self, trust: &[Trust]) -> Result<(), Vec<IssuersError>> {
        let mut errors = Vec::new();
        let before = self.known.lock().clone();
        let kept = |trust: &Trust| before.iter().find(|known| known.trust.issuer == trust.issuer)?.keys.clone();
        let read = |trust: &Trust| {
            let keys = from_file(trust).unwrap_or_else(|error| {
                errors.push(error);
                None
            });
            Known { trust: trust.clone(), keys: keys.or_else(|| kept(trust)) }
        };
        let known = trust.iter().map(read).collect();
        *self.known.lock() = known;
        self.publish();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Asks for the sets from afar, again and again. `had` is called when each was had once.
    pub async fn look_after(&self, had: impl FnOnce()) {
        let mut had = Some(had);
        loop {
            let all = self.ask().await;
            let complete = self.known.lock().iter().all(|known| known.keys.is_some());
            if complete && let Some(had) = had.take() {
                had();
            }
            let asked = Instant::now();
            let patience = if all { ASK_AGAIN } else { ASK_AGAIN_SOON };
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = self.verifier.unknown_key() => tokio::time::sleep_until(asked + ASK_AGAIN_SOON).await,
            }
        }
    }

    /// Asks for every set from afar; whether all of them came.
    async fn ask(&self) -> bool {
        let trusts: Vec<_> = self.known.lock().iter().map(|known| known.trust.clone()).collect();
        let mut all = true;
        for trust in trusts {
            let KeySet::At(url) = &trust.jwks else { continue };
            match self.fetch(&trust, url).await {
                Ok(keys) => self.learn(&trust, keys),
                Err(error) => {
                    all = false;
                    tracing::warn!(issuer = %trust.issuer, %url, "the issuer's keys stay as they are: {error}");
                }
            }
        }
        all
    }

    async fn fetch(&self, trust: &Trust, url: &HttpsUrl) -> Result<Jwks, Unfetched> {
        let authorities = trust.jwks_ca.as_deref().unwrap_or(Path::new(""));
        let tls = ClientTls::from_file(authorities)?;
        let bearer = trust.jwks_token.as_deref().map(bearer).transpose()?;
        let server = Server { secure: true, host: host_name(&url.host)?, port: url.port };
        let credentials = Credentials { tls: Some(tls), token: bearer };
        let fields = &[("accept", "application/jwk-set+json, application/json")];
        let ask = Ask { method: "GET", path: &url.path, body: None, fields };
        let told = Client::new(server, credentials).bounded(LONGEST).marked(self.mark).ask(&ask, PATIENCE).await?;
        match told.status {
            200 => Ok(Jwks::parse(&told.body)?),
            status => Err(Unfetched::Status(status)),
        }
    }

    fn learn(&self, trust: &Trust, keys: Jwks) {
        let mut known = self.known.lock();
        let Some(known_of) = known.iter_mut().find(|known| known.trust == *trust) else { return };
        // Publishing makes the verifier forget what it has verified, so only for something new.
        if known_of.keys.as_ref() == Some(&keys) {
            return;
        }
        tracing::info!(issuer = %trust.issuer, keys = keys.len(), "the issuer's keys are known");
        known_of.keys = Some(keys);
        drop(known);
        self.publish();
    }

    fn publish(&self) {
        let issuer = |known: &Known| {
            let Trust { issuer, algorithms, audience, kubernetes, .. } = &known.trust;
            let subjects = match kubernetes {
                Some(trust_domain) => Subjects::ServiceAccounts { trust_domain: trust_domain.clone() },
                None => Subjects::Workloads,
            };
            let keys = known.keys.clone().unwrap_or_default();
            let audience = audience.as_deref().map(Into::into);
            TrustedIssuer { subjects, audience, ..TrustedIssuer::new(issuer, keys, algorithms) }
        };
        let issuers = self.known.lock().iter().map(issuer).collect();
        self.verifier.trust(issuers);
    }
}

/// The keys of an issuer whose set is in a file; none where it is not.
fn from_file(trust: &Trust) -> Result<Option<Jwks>, IssuersError> {
    let KeySet::File(path) = &trust.jwks else { return Ok(None) };
    let keys = Jwks::parse(&read(path)?).map_err(|cause| IssuersError::Jwks { path: path.clone(), cause })?;
    if keys.is_empty() {
        tracing::warn!(issuer = %trust.issuer, file = %path.display(), "no key of a kind that is used here");
    }
    Ok(Some(keys))
}

/// A bearer token in a file, white space around it aside.
fn bearer(path: &Path) -> Result<String, IssuersError> {
    Ok(String::from_utf8_lossy(&read(path)?).trim().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, IssuersError> {
    std::fs::read(path).map_err(|cause| IssuersError::Unreadable { path: path.into(), cause })
}

#[cfg(test)]
mod tests;
