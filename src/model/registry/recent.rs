//! The memory of requests: what was replied to those that may be made again.
//!
//! Bounded in number, by a constant that all nodes share: what one node has forgotten, all have. Not bounded in time: a
//! clock that jumps ahead would have requests forgotten whose answers are still under way, and then done twice.

use std::collections::{HashMap, VecDeque};

use super::{Reply, RequestId};
use crate::model::UnixMillis;

/// How many requests are remembered at most: more than six seconds at 20,000 a second.
const REQUESTS: usize = 1 << 17;

/// The requests of the last while and their replies.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// The oldest first.
    kept: VecDeque<(UnixMillis, RequestId, Reply)>,
    /// How many were before the oldest.
    forgotten: u64,
    /// The how manieth each is. Only ever asked for one of them: the order of such a map is nobody's.
    numbers: HashMap<RequestId, u64>,
}

impl Recent {
    pub(super) fn reply(&self, request: RequestId) -> Option<&Reply> {
        let at = self.numbers.get(&request)?.checked_sub(self.forgotten)?;
        self.kept.get(at as usize).map(|(_, _, reply)| reply)
    }

    /// Adds a request that is not remembered, and forgets the oldest when there are too many.
    pub(super) fn remember(&mut self, now: UnixMillis, request: RequestId, reply: Reply) {
        self.numbers.insert(request, self.forgotten + self.kept.len() as u64);
        self.kept.push_back((now, request, reply));
        if self.kept.len() > REQUESTS
            && let Some((_, oldest, _)) = self.kept.pop_front()
        {
            self.forgotten += 1;
            self.numbers.remove(&oldest);
        }
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UnixMillis, RequestId, &Reply)> {
        self.kept.iter().map(|(at, request, reply)| (*at, *request, reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::registry::Applied;

    fn remember(recent: &mut Recent, at: u64, request: u128) {
        recent.remember(UnixMillis(at), RequestId(request), Ok(Applied::Removed));
    }

    #[test]
    fn a_request_is_remembered_however_far_the_clocks_jump() {
        const WEEK: u64 = 7 * 24 * 3_600 * 1_000;
        let mut recent = Recent::default();
        remember(&mut recent, 1_000, 1);
        remember(&mut recent, 1_000 + WEEK, 2);
        assert!(recent.reply(RequestId(1)).is_some() && recent.reply(RequestId(2)).is_some());
    }

    #[test]
    fn the_oldest_goes_when_there_is_one_too_many() {
        let mut recent = Recent::default();
        for request in 0..=REQUESTS as u128 {
            remember(&mut recent, 0, request);
        }
        assert_eq!((recent.kept.len(), recent.numbers.len()), (REQUESTS, REQUESTS));
        assert!(recent.reply(RequestId(0)).is_none() && recent.reply(RequestId(1)).is_some());
    }
}
