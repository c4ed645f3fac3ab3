//! When a secondary looks at its primaries, and when it stops to answer (RFC 1034 §4.3.5, RFC 1035 §3.3.13).
//!
//! Pure: times are arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::zone::Entry;

/// No zone is looked at more often than this, whatever it says.
const LEAST: Duration = Duration::from_secs(1);
/// No zone is looked at less often.
const MOST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How soon a zone that was never transferred is asked for again, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MOST_RETRY: Duration = Duration::from_secs(300);

/// The times in an SOA record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Times {
    refresh: Duration,
    retry: Duration,
    expire: Duration,
}

impl Times {
    /// The times that the record says, within bounds.
    pub(super) fn of(soa: &Entry) -> Option<Self> {
        let at = soa.rdata.len().checked_sub(20)?;
        let seconds = |field: usize| {
            let octets = soa.rdata[at + 4 * field..].first_chunk()?;
            Some(Duration::from_secs(u64::from(u32::from_be_bytes(*octets))))
        };
        let bounded = |time: Duration| time.clamp(LEAST, MOST);
        let (refresh, retry, expire) = (bounded(seconds(1)?), bounded(seconds(2)?), seconds(3)?);
        // A zone that expires before it is looked at again would come and go.
        Some(Self { refresh, retry, expire: expire.max(refresh + retry) })
    }
}

/// What is due when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the primaries are looked at next.
    next: Instant,
    /// The zone's times and when it expires, while there is one.
    held: Option<(Times, Instant)>,
    failures: u32,
}

impl Schedule {
    /// Nothing is known, or what is known was confirmed `ago`; the primaries are looked at at once.
    pub(super) fn new(now: Instant, held: Option<(Times, Duration)>) -> Self {
        let held = held.map(|(times, ago)| (times, now + times.expire.saturating_sub(ago)));
        Self { next: now, held, failures: 0 }
    }

    /// A primary has confirmed the version with these times.
    pub(super) fn confirmed(&mut self, now: Instant, times: Times) {
        self.held = Some((times, now + times.expire));
        self.next = now + times.refresh;
        self.failures = 0;
    }

    /// No primary could be asked.
    pub(super) fn failed(&mut self, now: Instant) {
        let first = FIRST_RETRY * 2u32.saturating_pow(self.failures.min(16));
        let retry = self.held.map_or(first.min(MOST_RETRY), |(times, _)| times.retry);
        self.next = now + retry;
        self.failures = self.failures.saturating_add(1);
    }

    /// When something is due.
    pub(super) fn due(&self) -> Instant {
        self.held.map_or(self.next, |(_, expires)| self.next.min(expires))
    }

    /// Whether the primaries are to be looked at.
    pub(super) fn is_refresh_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Whether the zone has just expired; true once.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let expired = self.held.is_some_and(|(_, expires)| expires <= now);
        if expired {
            self.held = None;
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(refresh: u32, retry: u32, expire: u32) -> Times {
        let numbers = [7, refresh, retry, expire, 60].map(u32::to_be_bytes).concat();
        let rdata = [&[0, 0][..], &numbers].concat();
        Times::of(&Entry { name: "peak.".parse().unwrap(), rtype: 6, ttl: 0, rdata: rdata.into() }).unwrap()
    }

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_confirmed_zone_is_looked_at_after_its_refresh_time_and_after_a_failure_its_retry_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, None);
        assert!(schedule.is_refresh_due(now));
        schedule.confirmed(now, times(100, 10, 1000));
        assert!(!schedule.is_refresh_due(now + seconds(99)) && schedule.is_refresh_due(now + seconds(100)));
        schedule.failed(now + seconds(100));
        assert!(!schedule.is_refresh_due(now + seconds(109)) && schedule.is_refresh_due(now + seconds(110)));
    }

    #[test]
    fn a_zone_expires_once_from_the_very_second_on() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, None);
        schedule.confirmed(now, times(100, 10, 1000));
        for _ in 0..50 {
            schedule.failed(now + seconds(995));
        }
        assert_eq!(schedule.due(), now + seconds(1000));
        assert!(!schedule.expire(now + seconds(999)));
        assert!(schedule.expire(now + seconds(1000)) && !schedule.expire(now + seconds(1000)));
    }

    #[test]
    fn what_was_confirmed_before_a_restart_expires_at_the_same_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Some((times(100, 10, 1000), seconds(400))));
        assert!(schedule.is_refresh_due(now));
        assert!(!schedule.expire(now + seconds(599)) && schedule.expire(now + seconds(600)));
        assert!(Schedule::new(now, Some((times(100, 10, 1000), seconds(5000)))).expire(now));
    }

    #[test]
    fn a_zone_never_had_is_asked_for_ever_more_slowly() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, None);
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            schedule.failed(now);
            assert_eq!(schedule.due(), now + seconds(wait));
        }
    }

    #[test]
    fn times_are_kept_within_bounds() {
        assert_eq!(times(0, 0, 0), Times { refresh: LEAST, retry: LEAST, expire: 2 * LEAST });
        assert_eq!(times(u32::MAX, 5, 1).expire, MOST + seconds(5));
    }
}
