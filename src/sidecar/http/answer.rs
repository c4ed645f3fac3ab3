//! What a sidecar answers itself: a status, a word for machines, a line for people.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::fields::{REFUSAL, TooLong};

/// A request that is not passed on as it stands.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::sidecar) enum BadRequest {
    /// RFC 6585 §5.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// RFC 9112 §3.2: one Host, no more and no less.
    #[error("the request has {found} Host fields, where one is right")]
    Hosts {
        /// How many.
        found: u32,
    },
    /// RFC 9110 §7.2: Host is an authority without user; where the target has one as well, they are the same.
    #[error("the request's Host is no host, or not that of its target")]
    Host,
    /// RFC 9112 §3.2.
    #[error("the request's target is none that its method can have")]
    Target,
    /// RFC 9112 §6.1.
    #[error("the content has a transfer coding besides chunked, which is not read here")]
    Coding,
    /// RFC 9110 §15.2.2.
    #[error("the answer changes to another protocol, and nobody asked for that")]
    Unasked,
    /// RFC 9110 §9.3.6: only the form of HTTP/1.1 can be passed on between two connections of it.
    #[error("a server that speaks only another version of HTTP cannot be asked for this")]
    Version,
}

impl BadRequest {
    /// The stable label of metrics and logs.
    pub(in crate::sidecar) fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "header-too-large",
            Self::Hosts { .. } | Self::Host => "host-malformed",
            Self::Target => "target-malformed",
            Self::Coding => "transfer-coding-unknown",
            Self::Unasked => "upgrade-unasked",
            Self::Version => "http-version-wrong",
        }
    }

    /// The status that says so.
    pub(in crate::sidecar) fn status(&self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Hosts { .. } | Self::Host | Self::Target => StatusCode::BAD_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Unasked => StatusCode::BAD_GATEWAY,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl crate::sidecar::report::Refusal for BadRequest {
    fn reason(&self) -> &'static str {
        BadRequest::reason(self)
    }
}

/// An answer of our own, by which programs and people can tell that it is not the application's.
pub(in crate::sidecar) fn refusal(status: StatusCode, reason: &'static str, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::text(format!("funicular: {text}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(REFUSAL, HeaderValue::from_static(reason));
    answer
}
