//! What a sidecar and Peak say to each other about leases, over one TLS connection.
//!
//! ```text
//! sidecar                                  Peak's leader
//!   Register ─────────────────────────────▶  token verified, lease in the log
//!            ◀───────────────────────────── Registered, Share of each service
//!   Renew, every third of the lease's life ▶
//!            ◀───────────────────────────── Renewed, once a majority knows this leader
//!            ◀───────────────────────────── Share, whenever it changes
//!   Report, Wait ─────────────────────────▶  a handover's next step
//!   Drain, Return ────────────────────────▶  the pod is about to stop, has nothing left
//! ```
//!
//! A frame is its length in octets, four of them, big-endian, and as many octets of postcard. ALPN is [`PROTOCOL`]; its
//! number is raised by a change that an older peer would misread. Other nodes than the leader answer
//! [`FromPeak::Elsewhere`] and close.

use std::net::{Ipv6Addr, SocketAddr};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::Name;
use crate::model::registry::lease::{HandoverId, Holder, Reported, Share};
use crate::model::ssa::plan::PodId;

/// The protocol's name in TLS (ALPN).
pub const PROTOCOL: &str = "funicular-lease/1";

/// The longest frame in octets, its length not counted: shares of 16,384 slices that cannot be joined fit.
pub const LONGEST: usize = 1 << 20;

/// What a sidecar begins with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Register {
    /// A workload token whose audience is Peak's name.
    pub token: Token,
    /// Whose run it is.
    pub holder: Holder,
    /// The pod's name.
    pub instance: Box<str>,
    /// Where its node's agent takes strays; none where there is no agent.
    pub node: Option<Ipv6Addr>,
    /// Where its sidecar is reached without any slice; with the address `::`, where the connection comes from.
    pub inbound: (Ipv6Addr, u16),
    /// Its share, against the others'.
    pub weight: u32,
    /// What it serves.
    pub services: Vec<Name>,
}

/// A token in transit. Never printed.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Token(pub Box<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a sidecar says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FromSidecar {
    /// It comes, or comes back.
    Register(Box<Register>),
    /// It lives.
    Renew {
        /// Grows with each renewal of a connection; the answer names it.
        number: u64,
        /// A fresh token, when it has one.
        token: Option<Token>,
        /// Connections to the hottest slices since the last renewal: the service by its place in the registration, a
        /// slice by its first address.
        load: Vec<(u16, Ipv6Addr, u32)>,
    },
    /// A handover has come further.
    Report {
        /// The service, by its place in the registration.
        service: u16,
        /// Which.
        handover: HandoverId,
        /// What has been done.
        reported: Reported,
    },
    /// A handover does not go on.
    Wait {
        /// The service, by its place in the registration.
        service: u16,
        /// Which.
        handover: HandoverId,
        /// Why, for people.
        waits: Box<str>,
    },
    /// The pod is to have no slices any more.
    Drain,
    /// The pod gives its lease back.
    Return,
}

/// What Peak says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FromPeak {
    /// The lease, and its life.
    Registered {
        /// The lease's number.
        pod: PodId,
        /// How long it lasts without being renewed, in milliseconds.
        life_ms: u32,
    },
    /// The lease lasts its whole life from when the renewal was sent.
    Renewed {
        /// The renewal's number.
        number: u64,
    },
    /// What the pod has of one service, in the place of all it had.
    Share {
        /// The service, by its place in the registration.
        service: u16,
        /// The prefixes of its space.
        space: Vec<Ipv6Net>,
        /// The length of a slice's prefix.
        slice_length: u8,
        /// What it has.
        share: Share,
    },
    /// Another node leads, or none.
    Elsewhere {
        /// Where the leader takes leases, if that is known.
        leader: Option<SocketAddr>,
    },
    /// The connection ends.
    Refused {
        /// A stable word.
        reason: Box<str>,
    },
}

/// Why octets are no frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`LONGEST`].
    #[error("a frame of {octets} octets, at most {LONGEST} are read")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// Nothing that this version says.
    #[error("a frame that makes no sense")]
    Malformed,
}

impl FrameError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "lease-frame-too-long",
            Self::Malformed => "lease-frame-malformed",
        }
    }
}

/// A message as a frame.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // Writing to memory does not fail, and none of the types refuses to be written.
    let mut frame = postcard::to_extend(message, vec![0; 4]).unwrap_or_default();
    let length = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The message at the start of some octets and how many it takes; none while it is not whole.
///
/// # Errors
/// [`FrameError`].
pub fn decode<M: DeserializeOwned>(octets: &[u8]) -> Result<Option<(M, usize)>, FrameError> {
    let Some((length, rest)) = octets.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > LONGEST {
        return Err(FrameError::TooLong { octets: length });
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(|_| FrameError::Malformed)?;
    Ok(Some((message, 4 + length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn register() -> FromSidecar {
        FromSidecar::Register(Box::new(Register {
            token: Token(b"a.b.c".as_slice().into()),
            holder: Holder(7),
            instance: "orders-1".into(),
            node: None,
            inbound: (Ipv6Addr::UNSPECIFIED, 15_006),
            weight: 1,
            services: vec!["orders.shop.peak".parse().unwrap()],
        }))
    }

    #[test]
    fn a_frame_reads_as_it_was_written_and_not_before_it_is_whole() {
        let frame = encode(&register());
        for short in 0..frame.len() {
            assert_eq!(decode::<FromSidecar>(&frame[..short]), Ok(None), "{short} octets");
        }
        assert_eq!(decode(&frame), Ok(Some((register(), frame.len()))));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let too_long = (LONGEST as u32 + 1).to_be_bytes();
        assert_eq!(decode::<FromPeak>(&too_long), Err(FrameError::TooLong { octets: LONGEST + 1 }));
        assert_eq!(decode::<FromPeak>(&(LONGEST as u32).to_be_bytes()), Ok(None));
    }

    #[test]
    fn neither_token_nor_holder_is_ever_printed() {
        let text = format!("{:?}", register());
        assert!(!text.contains("a.b.c") && !text.contains("Holder(7)"), "{text}");
    }

    proptest! {
        #[test]
        fn no_octets_make_reading_panic(octets: Vec<u8>) {
            let _ = decode::<FromSidecar>(&octets);
            let _ = decode::<FromPeak>(&octets);
            let mut framed = (octets.len() as u32).to_be_bytes().to_vec();
            framed.extend(&octets);
            let _ = decode::<FromSidecar>(&framed);
            let _ = decode::<FromPeak>(&framed);
        }
    }
}
