//! Why a name leads to no service, or a question to no answer.

use crate::model::Name;
use crate::wire::dns::ssa_records::Legacy;

/// Why a lookup gave nothing. One cause, one variant, one `reason`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// The name lies below none of the zones that Peak serves, so Peak is not asked about it.
    #[error("{name} lies in none of Peak's zones (dns.peak.zones)")]
    NotInPeak {
        /// What was asked.
        name: Name,
    },
    /// NXDOMAIN: neither the name nor one below it exists.
    #[error("{name} does not exist")]
    NoName {
        /// What was asked.
        name: Name,
    },
    /// The name exists and offers no SSA, or what it offers is malformed.
    #[error("{name} offers no structured service addressing: {cause}")]
    Legacy {
        /// What was asked.
        name: Name,
        /// What is missing or wrong.
        cause: Legacy,
    },
    /// No name server said anything in time.
    #[error("no name server of {zone} answers; last tried for {name}")]
    Unreachable {
        /// What was asked.
        name: Name,
        /// Whose servers were asked.
        zone: Name,
    },
    /// Name servers spoke and none gave an answer that may be used: SERVFAIL, REFUSED, not authoritative, or broken.
    #[error("the name servers of {zone} answer, but give nothing usable for {name}")]
    ServerFailure {
        /// What was asked.
        name: Name,
        /// Whose servers were asked.
        zone: Name,
    },
    /// A delegation whose servers have no usable address.
    #[error("{zone} is delegated to servers without a usable address: give glue, or name servers inside Peak's zones")]
    Glueless {
        /// The delegated zone.
        zone: Name,
    },
    /// More referrals or nested name server lookups than any sane zone needs.
    #[error("{name} leads through too many delegations")]
    TooManyReferrals {
        /// What was asked.
        name: Name,
    },
    /// CNAME records that come back to where they began, or too many of them.
    #[error("{name} is an alias of an alias too many times over")]
    AliasLoop {
        /// What was asked.
        name: Name,
    },
    /// As many different questions are being asked as this sidecar allows.
    #[error("too many different names are being looked up at once; {name} was not")]
    Busy {
        /// What was asked.
        name: Name,
    },
}

impl ResolveError {
    /// The stable word for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotInPeak { .. } => "not-in-peak",
            Self::NoName { .. } => "no-such-name",
            Self::Legacy { .. } => "legacy-name",
            Self::Unreachable { .. } => "name-servers-unreachable",
            Self::ServerFailure { .. } => "name-servers-failing",
            Self::Glueless { .. } => "delegation-without-address",
            Self::TooManyReferrals { .. } => "too-many-referrals",
            Self::AliasLoop { .. } => "alias-loop",
            Self::Busy { .. } => "resolver-busy",
        }
    }

    /// Whether this is what DNS says, rather than a failure to learn what it says: such a name may be used the old way.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        match self {
            Self::NotInPeak { .. } | Self::NoName { .. } | Self::Legacy { .. } => true,
            Self::Unreachable { .. }
            | Self::ServerFailure { .. }
            | Self::Glueless { .. }
            | Self::TooManyReferrals { .. }
            | Self::AliasLoop { .. }
            | Self::Busy { .. } => false,
        }
    }
}
