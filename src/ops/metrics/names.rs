//! The rules for names of metrics and labels.
//!
//! Source: Prometheus, "Metric and label naming": an application prefix, base units, plural, `_total` last.

use std::fmt;

/// What a family does with its numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are sorted into ranges.
    Histogram,
}

/// Which rule a name breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameFault {
    /// Another program's metrics must not be mistaken for ours.
    #[error("the name must begin with funicular_")]
    Prefix,
    /// Names are compared by machines.
    #[error("names consist of a-z, 0-9 and single underscores")]
    Spelling,
    /// `_total` says that only the rate means something.
    #[error("a counter ends in _total, and nothing else does")]
    Total,
    /// Seconds and bytes: everything else is for the dashboard to convert.
    #[error("measure in base units: seconds, bytes, ratio")]
    Unit,
    /// A histogram measures something.
    #[error("a histogram ends in _seconds or _bytes")]
    Unitless,
}

const FOREIGN_UNITS: [&str; 12] =
    ["ms", "us", "ns", "milliseconds", "microseconds", "nanoseconds", "minutes", "kb", "mb", "kib", "mib", "percent"];

pub(super) fn check(name: &str, kind: Kind, labels: &[&str]) -> Result<(), NameFault> {
    let rest = name.strip_prefix("funicular_").ok_or(NameFault::Prefix)?;
    if !is_spelled_well(rest) || !labels.iter().all(|label| is_spelled_well(label)) {
        return Err(NameFault::Spelling);
    }
    if rest.ends_with("_total") != (kind == Kind::Counter) {
        return Err(NameFault::Total);
    }
    if rest.split('_').any(|word| FOREIGN_UNITS.contains(&word)) {
        return Err(NameFault::Unit);
    }
    if kind == Kind::Histogram && !rest.ends_with("_seconds") && !rest.ends_with("_bytes") {
        return Err(NameFault::Unitless);
    }
    Ok(())
}

fn is_spelled_well(name: &str) -> bool {
    let spelled = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
    name.bytes().all(spelled) && name.split('_').all(|word| !word.is_empty())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_held_from_both_sides() {
        let cases = [
            ("funicular_refusals_total", Kind::Counter, Ok(())),
            ("refusals_total", Kind::Counter, Err(NameFault::Prefix)),
            ("funicular_Refusals_total", Kind::Counter, Err(NameFault::Spelling)),
            ("funicular__refusals_total", Kind::Counter, Err(NameFault::Spelling)),
            ("funicular_refusals", Kind::Counter, Err(NameFault::Total)),
            ("funicular_open_total", Kind::Gauge, Err(NameFault::Total)),
            ("funicular_open", Kind::Gauge, Ok(())),
            ("funicular_connect_ms", Kind::Gauge, Err(NameFault::Unit)),
            ("funicular_connect_milliseconds_total", Kind::Counter, Err(NameFault::Unit)),
            ("funicular_connect_duration", Kind::Histogram, Err(NameFault::Unitless)),
            ("funicular_connect_duration_seconds", Kind::Histogram, Ok(())),
            ("funicular_response_size_bytes", Kind::Histogram, Ok(())),
        ];
        for (name, kind, verdict) in cases {
            assert_eq!(check(name, kind, &[]), verdict, "{name}");
        }
    }

    #[test]
    fn labels_are_spelled_like_names() {
        assert_eq!(check("funicular_open", Kind::Gauge, &["direction"]), Ok(()));
        assert_eq!(check("funicular_open", Kind::Gauge, &["Direction"]), Err(NameFault::Spelling));
    }
}
