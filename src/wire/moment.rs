//! Moments as texts: the date of an HTTP answer, and the time in an object of Kubernetes.
//!
//! Source: RFC 9110 §5.6.7 (IMF-fixdate); RFC 3339 §5.6, in UTC, as Kubernetes writes `Time` and `MicroTime`.

use crate::model::{UnixSeconds, days_from_civil};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`; none of the older forms, which nobody writes.
#[must_use]
pub fn http_date(text: &str) -> Option<UnixSeconds> {
    let mut words = text.strip_suffix(" GMT")?.split_once(", ")?.1.split(' ');
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    let year = words.next()?.parse().ok()?;
    seconds(year, i64::try_from(month).ok()?, day, words.next()?)
}

/// `1994-11-06T08:49:37Z`, perhaps with a fraction of the second, which is left out.
#[must_use]
pub fn rfc3339(text: &str) -> Option<UnixSeconds> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    seconds(year, month, day, time.split('.').next()?)
}

fn seconds(year: i64, month: i64, day: i64, time: &str) -> Option<UnixSeconds> {
    let mut parts = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    let in_day = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0..=60).contains(&seconds);
    let days = (in_range && in_day).then(|| days_from_civil(year, month, day))?;
    u64::try_from(days * 86_400 + hours * 3_600 + minutes * 60 + seconds).ok().map(UnixSeconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same_moment() {
        let moment = Some(UnixSeconds(784_111_777));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), moment);
        assert_eq!(rfc3339("1994-11-06T08:49:37Z"), moment);
        assert_eq!(rfc3339("1994-11-06T08:49:37.123456Z"), moment);
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in ["", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Foo 1994 08:49:37 GMT"]
        {
            assert_eq!(http_date(text), None, "{text}");
        }
        for text in ["", "1994-11-06", "1994-13-06T08:49:37Z", "1994-11-06T08:49:37+01:00", "x-11-06T08:49:37Z"] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
