//! What is wanted: the pods and their state, the load, and how much may move.

use std::collections::BTreeMap;

use super::PodId;

/// One pod as the leader sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pod {
    /// Its share, against the others'; 0 takes no slice while a pod with more lives.
    pub weight: u32,
    /// Whether it lives, and whether it stays.
    pub state: PodState,
}

impl Pod {
    /// A pod that lives, stays, and takes an equal share.
    pub const EQUAL: Self = Self { weight: 1, state: PodState::Serving };
}

/// Whether a pod lives, and whether it stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodState {
    /// Lives and stays.
    Serving,
    /// Lives and is to have no slice; it hands them over.
    Draining,
    /// Its lease has ended. It hands over nothing.
    Failed,
}

/// The pods of a service, and where its load is.
///
/// A pod that is not among them counts as failed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Demand {
    /// The pods.
    pub pods: BTreeMap<PodId, Pod>,
    /// Load by slice in any one unit, such as requests per second; a slice that is not there has none. Without any
    /// load nothing moves for load's sake.
    pub load: BTreeMap<u32, u32>,
}

impl Demand {
    /// Pods that live and stay, with equal shares.
    pub fn equal(pods: impl IntoIterator<Item = PodId>) -> Self {
        Self { pods: pods.into_iter().map(|pod| (pod, Pod::EQUAL)).collect(), load: BTreeMap::new() }
    }
}

/// How much one plan may move. The leader plans often; it turns its rates per minute into what is left of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// The most slices moved in all. Those whose owner has failed are moved whatever this says: nobody serves them.
    pub slices: u32,
    /// Of these, the most slices that move only so that pods have fewer prefixes.
    pub defragment: u32,
    /// When load alone moves slices.
    pub load: Hysteresis,
}

impl Budget {
    /// Every move that is due, and none besides.
    pub const DUE: Self = Self { slices: u32::MAX, defragment: 0, load: Hysteresis::STANDARD };
}

/// When load alone moves slices: not before a pod bears `begin` percent above its share, and then until none bears
/// more than `end` percent above. Between the two nothing moves, so load that wavers moves nothing to and fro.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hysteresis {
    /// Percent above a pod's share of the load at which moving begins.
    pub begin: u32,
    /// Percent above at which it ends; more than `begin` counts as `begin`.
    pub end: u32,
}

impl Hysteresis {
    /// Begins at half as much again, ends at a fifth above.
    pub const STANDARD: Self = Self { begin: 50, end: 20 };
}
