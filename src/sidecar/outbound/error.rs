//! Why a connection of the pod's programs is not carried.

use std::io;
use std::net::SocketAddr;

use super::authenticate::NoCredential;
use super::explicit::NotAsked;
use super::pick::NoCandidate;
use super::recognise::Unrecognised;
use super::source::NoRoute;
use super::transport::AttemptError;
use crate::model::Name;
use crate::sidecar::original::NotRedirected;
use crate::sidecar::quota::Over;
use crate::sidecar::report::Refusal;

/// Why a connection of the application is not carried. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Where was it going?
    #[error(transparent)]
    Intercept(#[from] NotRedirected),
    /// Where does it want to go?
    #[error(transparent)]
    Ask(#[from] NotAsked),
    /// It has gone before anything was carried.
    #[error("the application broke off before anything was carried: {0}")]
    Gone(io::Error),
    /// It wants to go to ourselves.
    #[error("{dst} is this sidecar's own port: carried on, the connection would come back to us")]
    Loop {
        /// Where it wanted to go.
        dst: SocketAddr,
    },
    /// Which service is that?
    #[error(transparent)]
    Recognise(#[from] Unrecognised),
    /// The service has as many connections as it may.
    #[error("{service} has {most} connections {}, as many as outbound.limits allows", .over.what())]
    Shed {
        /// The service.
        service: Name,
        /// Which limit.
        over: Over,
        /// The limit.
        most: u32,
    },
    /// From where?
    #[error(transparent)]
    Route(#[from] NoRoute),
    /// To which address?
    #[error(transparent)]
    Pick(#[from] NoCandidate),
    /// As whom?
    #[error(transparent)]
    Authenticate(#[from] NoCredential),
    /// No candidate gave a connection.
    #[error("none of {attempts} candidates gave a connection; the last: {last}")]
    Unreached {
        /// How many were tried.
        attempts: u32,
        /// What became of the last.
        last: AttemptError,
    },
    /// Not even one attempt fitted into the deadline.
    #[error("the connect deadline passed before an address was computed")]
    Deadline,
    /// A name that is no service's has no address either.
    #[error("{name}, which is no structured service, cannot be looked up: {cause}")]
    NoAddress {
        /// The name.
        name: Name,
        /// What the system said.
        cause: io::Error,
    },
    /// A destination that is no service did not answer.
    #[error("{dst}, which is no structured service, cannot be connected to: {cause}")]
    Legacy {
        /// The original destination.
        dst: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

impl Refusal for OutboundError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Intercept(error) => error.reason(),
            Self::Ask(error) => error.reason(),
            Self::Gone(_) => "client-broke-off",
            Self::Loop { .. } => "loop",
            Self::Recognise(error) => error.reason(),
            Self::Shed { over: Over::Open, .. } => "service-connections-limit",
            Self::Shed { over: Over::Pending, .. } => "service-pending-limit",
            Self::Route(_) => "no-route",
            Self::Pick(error) => error.reason(),
            Self::Authenticate(error) => error.reason(),
            Self::Unreached { last, .. } => last.reason(),
            Self::Deadline => "connect-deadline",
            Self::NoAddress { .. } => "legacy-no-address",
            Self::Legacy { .. } => "legacy-unreachable",
        }
    }
}

impl Refusal for AttemptError {
    fn reason(&self) -> &'static str {
        AttemptError::reason(self)
    }
}
