//! What a checker has not yet ruled out: the replicas and epochs that fit everything checked so far (SSA.md §3).

use super::{Rule, UnixSeconds};

/// A set of replicas.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Replicas([u64; 4]);

impl Replicas {
    /// Replicas 0 to `count` − 1; `count` is 1 to 256.
    pub(super) fn below(count: u16) -> Self {
        Self(std::array::from_fn(|word| {
            let ones = count.saturating_sub(word as u16 * 64);
            if ones >= 64 { u64::MAX } else { (1 << ones) - 1 }
        }))
    }

    /// Keeps those that `fits` accepts; whether any is left.
    pub(super) fn retain(&mut self, mut fits: impl FnMut(u8) -> bool) -> bool {
        for replica in self.iter() {
            if !fits(replica) {
                self.0[usize::from(replica / 64)] &= !(1 << (replica % 64));
            }
        }
        self.0 != [0; 4]
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..4_u8).flat_map(move |word| ones(self.0[usize::from(word)]).map(move |bit| word * 64 + bit))
    }
}

/// The places of the ones in a word, the least significant first.
fn ones(mut word: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        Some(bit as u8)
    })
}

/// A set of neighbouring epochs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Epochs {
    first: u64,
    /// Bit i stands for epoch `first` + i; at most 33 bits are used, as skew is at most 16.
    left: u64,
}

impl Epochs {
    /// The epochs that a checker accepts at `now`: the present one and `skew` on either side, none below 0.
    pub(super) fn around(rule: &Rule, now: UnixSeconds) -> Self {
        let present = rule.epoch(now);
        let first = present.saturating_sub(rule.skew.into());
        let last = present.saturating_add(rule.skew.into());
        Self { first, left: (2 << (last - first)) - 1 }
    }

    /// Keeps those that `fits` accepts; whether any is left.
    pub(super) fn retain(&mut self, mut fits: impl FnMut(u64) -> bool) -> bool {
        for epoch in self.iter() {
            if !fits(epoch) {
                self.left &= !(1 << (epoch - self.first));
            }
        }
        self.left != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u64> {
        ones(self.left).map(move |bit| self.first + u64::from(bit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AplItem, Space};
    use super::*;

    fn epochs(rule: &str, now: u64) -> Vec<u64> {
        let space = Space::new(&AplItem::list("2:2001:db8::/64").unwrap()).unwrap();
        Epochs::around(&Rule::parse(rule, &space).unwrap(), UnixSeconds(now)).iter().collect()
    }

    #[test]
    fn replicas_are_those_below_the_count() {
        for count in [1, 2, 63, 64, 65, 128, 255, 256] {
            let all: Vec<u16> = Replicas::below(count).iter().map(u16::from).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn retaining_keeps_what_fits_and_says_when_nothing_does() {
        let mut replicas = Replicas::below(256);
        assert!(replicas.retain(|replica| replica % 100 == 0));
        assert_eq!(replicas.iter().collect::<Vec<_>>(), [0, 100, 200]);
        assert!(!replicas.retain(|_| false));
    }

    #[test]
    fn epochs_lie_skew_on_either_side_and_never_below_zero() {
        assert_eq!(epochs("v=ssa1 step=10 skew=2", 59), [3, 4, 5, 6, 7]);
        assert_eq!(epochs("v=ssa1 step=10 skew=2", 60), [4, 5, 6, 7, 8]);
        assert_eq!(epochs("v=ssa1 step=10 skew=2", 15), [0, 1, 2, 3]);
        assert_eq!(epochs("v=ssa1 step=10 skew=0", 0), [0]);
        assert_eq!(epochs("v=ssa1 step=1 skew=16", 100).len(), 33);
    }

    #[test]
    fn the_last_epoch_of_all_time_has_none_after_it() {
        assert_eq!(epochs("v=ssa1 step=1 skew=1", u64::MAX), [u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn epochs_are_narrowed_one_by_one() {
        let space = Space::new(&AplItem::list("2:2001:db8::/64").unwrap()).unwrap();
        let mut left = Epochs::around(&Rule::parse("v=ssa1 skew=2", &space).unwrap(), UnixSeconds(300));
        assert!(left.retain(|epoch| epoch != 10));
        assert_eq!(left.iter().collect::<Vec<_>>(), [8, 9, 11, 12]);
        assert!(!left.retain(|epoch| epoch == 10));
    }
}
