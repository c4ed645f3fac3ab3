//! Response rate limiting: what keeps the server from being used against others.
//!
//! Over UDP anybody can ask in somebody else's name. So what one network is sent of one kind of answer is limited; of
//! what goes beyond, every N-th is sent empty with TC, upon which a true asker comes again over TCP, where addresses
//! cannot be forged. A network is 24 bits of an IPv4 address and 56 of an IPv6 address. A kind is a positive answer by
//! its name, and else a zone's: a flood of random names finds one bucket for all NXDOMAINs of a zone, and one for all
//! answers of its wildcards.
//!
//! All workers share the buckets, so that the rate is the same however many flows an asker uses. A bucket is one word,
//! changed in one step. One that two kinds fall into goes to the later.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::UnixSeconds;

/// Buckets of a server; a power of two. 8 octets each.
const BUCKETS: usize = 1 << 16;

/// How much is sent, and what becomes of the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RateLimits {
    /// Answers a second of one kind to one network.
    pub(crate) per_second: u32,
    /// Every so manieth of those beyond is sent with TC, the others not at all; 0: none is sent.
    pub(crate) slip: u16,
}

/// What is to be done with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ruling {
    Send,
    Truncate,
    Drop,
}

/// The kinds of answers that are told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// By the hash of the name.
    Positive(u64),
    /// By the zone.
    Wildcard(u64),
    /// By the zone.
    Negative(u64),
    /// By the zone.
    Referral(u64),
    /// Refusals and errors.
    Refusal,
}

/// What a bucket's word says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Bucket {
    /// Whose it is: a part of the hash that does not choose the bucket.
    tag: u16,
    /// When credit was last given: the low bits of the second.
    since: u16,
    /// Answers that may still be sent; below 0, how many went beyond.
    credit: i32,
}

impl Bucket {
    const fn of(word: u64) -> Self {
        Self { tag: (word >> 48) as u16, since: (word >> 32) as u16, credit: word as i32 }
    }

    const fn word(self) -> u64 {
        (self.tag as u64) << 48 | (self.since as u64) << 32 | self.credit as u32 as u64
    }

    /// After one more answer of the kind with this tag, of which `most` may be sent in a second.
    fn charged(self, tag: u16, now: u16, most: i32) -> Self {
        let mut bucket = self;
        if bucket.tag != tag || bucket.word() == 0 {
            bucket = Self { tag, since: now, credit: most };
        }
        let passed = i32::from(now.wrapping_sub(bucket.since));
        if passed > 0 {
            // What went beyond is held against the asker for a second at most.
            bucket.credit = bucket.credit.max(-most).saturating_add(most.saturating_mul(passed)).min(most);
            bucket.since = now;
        }
        Self { credit: bucket.credit.saturating_sub(1), ..bucket }
    }
}

/// The buckets of a server. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    limits: RateLimits,
    /// What makes it unpredictable who shares a bucket with whom.
    secret: u64,
    buckets: Arc<[AtomicU64]>,
    /// Answers of this worker that went beyond.
    beyond: u32,
}

impl RateLimiter {
    pub(super) fn new(limits: RateLimits, secret: u64) -> Self {
        Self { limits, secret, buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), beyond: 0 }
    }

    /// Counts an answer of this kind to `peer` and says what is to be done with it.
    pub(super) fn judge(&mut self, peer: IpAddr, kind: Kind, now: UnixSeconds) -> Ruling {
        let hash = mix(mix(self.secret ^ network(peer)) ^ code(kind));
        let most = i32::try_from(self.limits.per_second).unwrap_or(i32::MAX);
        let bucket = &self.buckets[hash as usize % BUCKETS];
        let charged = |word| Bucket::of(word).charged((hash >> 48) as u16, now.0 as u16, most);
        let update = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(charged(word).word()));
        let (Ok(before) | Err(before)) = update;
        if charged(before).credit >= 0 { Ruling::Send } else { self.beyond() }
    }

    fn beyond(&mut self) -> Ruling {
        self.beyond = self.beyond.wrapping_add(1);
        match u32::from(self.limits.slip) {
            0 => Ruling::Drop,
            slip if self.beyond.is_multiple_of(slip) => Ruling::Truncate,
            _ => Ruling::Drop,
        }
    }
}

/// The asker's network as a number, the families apart.
fn network(peer: IpAddr) -> u64 {
    match peer.to_canonical() {
        IpAddr::V4(addr) => u64::from(u32::from(addr) >> 8) | 1 << 63,
        IpAddr::V6(addr) => (u128::from(addr) >> 72) as u64,
    }
}

fn code(kind: Kind) -> u64 {
    let (number, of) = match kind {
        Kind::Positive(name) => (1, name),
        Kind::Wildcard(zone) => (2, zone),
        Kind::Negative(zone) => (3, zone),
        Kind::Referral(zone) => (4, zone),
        Kind::Refusal => (5, 0),
    };
    mix(of ^ number)
}

const fn mix(word: u64) -> u64 {
    let product = (word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn limiter(slip: u16) -> RateLimiter {
        RateLimiter::new(RateLimits { per_second: 10, slip }, 0x5eed)
    }

    /// How many of `count` answers in the second `after` the start are sent, truncated and dropped.
    fn counted(limiter: &mut RateLimiter, peer: &str, kind: Kind, count: usize, after: u64) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            match limiter.judge(peer.parse().unwrap(), kind, UnixSeconds(START + after)) {
                Ruling::Send => counts[0] += 1,
                Ruling::Truncate => counts[1] += 1,
                Ruling::Drop => counts[2] += 1,
            }
        }
        counts
    }

    #[test]
    fn answers_up_to_the_rate_are_sent_and_every_second_one_beyond_slips() {
        let mut limiter = limiter(2);
        assert_eq!(counted(&mut limiter, "192.0.2.1", Kind::Positive(1), 10, 0), [10, 0, 0]);
        assert_eq!(counted(&mut limiter, "192.0.2.1", Kind::Positive(1), 10, 0), [0, 5, 5]);
    }

    #[test]
    fn without_slip_nothing_beyond_is_sent() {
        assert_eq!(counted(&mut limiter(0), "192.0.2.1", Kind::Refusal, 30, 0), [10, 0, 20]);
        assert_eq!(counted(&mut limiter(1), "192.0.2.1", Kind::Refusal, 30, 0), [10, 20, 0]);
    }

    #[test]
    fn a_network_shares_a_bucket_and_its_neighbour_has_another() {
        let mut limiter = limiter(0);
        for (one, same, other) in
            [("192.0.2.1", "192.0.2.255", "192.0.3.1"), ("2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1")]
        {
            assert_eq!(counted(&mut limiter, one, Kind::Refusal, 10, 0), [10, 0, 0]);
            assert_eq!(counted(&mut limiter, same, Kind::Refusal, 1, 0), [0, 0, 1], "{same}");
            assert_eq!(counted(&mut limiter, other, Kind::Refusal, 1, 0), [1, 0, 0], "{other}");
        }
        assert_eq!(counted(&mut limiter, "::ffff:192.0.2.7", Kind::Refusal, 1, 0), [0, 0, 1]);
    }

    #[test]
    fn kinds_do_not_share() {
        let mut limiter = limiter(0);
        for kind in [Kind::Positive(7), Kind::Positive(8), Kind::Wildcard(7), Kind::Negative(7), Kind::Referral(7)] {
            assert_eq!(counted(&mut limiter, "192.0.2.1", kind, 11, 0), [10, 0, 1], "{kind:?}");
        }
    }

    #[test]
    fn workers_share_the_rate() {
        let mut one = limiter(0);
        let mut other = one.clone();
        assert_eq!(counted(&mut one, "192.0.2.1", Kind::Refusal, 6, 0), [6, 0, 0]);
        assert_eq!(counted(&mut other, "192.0.2.1", Kind::Refusal, 6, 0), [4, 0, 2]);
    }

    #[test]
    fn a_bucket_s_word_says_what_it_holds() {
        for credit in [i32::MIN, -1, 0, 1, i32::MAX] {
            let bucket = Bucket { tag: 0xfedc, since: 0x9876, credit };
            assert_eq!(Bucket::of(bucket.word()), bucket);
        }
    }

    #[test]
    fn a_second_gives_new_credit_and_a_flood_is_held_against_it_for_one() {
        let mut limiter = limiter(0);
        assert_eq!(counted(&mut limiter, "192.0.2.1", Kind::Refusal, 1_000, 0), [10, 0, 990]);
        assert_eq!(counted(&mut limiter, "192.0.2.1", Kind::Refusal, 5, 1), [0, 0, 5]);
        assert_eq!(counted(&mut limiter, "192.0.2.1", Kind::Refusal, 20, 3), [10, 0, 10]);
    }
}
