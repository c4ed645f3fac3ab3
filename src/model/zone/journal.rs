//! The last changes of a zone, for those who have an older version and want only what differs (RFC 1995).
//!
//! Invariant: each delta begins where the one before ends.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Delta;

/// Deltas of one zone, the oldest first. Forgets the oldest when there are too many.
#[derive(Clone, Debug)]
pub struct Journal {
    deltas: VecDeque<Arc<Delta>>,
    octets: usize,
    limit: usize,
}

impl Journal {
    /// A journal that keeps deltas of about `limit` octets together.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { deltas: VecDeque::new(), octets: 0, limit }
    }

    /// Adds a delta. What does not lead to its beginning is forgotten.
    pub fn push(&mut self, delta: Arc<Delta>) {
        if self.deltas.back().is_some_and(|last| last.to() != delta.from()) {
            self.clear();
        }
        self.octets += delta.octets();
        self.deltas.push_back(delta);
        while self.octets > self.limit
            && let Some(oldest) = self.deltas.pop_front()
        {
            self.octets -= oldest.octets();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.deltas.clear();
        self.octets = 0;
    }

    /// The deltas from the version with this serial to the latest; none when some are not known.
    #[must_use]
    pub fn since(&self, serial: u32) -> Option<Vec<Arc<Delta>>> {
        let first = self.deltas.iter().position(|delta| delta.from() == serial)?;
        Some(self.deltas.iter().skip(first).cloned().collect())
    }

    /// All deltas, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Delta>> {
        self.deltas.iter()
    }

    /// About how many octets the deltas take together.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::zone::Entry;

    fn soa(serial: u32) -> Entry {
        let mut rdata = vec![0, 0];
        for number in [serial, 1, 1, 1, 1] {
            rdata.extend_from_slice(&number.to_be_bytes());
        }
        Entry { name: "peak.".parse().unwrap(), rtype: 6, ttl: 60, rdata: rdata.into() }
    }

    fn delta(from: u32, to: u32) -> Arc<Delta> {
        Arc::new(Delta { old_soa: soa(from), removed: Vec::new(), new_soa: soa(to), added: Vec::new() })
    }

    fn serials(journal: &Journal, since: u32) -> Option<Vec<u32>> {
        journal.since(since).map(|deltas| deltas.iter().map(|delta| delta.to()).collect())
    }

    #[test]
    fn deltas_lead_from_any_kept_version_to_the_latest() {
        let mut journal = Journal::new(usize::MAX);
        for step in 1..5 {
            journal.push(delta(step, step + 1));
        }
        assert_eq!(serials(&journal, 1), Some(vec![2, 3, 4, 5]));
        assert_eq!(serials(&journal, 4), Some(vec![5]));
        assert_eq!(serials(&journal, 5), None);
        assert_eq!(serials(&journal, 0), None);
    }

    #[test]
    fn the_oldest_deltas_go_when_there_are_too_many() {
        let mut journal = Journal::new(delta(1, 2).octets() * 2);
        for step in 1..4 {
            journal.push(delta(step, step + 1));
        }
        assert_eq!(serials(&journal, 1), None);
        assert_eq!(serials(&journal, 2), Some(vec![3, 4]));
    }

    #[test]
    fn a_delta_larger_than_the_limit_leaves_nothing_that_would_not_lead_on() {
        let mut journal = Journal::new(1);
        journal.push(delta(1, 2));
        assert_eq!((journal.iter().count(), journal.octets()), (0, 0));
    }

    #[test]
    fn a_gap_forgets_what_came_before_it() {
        let mut journal = Journal::new(usize::MAX);
        journal.push(delta(1, 2));
        journal.push(delta(7, 8));
        assert_eq!(serials(&journal, 1), None);
        assert_eq!(serials(&journal, 7), Some(vec![8]));
    }
}
