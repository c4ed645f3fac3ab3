//! Why a request is answered by the sidecar, and with which status.

use hyper::StatusCode;

use super::super::OutboundError;
use super::super::pick::NoCandidate;
use super::super::transport::AttemptError;
use crate::model::ssa::ComputeError;
use crate::sidecar::http::answer::BadRequest;
use crate::sidecar::report::Refusal;

/// Why a request has no answer of the service's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The request is not passed on.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// There is no connection to ask on.
    #[error(transparent)]
    Unreached(#[from] OutboundError),
    /// The connection ended without an answer.
    #[error("the server's connection ended before it answered: {0}")]
    Lost(hyper::Error),
    /// The answer is not passed on.
    #[error("the server's answer is not passed on: {0}")]
    Answer(BadRequest),
}

impl Refusal for Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::Bad(error) => error.reason(),
            Self::Unreached(error) => error.reason(),
            Self::Lost(_) => "server-lost",
            Self::Answer(_) => "answer-malformed",
        }
    }
}

impl Failure {
    /// RFC 9110 §15.6: 502 for a server that is there and does wrong, 503 for what is not there to be asked, 504 for one
    /// that takes too long.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Bad(error) => error.status(),
            Self::Unreached(error) => status_of(error),
            Self::Lost(_) | Self::Answer(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

fn status_of(error: &OutboundError) -> StatusCode {
    match error {
        OutboundError::Pick(NoCandidate::Compute(ComputeError::ContentNotHex)) => StatusCode::BAD_REQUEST,
        OutboundError::Deadline | OutboundError::Unreached { last: AttemptError::TimedOut { .. }, .. } => {
            StatusCode::GATEWAY_TIMEOUT
        }
        OutboundError::Unreached { .. } => StatusCode::BAD_GATEWAY,
        OutboundError::Intercept(_)
        | OutboundError::Ask(_)
        | OutboundError::Gone(_)
        | OutboundError::Loop { .. }
        | OutboundError::Recognise(_)
        | OutboundError::Shed { .. }
        | OutboundError::Route(_)
        | OutboundError::Pick(_)
        | OutboundError::Authenticate(_)
        | OutboundError::NoAddress { .. }
        | OutboundError::Legacy { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}
