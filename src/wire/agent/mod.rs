//! What a pod's sidecar and the agent of its node say to each other, over a unix socket.
//!
//! One JSON object a line, so that a person can read along and either side may be the newer one: keys that are not
//! known are passed over. The agent begins with a [`Welcome`]; the sidecar sends a [`Claim`] whenever what it wants has
//! changed; the agent answers each with one or more [`Report`]s, the last of which holds until the next claim.
//!
//! Invariant: a claim is whole. It says everything that the pod wants of its node, so a connection, a sidecar or an
//! agent that is lost costs nothing: the next claim puts everything right. A claim without spaces gives everything
//! back at once; a connection that ends without one leaves the routes for a while, because sidecars come back.
//!
//! ```text
//! slices of a pod       route to it   connections that began elsewhere       connections that began here
//! owned                 yes           –                                      stay
//! arriving, from X      yes, after    are carried to X until they end        stay
//!                       the carrying
//! leaving               no            –                                      stay until they end
//! ```

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version that this program speaks; a change that an older peer would misread raises it.
pub const VERSION: u32 = 1;

/// The longest line, its end included: a claim of 16,384 slices that cannot be joined fits.
pub const LONGEST_LINE: usize = 1 << 20;

/// The agent's first line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {
    /// The protocol's [`VERSION`] that the agent speaks.
    pub version: u32,
    /// Where other nodes carry strays to: what a [`Place`] says of pods on this node.
    pub node: Ipv6Addr,
    /// The pod's own address, as the agent sees it: routes lead there.
    pub pod: Ipv6Addr,
}

/// Everything that a pod wants of its node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claim {
    /// Grows with each claim of one sidecar; reports name it.
    pub number: u64,
    /// The service spaces in which the pod has slices.
    pub spaces: Vec<SpaceClaim>,
}

/// A pod's slices of one service's space. No two prefixes of one claim overlap.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SpaceClaim {
    /// The whole space.
    pub space: Ipv6Net,
    /// Slices that are the pod's, and whose connections are all its own.
    #[serde(default)]
    pub owned: Vec<Ipv6Net>,
    /// Slices that are the pod's from now on, while connections that began before live on elsewhere.
    #[serde(default)]
    pub arriving: Vec<Arriving>,
    /// Slices that are another pod's by now, while this pod keeps the connections that began before.
    #[serde(default)]
    pub leaving: Vec<Ipv6Net>,
}

/// Slices on their way to a pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Arriving {
    /// Which.
    pub prefixes: Vec<Ipv6Net>,
    /// Who has had them.
    pub from: Place,
}

/// Where a pod is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// What the [`Welcome`] of the pod's agent says of its node.
    pub node: Ipv6Addr,
    /// The pod's own address.
    pub pod: Ipv6Addr,
}

/// How far the agent is with a claim.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The claim's number.
    pub number: u64,
    /// How far.
    #[serde(flatten)]
    pub state: State,
}

/// What has become of a claim.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// The node routes everything as it was claimed.
    InPlace,
    /// Everything but some arriving slices is routed: their strays could not be carried yet. The agent tries on, and
    /// reports again.
    Waiting {
        /// Why, as a stable word.
        reason: String,
        /// Why, for people.
        text: String,
    },
    /// Nothing of the claim is done, and what an earlier one said goes on. The sidecar has to claim something else.
    Refused {
        /// Why, as a stable word.
        reason: String,
        /// Why, for people.
        text: String,
    },
}

/// What one agent tells another: slices that it routes to pods of its node. The first tells all there are; an empty one
/// says that it is still there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Routed {
    /// The protocol's [`VERSION`] that the agent speaks.
    pub version: u32,
    /// What its [`Welcome`] says of the node.
    pub node: Ipv6Addr,
    /// Slices that are on the node from now on.
    #[serde(default)]
    pub added: Vec<Ipv6Net>,
    /// Slices that are not on the node any longer.
    #[serde(default)]
    pub removed: Vec<Ipv6Net>,
}

/// Why a line means nothing.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no JSON, or not what was expected.
    #[error("a line that makes no sense: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It does not end.
    #[error("a line of more than {LONGEST_LINE} octets")]
    TooLong,
}

/// What is wrong with a claim by itself.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadClaim {
    /// A prefix lies elsewhere.
    #[error("{prefix} is no part of {space}")]
    OutsideSpace {
        /// The prefix.
        prefix: Ipv6Net,
        /// The space it stands under.
        space: Ipv6Net,
    },
    /// Two prefixes of one claim share addresses.
    #[error("{one} and {other} overlap")]
    Overlap {
        /// The prefix that begins first.
        one: Ipv6Net,
        /// The prefix that shares addresses with it.
        other: Ipv6Net,
    },
}

impl BadClaim {
    /// A stable word for reports and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OutsideSpace { .. } => "claim-outside-space",
            Self::Overlap { .. } => "claim-overlaps",
        }
    }
}

impl Claim {
    /// Whether the claim makes sense by itself, whoever makes it. A prefix without slices (`leaving` that another
    /// `owned` covers) would make routes depend on their order, so no two may overlap.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), BadClaim> {
        let mut all = Vec::new();
        for claim in &self.spaces {
            for prefix in claim.prefixes() {
                if !claim.space.contains(&prefix) {
                    return Err(BadClaim::OutsideSpace { prefix, space: claim.space });
                }
                all.push(prefix.trunc());
            }
        }
        // Sorted by first address, shorter prefixes first: whatever overlaps stands side by side.
        all.sort_unstable_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
        match all.windows(2).find(|pair| pair[0].contains(&pair[1])) {
            Some(pair) => Err(BadClaim::Overlap { one: pair[0], other: pair[1] }),
            None => Ok(()),
        }
    }
}

impl SpaceClaim {
    /// Every prefix that it names.
    pub fn prefixes(&self) -> impl Iterator<Item = Ipv6Net> {
        let arriving = self.arriving.iter().flat_map(|arriving| &arriving.prefixes);
        self.owned.iter().chain(arriving).chain(&self.leaving).copied()
    }
}

/// A message as a line.
///
/// # Panics
/// Never: no message has a map with keys other than texts.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_else(|error| unreachable!("plain data: {error}"));
    line.push(b'\n');
    line
}

/// The message in a line, with or without the line's end.
///
/// # Errors
/// [`BadLine::Malformed`].
pub fn decode<M: DeserializeOwned>(line: &[u8]) -> Result<M, BadLine> {
    Ok(serde_json::from_slice(line)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn claim(owned: &[&str], arriving: &[&str], leaving: &[&str]) -> Claim {
        let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
        let from = Place { node: "2001:db8::1".parse().unwrap(), pod: "2001:db8:1::1".parse().unwrap() };
        let arriving = vec![Arriving { prefixes: nets(arriving), from }];
        let space = net("2001:db8:5::/64");
        Claim { number: 7, spaces: vec![SpaceClaim { space, owned: nets(owned), arriving, leaving: nets(leaving) }] }
    }

    #[test]
    fn a_claim_and_a_report_are_read_as_they_were_written() {
        let claim = claim(&["2001:db8:5::/66"], &["2001:db8:5:0:4000::/66"], &["2001:db8:5:0:8000::/66"]);
        let waiting = State::Waiting { reason: "carrying-unavailable".into(), text: "no vxlan".into() };
        let report = Report { number: 7, state: waiting };
        assert_eq!(decode::<Claim>(&encode(&claim)).unwrap(), claim);
        assert_eq!(decode::<Report>(&encode(&report)).unwrap(), report);
        assert_eq!(encode(&Report { number: 3, state: State::InPlace }), b"{\"number\":3,\"state\":\"in-place\"}\n");
    }

    #[test]
    fn a_newer_peer_may_say_more() {
        let line = br#"{"number":1,"colour":"red","spaces":[{"space":"2001:db8:5::/64","weight":3}]}"#;
        let read = decode::<Claim>(line).unwrap();
        assert_eq!(read.spaces[0].owned, []);
    }

    #[test]
    fn a_prefix_outside_its_space_is_refused_and_the_whole_space_is_not() {
        assert_eq!(claim(&["2001:db8:5::/64"], &[], &[]).check(), Ok(()));
        let outside = claim(&["2001:db8:5::/63"], &[], &[]).check().unwrap_err();
        assert_eq!(outside.reason(), "claim-outside-space");
    }

    #[test]
    fn prefixes_may_touch_and_not_overlap() {
        let touching = claim(&["2001:db8:5::/66"], &["2001:db8:5:0:4000::/66"], &["2001:db8:5:0:8000::/65"]);
        assert_eq!(touching.check(), Ok(()));
        let twice = claim(&["2001:db8:5::/65"], &[], &["2001:db8:5:0:7fff::/80"]).check().unwrap_err();
        assert_eq!(twice.reason(), "claim-overlaps");
        // What lies between two that overlap does not hide it.
        let around = claim(&["2001:db8:5::/66", "2001:db8:5::/80", "2001:db8:5:0:1::/80"], &[], &[]);
        assert!(around.check().is_err());
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode::<Claim>(&octets), decode::<Report>(&octets), decode::<Welcome>(&octets));
        }
    }
}
