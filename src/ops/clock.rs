//! The one place that reads the wall clock. The shell reads it once per event and passes the value on.

use std::time::UNIX_EPOCH;

use crate::model::{UnixMillis, UnixSeconds};

/// Wall-clock time in whole seconds; 0 before 1970.
#[must_use]
pub fn now() -> UnixSeconds {
    UnixSeconds(millis().0 / 1000)
}

/// Wall-clock time in whole milliseconds; 0 before 1970.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn millis() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |elapsed| elapsed.as_millis() as u64))
}
