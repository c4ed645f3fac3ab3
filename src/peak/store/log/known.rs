//! What the log says, in memory: everything that is not purged, on disk or on its way there.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use super::frame::Record;
use crate::peak::store::types::{self, Entry, LogId, Vote};

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// From the one after `purged` on, without a gap.
    pub(super) entries: VecDeque<Entry>,
    /// Octets on disk that are not purged, about.
    pub(super) octets: u64,
}

impl Known {
    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Head { .. } => {}
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                if entry.log_id.index >= self.first_index() {
                    self.entries.push_back(entry);
                }
            }
            Record::Cut { from } => {
                while self.entries.back().is_some_and(|entry| entry.log_id.index >= from) {
                    self.entries.pop_back();
                }
            }
            Record::Purged(purged) => {
                if purged > self.purged {
                    self.purged = purged;
                    self.forget_purged();
                }
            }
            Record::Committed(committed) => self.committed = committed,
        }
    }

    fn forget_purged(&mut self) {
        let first = self.first_index();
        while self.entries.pop_front_if(|entry| entry.log_id.index < first).is_some() {}
    }

    /// Octets of the entries after this one, about.
    pub(super) fn octets_after(&self, index: u64) -> u64 {
        let after = self.entries.iter().rev().take_while(|entry| entry.log_id.index > index);
        after.map(|entry| types::octets(entry) as u64).sum()
    }

    /// Up to which entry all may go where so many stay, and of those no more than so many octets.
    pub(super) fn spare(&self, entries: u64, octets: u64) -> Option<u64> {
        let mut left = (entries, octets);
        let spare = self.entries.iter().rev().find(|entry| {
            left = (left.0.saturating_sub(1), left.1.saturating_sub(types::octets(entry) as u64));
            left.0 == 0 || left.1 == 0
        });
        spare.map(|entry| entry.log_id.index)
    }

    /// Entries of the range, until they take so many octets.
    pub(super) fn range(&self, range: &impl RangeBounds<u64>, octets: usize) -> Vec<Entry> {
        let first = self.entries.front().map_or(0, |entry| entry.log_id.index);
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => first,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let skipped = start.saturating_sub(first) as usize;
        let mut left = octets;
        let in_time = self.entries.iter().skip(skipped).take_while(|entry| entry.log_id.index < end);
        in_time
            .take_while(|entry| {
                let goes_on = left > 0;
                left = left.saturating_sub(types::octets(entry));
                goes_on
            })
            .cloned()
            .collect()
    }
}
