//! Seconds since 1970 and the calendar (Gregorian, UTC, leap seconds not counted).

use std::fmt::Write as _;

use super::UnixSeconds;

const SECONDS_A_DAY: u64 = 86_400;

/// Days from 1970-01-01 to a date; months outside 1 to 12 and days outside the month go on counting.
#[must_use]
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // A year that begins in March ends with its leap day.
    let year = year + (month - 3).div_euclid(12);
    let month = (month - 3).rem_euclid(12);
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

impl UnixSeconds {
    /// The time as RFC 3339 writes it: `2026-11-22T19:00:00Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let (days, seconds) = (self.0 / SECONDS_A_DAY, self.0 % SECONDS_A_DAY);
        let days = i64::try_from(days).unwrap_or(i64::MAX / 1_000);
        // The estimate is never too early, and at most one year late.
        let mut year = 1970 + days / 365;
        while days_from_civil(year, 1, 1) > days {
            year -= 1;
        }
        let mut month = 12;
        while days_from_civil(year, month, 1) > days {
            month -= 1;
        }
        let day = days - days_from_civil(year, month, 1) + 1;
        let mut text = String::with_capacity(20);
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{year:04}-{month:02}-{day:02}T");
        let _ = write!(text, "{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_standard_s_examples() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(UnixSeconds(seconds).to_rfc3339(), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut expected = 0;
        for year in 1970..2370_i64 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let months = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, days) in (1..).zip(months) {
                for day in 1..=days {
                    assert_eq!(days_from_civil(year, month, day), expected);
                    expected += 1;
                }
            }
        }
    }
}
