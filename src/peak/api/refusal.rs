//! Why a request is not done, and how that is said: a status, a stable word, a sentence (RFC 9457).

use super::access::{Need, TokenError};
use super::route::Reply;
use crate::model::Name;
use crate::model::registry::Refused;
use crate::model::zone::UpdateError;
use crate::peak::slices::CannotAsk;
use crate::peak::store::ProposeError;
use crate::wire::api::{ApiFault, BadKey, Problem};

/// A request that is not done. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub(in crate::peak) enum Refusal {
    /// No such path.
    #[error("there is no such path: GET /v1/openapi.yaml lists them")]
    Path,
    /// Another method.
    #[error("this path takes {allowed}")]
    Method {
        /// Those it takes.
        allowed: String,
    },
    /// A web page's request, or one that names another host than this machine.
    #[error("{0}")]
    Page(&'static str),
    /// Nobody known.
    #[error("who calls is not known: show a certificate that is listed under api.callers, or a bearer token")]
    Unknown,
    /// A token that is not believed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Somebody known, who may not.
    #[error("{who} may not do this: it needs \"may: {}\" in api.callers", word(*.need))]
    NotAllowed {
        /// The caller.
        who: String,
        /// What is needed.
        need: Need,
    },
    /// Somebody who may change other zones.
    #[error("{who} may not change the zone {zone}: api.callers lists others")]
    Zone {
        /// The caller.
        who: String,
        /// The zone.
        zone: Name,
    },
    /// The body is too long.
    #[error("the body has more than {most} octets")]
    TooLong {
        /// The most.
        most: usize,
    },
    /// The body did not come.
    #[error("the body ended early, or did not come in time")]
    Unfinished,
    /// The body is not the JSON expected.
    #[error("the body: {0}")]
    Json(serde_json::Error),
    /// A part of the query.
    #[error("{name} in the query is {expected}")]
    Query {
        /// Its name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A name of the request.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// The zone in the path or the body.
    #[error("{0:?} is no domain name")]
    ZoneName(String),
    /// A change that cannot be read.
    #[error("/zones/{zone}{fault}")]
    Fault {
        /// Which zone of the batch, from 0.
        zone: usize,
        /// What is wrong.
        fault: ApiFault,
    },
    /// The zone file that was sent; a line for each fault.
    #[error("{0}")]
    ZoneFile(String),
    /// No such zone here.
    #[error("no zone {0} is served here")]
    NoZone(Name),
    /// A zone that is not the registry's.
    #[error("the zone {0} comes from a file or from primaries: only zones of the registry are changed here")]
    NotReplicated(Name),
    /// What is asked of slices.
    #[error(transparent)]
    Slices(#[from] CannotAsk),
    /// The registry refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The registry does not reply.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Something of ours broke.
    #[error("a part of the server failed; its log says more")]
    Broken,
}

const fn word(need: Need) -> &'static str {
    match need {
        Need::Nothing | Need::Read => "read",
        Need::Write => "write",
        Need::Admin => "admin",
    }
}

impl Refusal {
    /// The HTTP status (RFC 9110 §15).
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::Path | Self::NoZone(_) | Self::Refused(Refused::NoZone(_)) => 404,
            Self::Method { .. } => 405,
            Self::Page(_) | Self::NotAllowed { .. } | Self::Zone { .. } => 403,
            Self::Unknown | Self::Token(_) => 401,
            Self::TooLong { .. } => 413,
            Self::Unfinished => 408,
            Self::Json(_) | Self::Query { .. } | Self::Key(_) | Self::ZoneName(_) => 400,
            Self::Fault { .. } | Self::ZoneFile(_) | Self::Refused(Refused::Faulty { .. }) => 422,
            Self::Refused(Refused::Update { cause: UpdateError::Change(_) | UpdateError::WildcardNs(_), .. }) => 422,
            Self::NotReplicated(_) | Self::Refused(Refused::Update { .. } | Refused::ZoneExists(_)) => 409,
            Self::Slices(CannotAsk::Service(_) | CannotAsk::Pod(_)) => 404,
            Self::Slices(CannotAsk::Ambiguous(_) | CannotAsk::Prefix(_)) => 422,
            Self::Propose(_) => 503,
            Self::Broken => 500,
        }
    }

    /// The stable word.
    pub(in crate::peak) fn reason(&self) -> &'static str {
        match self {
            Self::Path => "path-unknown",
            Self::Method { .. } => "method-not-allowed",
            Self::Page(_) => "web-page",
            Self::Unknown => "caller-unknown",
            Self::Token(error) => error.reason(),
            Self::NotAllowed { .. } => "caller-not-allowed",
            Self::Zone { .. } => "zone-not-allowed",
            Self::TooLong { .. } => "body-too-long",
            Self::Unfinished => "body-unfinished",
            Self::Json(_) => "body-malformed",
            Self::Query { .. } => "query-malformed",
            Self::Key(_) => "key-malformed",
            Self::ZoneName(_) => "name-malformed",
            Self::Fault { fault, .. } => fault.reason(),
            Self::ZoneFile(_) => "zone-file-faulty",
            Self::NoZone(_) => "zone-unknown",
            Self::NotReplicated(_) => "zone-not-replicated",
            Self::Slices(error) => error.reason(),
            Self::Refused(refused) => refused.reason(),
            Self::Propose(error) => error.reason(),
            Self::Broken => "server-failed",
        }
    }

    /// The reply that says it.
    pub(super) fn reply(&self) -> Reply {
        let problem = Problem { status: self.status(), reason: self.reason().to_owned(), detail: self.to_string() };
        let reply = Reply::json(&problem).status(problem.status);
        Reply { content_type: "application/problem+json", ..reply }
    }
}
