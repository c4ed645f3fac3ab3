//! Peak's API: zones, records, status and backup over HTTP, for people's commands and for programs.
//!
//! ```text
//!  request ─► route ─► page? ─► who calls ─► may it ─► body ─► handler ─► Command ─► registry
//!               404     403       401         403      413       422                 409, 503
//! ```
//!
//! `openapi.yaml` describes every path; it is served as well, and a test holds it against the routes and against real
//! answers. A change ends in the same [`Command`](crate::model::registry::Command) as an update by RFC 2136, at
//! whichever node it was asked for.

mod about;
mod access;
mod refusal;
mod route;
mod serve;
#[cfg(test)]
mod tests;
mod zones;

pub(super) use access::Need;
pub(super) use refusal::Refusal;
pub(super) use route::{Answered, Call, Reply, Routes};

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::dns::Served;
use super::store::Store;
use crate::config::api::Api;
use crate::net::listen;
use crate::net::tls::{ServerTls, TlsFileError};
use crate::ops::metrics::{Counters, Label, Reason, Registry, labels};
use crate::trust::{Issuers, IssuersError, Verifier};
use access::Access;
use serve::Desk;

/// Why the API cannot be offered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Its address.
    #[error("cannot listen for the API on {addr}: {cause}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Its certificate, key or authorities.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The key sets of those whose tokens are accepted.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
}

labels! {
    /// What was asked for.
    pub(super) enum Method: "method" {
        /// To look.
        Get = "GET",
        /// Nothing but headers.
        Head = "HEAD",
        /// A change.
        Post = "POST",
        /// A whole zone.
        Put = "PUT",
        /// A setting.
        Patch = "PATCH",
        /// That something goes.
        Delete = "DELETE",
        /// Something else.
        Other = "other",
    }
}

impl Method {
    fn of(word: &str) -> Self {
        let all = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];
        all.into_iter().find(|method| method.value() == word).unwrap_or(Self::Other)
    }
}

/// The status of a reply, as a label of metrics.
#[derive(Clone, Copy, Debug)]
struct Status(u16);

impl Label for Status {
    const NAME: &'static str = "code";

    fn value(&self) -> &str {
        match self.0 {
            200 => "200",
            201 => "201",
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            405 => "405",
            408 => "408",
            409 => "409",
            413 => "413",
            422 => "422",
            503 => "503",
            _ => "other",
        }
    }
}

/// What is counted.
#[derive(Clone)]
struct Counts {
    requests: Counters<(Method, Status)>,
    refusals: Counters<Reason>,
}

impl Counts {
    fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counters("funicular_api_requests_total", "Requests to the API, by status."),
            refusals: registry.counters("funicular_api_refusals_total", "Requests and connections refused, by reason."),
        }
    }
}

/// The API, listening and not answering yet.
pub(super) struct Opened {
    listener: TcpListener,
    tls: Option<ServerTls>,
    issuers: Arc<Issuers>,
    desk: Arc<Desk>,
}

/// The paths that Peak's API has of its own; other parts add theirs with [`Routes::and`].
pub(super) fn routes(store: &Store, served: &Served) -> Routes {
    let zones = zones::Zones { store: store.clone(), served: Arc::clone(served) };
    about::routes(store).and(zones::routes(&zones))
}

/// Reads what the API proves itself and its callers with, and takes its address.
///
/// # Errors
/// [`ApiError`].
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub(super) fn open(api: &Api, routes: Routes, metrics: &Registry) -> Result<Opened, ApiError> {
    let verifier = Arc::new(Verifier::new(Vec::new(), |_| {}));
    let issuers = Arc::new(Issuers::new(&api.trust, Arc::clone(&verifier), None)?);
    let access = Arc::new(Access::new(api, verifier));
    let tls = api.tls.as_ref().map(|tls| match &tls.client_ca {
        Some(authorities) => ServerTls::for_anybody(authorities, &tls.certificate, &tls.key, &[serve::HTTP]),
        None => ServerTls::from_files(&tls.certificate, &tls.key, &[serve::HTTP]),
    });
    let listener = listen::tcp(api.listen).map_err(|cause| ApiError::Listen { addr: api.listen, cause })?;
    let desk = Desk { access, routes, counts: Counts::new(metrics) };
    Ok(Opened { listener, tls: tls.transpose()?, issuers, desk: Arc::new(desk) })
}

impl Opened {
    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whose tokens are accepted.
    pub(super) const fn issuers(&self) -> &Arc<Issuers> {
        &self.issuers
    }

    /// Answers requests until it is dropped.
    pub(super) async fn serve(self) -> Infallible {
        tokio::spawn(async move { self.issuers.look_after(|| {}).await });
        serve::serve(self.listener, self.tls, self.desk).await
    }
}
