//! How many slices each pod is to have: quotas by largest remainders, ties to those who have the slices already.
//!
//! Every pod's quota is its exact share rounded down or up. Where the remainders are equal (with equal weights they all
//! are), any choice of who is rounded up is as right. Whoever holds the larger number already then keeps it: no other
//! choice moves fewer slices. What freedom is left after that stays open, for those who choose which slices move.

use std::cmp::Reverse;

/// How many slices a pod is to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Quota {
    /// At least so many.
    pub(super) low: u32,
    /// At most so many: `low`, or one more.
    pub(super) high: u32,
}

/// The quotas of all pods. Of those that are open, exactly `rounded_up` get their `high`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Quotas {
    pub(super) each: Vec<Quota>,
    pub(super) rounded_up: usize,
}

/// Divides `slices` by `weights`, of which at least one is above 0; `held` says what each pod has now.
///
/// The open pods either all hold their `high` or more, or all hold their `low` or less. In both cases which of them are
/// rounded up makes no difference to the number of slices that must move.
pub(super) fn quotas(slices: u32, weights: &[u32], held: &[u32]) -> Quotas {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let divide = |&weight: &u32| {
        let product = u64::from(slices) * u64::from(weight);
        ((product / total) as u32, product % total)
    };
    let shares: Vec<(u32, u64)> = weights.iter().map(divide).collect();
    let rest = slices - shares.iter().map(|(down, _)| down).sum::<u32>();
    let mut each: Vec<_> = shares.iter().map(|&(down, _)| Quota { low: down, high: down }).collect();
    let mut by_remainder: Vec<u64> = shares.iter().map(|&(_, remainder)| remainder).collect();
    by_remainder.sort_unstable_by_key(|&remainder| Reverse(remainder));
    let Some(&last) = (rest as usize).checked_sub(1).and_then(|at| by_remainder.get(at)) else {
        return Quotas { each, rounded_up: 0 };
    };
    let mut left = rest as usize;
    let (mut holders, mut others) = (Vec::new(), Vec::new());
    for (pod, &(down, remainder)) in shares.iter().enumerate() {
        if remainder > last {
            each[pod] = Quota { low: down + 1, high: down + 1 };
            left -= 1;
        } else if remainder == last {
            if held[pod] > down { &mut holders } else { &mut others }.push(pod);
        }
    }
    let open = if holders.len() > left {
        holders
    } else {
        for &pod in &holders {
            each[pod].low += 1;
            each[pod].high += 1;
        }
        left -= holders.len();
        others
    };
    // Nothing is open when all or none of them are rounded up.
    let all = open.len() == left;
    for &pod in open.iter().filter(|_| left > 0) {
        each[pod].high += 1;
        each[pod].low += u32::from(all);
    }
    Quotas { each, rounded_up: if all { 0 } else { left } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(of: &[u32]) -> Quotas {
        Quotas { each: of.iter().map(|&n| Quota { low: n, high: n }).collect(), rounded_up: 0 }
    }

    #[test]
    fn largest_remainders_are_rounded_up() {
        assert_eq!(quotas(10, &[6, 3, 1], &[0, 0, 0]), exactly(&[6, 3, 1]));
        assert_eq!(quotas(8, &[50, 30, 20], &[0, 0, 0]), exactly(&[4, 2, 2]));
        assert_eq!(quotas(8, &[0, 1], &[8, 0]), exactly(&[0, 8]));
    }

    #[test]
    fn of_equal_remainders_who_holds_the_larger_number_keeps_it() {
        assert_eq!(quotas(10, &[1, 1, 1], &[3, 4, 3]), exactly(&[3, 4, 3]));
    }

    #[test]
    fn when_more_hold_the_larger_number_than_can_keep_it_who_gives_is_open() {
        let open = Quota { low: 3, high: 4 };
        let quotas = quotas(10, &[1, 1, 1], &[4, 6, 0]);
        assert_eq!(quotas, Quotas { each: vec![open, open, Quota { low: 3, high: 3 }], rounded_up: 1 });
    }

    #[test]
    fn when_fewer_hold_it_who_takes_is_open() {
        let open = Quota { low: 2, high: 3 };
        let quotas = quotas(11, &[1, 1, 1, 1], &[9, 2, 0, 0]);
        assert_eq!(quotas, Quotas { each: vec![Quota { low: 3, high: 3 }, open, open, open], rounded_up: 2 });
    }

    #[test]
    fn with_fewer_slices_than_pods_those_who_have_one_keep_it() {
        assert_eq!(quotas(2, &[1, 1, 1], &[1, 0, 1]), exactly(&[1, 0, 1]));
    }
}
