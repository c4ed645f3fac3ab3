//! A service's space and slices, as Peak's own zones publish them (SSA.md §1).

use ipnet::Ipv6Net;

use crate::model::ssa::current;
use crate::model::zone::{Key, Zones, types};
use crate::model::{Name, UnixSeconds};
use crate::wire::dns::ssa_records::{self, Legacy, Sources};

/// Why a service has no slices.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NoSlices {
    /// Its name has no room for `_ssa.` before it.
    #[error("{0} is too long a name")]
    Name(Name),
    /// Its records offer no structured addresses.
    #[error("{name} is no structured service: {cause}")]
    Legacy {
        /// The service.
        name: Name,
        /// Why.
        cause: Legacy,
    },
}

impl NoSlices {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "name-too-long",
            Self::Legacy { cause, .. } => cause.reason(),
        }
    }
}

/// The prefixes of the service's space, and two to the power of how many slices each has.
pub(super) fn of(zones: &Zones, name: &Name, now: UnixSeconds) -> Result<(Vec<Ipv6Net>, u8), NoSlices> {
    let rules = name.prefixed(b"_ssa").map_err(|_| NoSlices::Name(name.clone()))?;
    let sets = [(name, types::APL), (&rules, types::SVCB), (&rules, types::TXT)];
    let sets = sets.map(|(name, rtype)| records(zones, name, rtype));
    let [apl, svcb, txt] = sets.each_ref().map(|set| set.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let sources = Sources { apl: &apl, svcb: &svcb, txt: &txt, local: &[] };
    let published = ssa_records::service(&sources).map_err(|cause| NoSlices::Legacy { name: name.clone(), cause })?;
    let rule = current(&published.rules, now).or(published.rules.first());
    let bits = rule.map_or(0, crate::model::ssa::Rule::slice_bits);
    let prefixes = published.space.prefixes().to_vec();
    // Slices are cut to the host part (SSA.md §2).
    let room = prefixes.iter().map(|prefix| 128 - prefix.prefix_len()).min().unwrap_or(0);
    Ok((prefixes, bits.min(room)))
}

/// The records at exactly a name: services have no wildcards.
fn records(zones: &Zones, name: &Name, rtype: u16) -> Vec<Vec<u8>> {
    let mut key = Key::default();
    key.set(zones.seed(), name.wire());
    let Some(zone) = zones.find(&key, rtype) else { return Vec::new() };
    let set = zone.node(name).and_then(|node| node.set(rtype));
    set.map_or_else(Vec::new, |set| set.rdatas(zone.apex()).collect())
}
