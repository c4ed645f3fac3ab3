//! The pods of this node that have claimed something, and the numbers by which their connections are marked.
//!
//! Invariant: no two pods have the same number, and a pod keeps its number as long as its routes are there, an agent's
//! restart included: connections carry it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use tokio::time::Instant;

use crate::wire::agent::{Claim, State};

/// A pod's network namespace, by its inode.
pub(super) type PodId = u64;

/// A pod, as its sidecar and the kernel describe it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// Its own address: the next hop of its slices.
    pub(super) address: Ipv6Addr,
    /// The node's device that leads to it.
    pub(super) device: String,
    /// Which marks its connections have.
    pub(super) number: u16,
    /// What it has claimed last; nothing yet, when its sidecar has only just come.
    pub(super) claim: Option<Claim>,
    /// When it has said so, counted in claims of all pods: later claims win.
    pub(super) heard: u64,
    /// What its sidecar was last told.
    pub(super) told: Option<(u64, State)>,
    /// Since when its sidecar is gone.
    pub(super) gone: Option<Instant>,
    /// Which of its sidecar's connections counts: the latest.
    pub(super) connection: u64,
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_id: BTreeMap<PodId, Pod>,
    /// Numbers of pods that an earlier agent knew, until they come or are given up.
    remembered: BTreeMap<Ipv6Addr, u16>,
    last_number: u16,
    claims: u64,
    connections: u64,
}

impl Pods {
    /// With the numbers that an earlier agent has given.
    pub(super) fn remembering(remembered: BTreeMap<Ipv6Addr, u16>) -> Self {
        let last_number = remembered.values().copied().max().unwrap_or(0);
        Self { remembered, last_number, ..Self::default() }
    }

    /// A sidecar has come; gives the number of its connection.
    pub(super) fn join(&mut self, id: PodId, address: Ipv6Addr, device: String) -> u64 {
        self.connections += 1;
        let connection = self.connections;
        if let Some(pod) = self.by_id.get_mut(&id).filter(|pod| pod.address == address) {
            (pod.device, pod.connection) = (device, connection);
            return connection;
        }
        // A namespace's number may come again when its pod has gone, and so may an address.
        self.by_id.retain(|known, pod| *known != id && pod.address != address);
        let number = self.remembered.get(&address).copied().unwrap_or_else(|| self.free_number());
        let pod = Pod { address, device, number, claim: None, heard: 0, told: None, gone: None, connection };
        self.by_id.insert(id, pod);
        connection
    }

    /// The next number that nobody has, in turn, so that one that was given up is not given again soon.
    fn free_number(&mut self) -> u16 {
        loop {
            self.last_number = self.last_number.checked_add(1).unwrap_or(1);
            let taken = |number: u16| {
                self.by_id.values().any(|pod| pod.number == number)
                    || self.remembered.values().any(|remembered| *remembered == number)
            };
            if !taken(self.last_number) {
                return self.last_number;
            }
        }
    }

    /// A pod has claimed something, over the connection given.
    pub(super) fn claimed(&mut self, id: PodId, connection: u64, claim: Claim) {
        self.claims += 1;
        let Some(pod) = self.by_id.get_mut(&id).filter(|pod| pod.connection == connection) else { return };
        self.remembered.remove(&pod.address);
        pod.heard = self.claims;
        pod.gone = None;
        pod.told = None;
        pod.claim = Some(claim);
    }

    /// A sidecar's connection has ended. A pod that has claimed nothing, or has given everything back, is forgotten.
    pub(super) fn left(&mut self, id: PodId, connection: u64, now: Instant) {
        let Some(pod) = self.by_id.get_mut(&id).filter(|pod| pod.connection == connection) else { return };
        let has_nothing = pod.claim.as_ref().is_none_or(|claim| claim.spaces.is_empty());
        // One that an earlier agent knew goes with everything else of that time.
        if has_nothing {
            self.by_id.remove(&id);
        } else {
            pod.gone = Some(now);
        }
    }

    /// Forgets pods whose sidecar is gone since `before`, or that no device leads to; gives how many.
    pub(super) fn forget(&mut self, before: Instant, there: impl Fn(&str) -> bool) -> usize {
        let known = self.by_id.len();
        self.by_id.retain(|_, pod| pod.gone.is_none_or(|since| since > before && there(&pod.device)));
        known - self.by_id.len()
    }

    /// Forgets what an earlier agent knew of pods that have not come.
    pub(super) fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    /// The pods that an earlier agent knew and that have claimed nothing yet.
    pub(super) const fn remembered(&self) -> &BTreeMap<Ipv6Addr, u16> {
        &self.remembered
    }

    /// When the next pod whose sidecar is gone may be forgotten, if it has been gone for `linger`.
    pub(super) fn next_to_forget(&self, linger: std::time::Duration) -> Option<Instant> {
        self.by_id.values().filter_map(|pod| pod.gone).min().map(|gone| gone + linger)
    }

    pub(super) fn get_mut(&mut self, id: PodId) -> Option<&mut Pod> {
        self.by_id.get_mut(&id)
    }

    /// All that have claimed something, those that were heard later last.
    pub(super) fn claimants(&self) -> Vec<(PodId, &Pod, &Claim)> {
        let mut claimants: Vec<_> =
            self.by_id.iter().filter_map(|(id, pod)| Some((*id, pod, pod.claim.as_ref()?))).collect();
        claimants.sort_by_key(|(_, pod, _)| pod.heard);
        claimants
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.by_id.values()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::agent::SpaceClaim;

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last)
    }

    fn something(number: u64) -> Claim {
        let space = "2001:db8:5::/64".parse().unwrap();
        Claim { number, spaces: vec![SpaceClaim { space, owned: vec![space], arriving: vec![], leaving: vec![] }] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_comes_back_finds_its_pod_as_it_was() {
        let mut pods = Pods::default();
        let first = pods.join(7, address(1), "veth1".into());
        pods.claimed(7, first, something(1));
        let second = pods.join(7, address(1), "veth1".into());
        // The news of the old connection's end may come after the new one.
        pods.left(7, first, Instant::now());
        let [(_, pod, claim)] = pods.claimants()[..] else { panic!("{pods:?}") };
        assert_eq!((pod.number, pod.gone, claim.number, pod.connection), (1, None, 1, second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_forgotten_when_its_sidecar_has_been_gone_for_long_or_its_device_is() {
        let mut pods = Pods::default();
        for id in [1, 2] {
            let connection = pods.join(id, address(id as u16), format!("veth{id}"));
            pods.claimed(id, connection, something(1));
            pods.left(id, connection, Instant::now());
        }
        let left = Instant::now();
        assert_eq!(pods.next_to_forget(Duration::from_secs(10)), Some(left + Duration::from_secs(10)));
        let just_before = left - Duration::from_millis(1);
        assert_eq!(pods.forget(just_before, |device| device != "veth2"), 1);
        assert_eq!(pods.claimants().len(), 1);
        assert_eq!(pods.forget(left, |_| true), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_everything_back_is_forgotten_at_once() {
        let mut pods = Pods::default();
        let connection = pods.join(1, address(1), "veth1".into());
        pods.claimed(1, connection, something(1));
        pods.claimed(1, connection, Claim { number: 2, spaces: vec![] });
        pods.left(1, connection, Instant::now());
        assert_eq!(pods.iter().count(), 0);
    }

    #[test]
    fn numbers_outlive_the_agent_and_are_given_in_turn() {
        let mut pods = Pods::remembering(BTreeMap::from([(address(9), 4)]));
        let number = |pods: &mut Pods, id, last| {
            pods.join(id, address(last), "veth".into());
            pods.get_mut(id).unwrap().number
        };
        assert_eq!(number(&mut pods, 1, 1), 5);
        assert_eq!(number(&mut pods, 2, 9), 4);
        pods.last_number = u16::MAX;
        assert_eq!(number(&mut pods, 3, 3), 1);
    }
}
