//! Whether a caller may pass.

use super::{Caller, CallerPattern, WorkloadId};
use crate::model::UnixSeconds;

/// A caller that may use the service it called. Only [`admit()`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    caller: Caller,
}

impl Admitted {
    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &WorkloadId {
        self.caller.id()
    }

    /// The second from which its token is dead.
    #[must_use]
    pub fn until(&self) -> UnixSeconds {
        self.caller.until()
    }
}

/// The service's list of callers does not name this one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{caller} is not among the callers this service allows: its owner can add it to `callers`")]
pub struct NotAllowed {
    /// Who called.
    pub caller: WorkloadId,
}

impl NotAllowed {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "caller-not-allowed"
    }
}

/// Decides whether `caller` is among those allowed; an absent list allows every verified caller, an empty one nobody.
///
/// # Errors
/// [`NotAllowed`] when no pattern matches.
pub fn admit(caller: Caller, allowed: Option<&[CallerPattern]>) -> Result<Admitted, NotAllowed> {
    match allowed {
        Some(patterns) if !patterns.iter().any(|pattern| pattern.matches(caller.id())) => {
            Err(NotAllowed { caller: caller.id().clone() })
        }
        Some(_) | None => Ok(Admitted { caller }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::claims::tests::{claims, judged};
    use super::*;

    fn admitted(allowed: Option<&[&str]>) -> Result<Admitted, NotAllowed> {
        let caller = judged(&claims(), 1_100, Duration::ZERO).unwrap();
        let patterns: Option<Vec<CallerPattern>> =
            allowed.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
        admit(caller, patterns.as_deref())
    }

    #[test]
    fn without_a_list_every_verified_caller_passes_and_with_an_empty_one_nobody() {
        assert_eq!(admitted(None).unwrap().id().account(), "web");
        assert_eq!(admitted(Some(&[])).unwrap_err().reason(), "caller-not-allowed");
    }

    #[test]
    fn one_matching_pattern_is_enough() {
        let other = "spiffe://shop.example/ns/payments/sa/*";
        assert!(admitted(Some(&[other, "spiffe://shop.example/ns/*/sa/web"])).is_ok());
        assert_eq!(admitted(Some(&[other])).unwrap_err().caller.account(), "web");
    }
}
