//! Lists as they stand in flags and in pod annotations: `80,8000-8010`, `10.0.0.0/8,2001:db8::/32`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

/// Why a list, or a number, in a flag is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ListError {
    /// No number within bounds, nor two of them.
    #[error("`{0}` is no number from 0 to {1}, nor a range like 8000-8010")]
    NotARange(String, u64),
    /// The second number of a range is less than the first.
    #[error("the range `{0}` ends before it starts")]
    Backwards(String),
    /// Port 0 means any.
    #[error("port 0 cannot be dialled, so it cannot be skipped")]
    PortZero,
    /// No prefix of either family.
    #[error("`{0}` is no prefix like 10.0.0.0/8 or 2001:db8::/32, nor an address")]
    NotAPrefix(String),
    /// No number of 32 bits.
    #[error("`{0}` is no mark like 0x46554e or 4609358")]
    NotAMark(String),
    /// The mark that says nothing.
    #[error("mark 0 is what every unmarked packet has: it would exempt them all")]
    MarkZero,
}

/// A list of ports. Empty text is the empty list, as an annotation may be.
///
/// # Errors
/// The first item that is no port and no range of ports.
pub fn ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, ListError> {
    let ranges = ranges(text, u16::MAX.into())?;
    if ranges.iter().any(|range: &RangeInclusive<u16>| *range.start() == 0) {
        return Err(ListError::PortZero);
    }
    Ok(ranges)
}

/// A list of user ids.
///
/// # Errors
/// The first item that is no number and no range.
pub fn users(text: &str) -> Result<Vec<RangeInclusive<u32>>, ListError> {
    ranges(text, u32::MAX.into())
}

/// A list of prefixes of both families; an address alone is one host.
///
/// # Errors
/// The first item that is neither.
pub fn subnets(text: &str) -> Result<Vec<IpNet>, ListError> {
    items(text).map(prefix).collect()
}

/// A socket mark, decimal or hexadecimal.
///
/// # Errors
/// No number, or 0.
pub fn mark(text: &str) -> Result<u32, ListError> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) => Err(ListError::MarkZero),
        Ok(mark) => Ok(mark),
        Err(_) => Err(ListError::NotAMark(text.to_owned())),
    }
}

/// A list as it is written.
#[must_use]
pub fn written<T: fmt::Display + PartialEq>(ranges: &[RangeInclusive<T>]) -> String {
    let range = |range: &RangeInclusive<T>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn ranges<T: FromStr + Copy + PartialOrd>(text: &str, max: u64) -> Result<Vec<RangeInclusive<T>>, ListError> {
    let number =
        |text: &str, item: &str| text.trim().parse::<T>().map_err(|_| ListError::NotARange(item.to_owned(), max));
    let range = |item: &str| {
        let (start, end) = item.split_once('-').unwrap_or((item, item));
        let (start, end) = (number(start, item)?, number(end, item)?);
        if start <= end { Ok(start..=end) } else { Err(ListError::Backwards(item.to_owned())) }
    };
    items(text).map(range).collect()
}

fn prefix(item: &str) -> Result<IpNet, ListError> {
    let parsed = item.parse().or_else(|_| item.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
    parsed.map(|prefix| prefix.trunc()).map_err(|_| ListError::NotAPrefix(item.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_mixes_ports_and_ranges_and_may_be_empty() {
        assert_eq!(ports("80, 8000-8010,65535").unwrap(), [80..=80, 8000..=8010, 65535..=65535]);
        assert_eq!(ports("").unwrap(), []);
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        assert_eq!(written(&ports("80, 8000-8010").unwrap()), "80,8000-8010");
        assert_eq!(written::<u16>(&[]), "");
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        assert_eq!(ports("80,http").unwrap_err(), ListError::NotARange("http".into(), 65535));
        assert_eq!(ports("65536").unwrap_err(), ListError::NotARange("65536".into(), 65535));
        assert_eq!(ports("10-9").unwrap_err(), ListError::Backwards("10-9".into()));
        assert_eq!(ports("0").unwrap_err(), ListError::PortZero);
    }

    #[test]
    fn subnets_are_of_both_families_and_lose_their_host_bits() {
        let expected: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"].map(|p| p.parse().unwrap()).into();
        assert_eq!(subnets("10.1.2.3/8,2001:db8::1/32,192.0.2.1").unwrap(), expected);
        assert_eq!(subnets("10.0.0.0/33").unwrap_err(), ListError::NotAPrefix("10.0.0.0/33".into()));
    }

    #[test]
    fn a_mark_is_decimal_or_hexadecimal_and_never_zero() {
        assert_eq!(mark("0x46554e"), Ok(4_609_358));
        assert_eq!(mark("4609358"), Ok(0x0046_554e));
        assert_eq!(mark("0x0"), Err(ListError::MarkZero));
        assert_eq!(mark("0xg"), Err(ListError::NotAMark("0xg".into())));
    }
}
