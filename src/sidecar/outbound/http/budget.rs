//! How many requests may be repeated: a share of all, so that servers that fail are not asked twice as often for it.

use std::sync::atomic::{AtomicI64, Ordering};

/// What a request adds, and what a repetition costs: one for every five.
const DEPOSIT: i64 = 1;
const COST: i64 = 5;
/// What there is at first, and at most: enough for a server that restarts while little is asked.
const RESERVE: i64 = 20 * COST;

/// A balance of requests and repetitions.
pub(super) struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(RESERVE))
    }
}

impl Budget {
    /// A request is made.
    pub(super) fn deposit(&self) {
        // A race may lose a deposit, which costs nobody anything.
        let balance = self.0.load(Ordering::Relaxed);
        if balance < RESERVE {
            self.0.store((balance + DEPOSIT).min(RESERVE), Ordering::Relaxed);
        }
    }

    /// Whether one may be repeated; if so, it is paid for.
    pub(super) fn withdraw(&self) -> bool {
        let paid = |balance: i64| (balance >= COST).then_some(balance - COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_five_may_be_repeated_after_the_reserve_is_used_up() {
        let budget = Budget::default();
        assert_eq!((0..30).filter(|_| budget.withdraw()).count(), 20);
        for _ in 0..4 {
            budget.deposit();
        }
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }

    #[test]
    fn the_reserve_does_not_grow() {
        let budget = Budget::default();
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!((0..30).filter(|_| budget.withdraw()).count(), 20);
    }
}
