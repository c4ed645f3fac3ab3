//! The retry budget: further attempts are at most as many as calls, a burst aside.
//!
//! One call may try many candidates; while most of a service is well, that is what makes the call succeed. When nothing
//! of it is, trying on would multiply the load on whatever is left of it, and on the network. So every call of a service
//! pays one attempt into its budget, and every attempt after a call's first takes one out.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::model::Name;

/// A full budget: the burst.
const FULL: u32 = 64;

/// Budgets by service; one that is full is not kept.
#[derive(Debug, Default)]
pub struct Retries {
    left: Mutex<HashMap<Name, u32>>,
}

impl Retries {
    /// A call begins.
    pub(super) fn call(&self, service: &Name) {
        let mut left = self.left.lock();
        if let Some(budget) = left.get_mut(service) {
            *budget += 1;
            if *budget >= FULL {
                left.remove(service);
            }
        }
    }

    /// Whether a call may make a further attempt.
    pub(super) fn may(&self, service: &Name) -> bool {
        let mut left = self.left.lock();
        match left.get_mut(service) {
            Some(0) => false,
            Some(budget) => {
                *budget -= 1;
                true
            }
            None => {
                left.insert(service.clone(), FULL - 1);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_one_further_attempt_for_every_call() {
        let (retries, orders) = (Retries::default(), "orders.shop.peak".parse().unwrap());
        assert!((0..FULL).all(|_| retries.may(&orders)));
        assert!(!retries.may(&orders));
        retries.call(&orders);
        assert!(retries.may(&orders));
        assert!(!retries.may(&orders));
        assert!(retries.may(&"users.shop.peak".parse().unwrap()), "services have budgets of their own");
    }

    #[test]
    fn a_budget_fills_up_again_and_no_further() {
        let (retries, orders) = (Retries::default(), "orders.shop.peak".parse().unwrap());
        assert!(retries.may(&orders) && retries.may(&orders));
        (0..10).for_each(|_| retries.call(&orders));
        assert!(retries.left.lock().is_empty());
        assert_eq!((0..=FULL).filter(|_| retries.may(&orders)).count(), FULL as usize);
    }
}
