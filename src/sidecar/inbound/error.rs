//! Why a call to this pod's services is refused.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::accept::AcceptError;
use super::admit::Misaddressed;
use super::forward::ForwardError;
use crate::model::Name;
use crate::model::token::{NotAllowed, WorkloadId};
use crate::sidecar::original::NotRedirected;
use crate::sidecar::quota::Over;
use crate::sidecar::report::Refusal;
use crate::sidecar::resolve::ResolveError;
use crate::trust::Unverifiable;

/// Why a connection is refused. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// Where was it going?
    #[error(transparent)]
    Intercept(#[from] NotRedirected),
    /// The source has as many connections as it may.
    #[error("{source_address} has {most} connections {}, as many as inbound.limits allows", .over.what())]
    TooMany {
        /// Who.
        source_address: IpAddr,
        /// Which limit.
        over: Over,
        /// The limit.
        most: u32,
    },
    /// No TLS, under a policy that wants it.
    #[error("the caller speaks no TLS: it has no sidecar, or the service's rule there says token=none")]
    Plaintext,
    /// TLS with none of our protocols.
    #[error("the caller's TLS offers no protocol of ours (ALPN funicular/1 or pp2)")]
    ForeignTls,
    /// Nothing to prove a name with.
    #[error("a caller wants TLS, and this sidecar has no `tls` to prove its services' names with")]
    NoCertificate,
    /// The name the caller asks for is no service of this pod.
    #[error("the ClientHello names {}, which is no service of this pod", .asked.as_deref().unwrap_or("nobody"))]
    UnknownService {
        /// The server name in the ClientHello, if any; at most 100 characters of it.
        asked: Option<Box<str>>,
    },
    /// As many callers are shaking hands as may.
    #[error("{most} callers are shaking hands, as many as inbound.limits.handshakes allows")]
    TooManyHandshakes {
        /// The limit.
        most: u32,
    },
    /// The destination belongs to a service that is not this pod's.
    #[error("{destination} is an address of {service}, which is no service of this pod: a route leads astray")]
    NotOurs {
        /// Where it arrived.
        destination: Ipv6Addr,
        /// Whose it is.
        service: Name,
    },
    /// It came straight to our port, and no pod of ours relays it.
    #[error("the connection was not redirected here, and is no relay of another pod of the service")]
    NotRelayed,
    /// The relaying pod is of another workload.
    #[error("{relayer} relays a connection, and is not of this pod's workload")]
    Relayer {
        /// Who it is.
        relayer: WorkloadId,
    },
    /// Nobody has confirmed for too long that the slice is this pod's.
    #[error("the lease of this pod was not renewed, and another may serve {destination} by now")]
    Lapsed {
        /// Where it arrived.
        destination: Ipv6Addr,
    },
    /// Handshake or header.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The header names another service than the handshake.
    #[error("the header is for {authority}, the handshake was for {service}")]
    Authority {
        /// In the header.
        authority: Name,
        /// In the handshake.
        service: Name,
    },
    /// The header's source is not who connects.
    #[error("the header's source is {claimed}, the connection comes from {peer}")]
    Source {
        /// In the header.
        claimed: Ipv6Addr,
        /// On the wire.
        peer: SocketAddr,
    },
    /// There is more than one, so nobody could say which counts.
    #[error("the request has {found} Peak-Authorization fields, or one that is no Bearer token")]
    TokenField {
        /// How many.
        found: usize,
    },
    /// The header refers to a token that did not come before it.
    #[error("the header refers to token {number}, and {tokens} came before it: the last alone can be referred to")]
    TokenReference {
        /// The number in the header.
        number: u32,
        /// How many tokens had come.
        tokens: u32,
    },
    /// The token.
    #[error(transparent)]
    Verify(#[from] Unverifiable),
    /// The destination is IPv4, or the caller is: no rule speaks of that.
    #[error("{client} connected to {destination}: structured addresses are IPv6")]
    NotIpv6 {
        /// Who.
        client: SocketAddr,
        /// Where.
        destination: SocketAddr,
    },
    /// The rules of our own service are not to be had.
    #[error("the rules of this pod's service are not known, so no address can be checked: {0}")]
    RulesUnknown(ResolveError),
    /// The destination.
    #[error(transparent)]
    Misaddressed(#[from] Misaddressed),
    /// The caller.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The application.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

impl Refusal for InboundError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Intercept(error) => error.reason(),
            Self::TooMany { over: Over::Open, .. } => "source-connections-limit",
            Self::TooMany { over: Over::Pending, .. } => "source-handshakes-limit",
            Self::TooManyHandshakes { .. } => "handshakes-limit",
            Self::NotOurs { .. } => "destination-not-ours",
            Self::Plaintext => "plaintext",
            Self::ForeignTls => "foreign-tls",
            Self::NoCertificate => "certificate-missing",
            Self::UnknownService { .. } => "service-unknown",
            Self::NotRelayed => "loop",
            Self::Relayer { .. } => "relayer-not-allowed",
            Self::Lapsed { .. } => "lease-lapsed",
            Self::Accept(error) => error.reason(),
            Self::Authority { .. } => "authority-wrong",
            Self::Source { .. } => "source-wrong",
            Self::TokenField { .. } => "token-field-malformed",
            Self::TokenReference { .. } => "token-reference-unknown",
            Self::Verify(error) => error.reason(),
            Self::NotIpv6 { .. } => "not-ipv6",
            Self::RulesUnknown(_) => "rules-unknown",
            Self::Misaddressed(error) => error.reason(),
            Self::NotAllowed(error) => error.reason(),
            Self::Forward(error) => error.reason(),
        }
    }
}
