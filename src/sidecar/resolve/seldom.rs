//! A warning that may be due for every question is written once in a while, with how often it was left out.
//!
//! Pure: the time is an argument. Counters say how often a thing happened; the log says what it is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long one warning stands for all of its kind.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of warning.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether to write it at `now`: how many were left out since the last; none when this one is left out as well.
    pub(in crate::sidecar) fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_written_and_then_one_in_ten_seconds_with_the_number_between() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(0));
        assert_eq!(seldom.due(start), None);
        assert_eq!(seldom.due(start + EVERY - Duration::from_nanos(1)), None);
        assert_eq!(seldom.due(start + EVERY), Some(2));
        assert_eq!(seldom.due(start + EVERY), None);
    }
}
