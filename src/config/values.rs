//! Kinds of single values: how each is written, read and shown.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use super::node::{Content, Node};
use super::setting::{Reader, Setting, Shape, Single};
use crate::model::Name;
use crate::model::token::{Algorithm, CallerPattern, TrustDomain, WorkloadId};

/// Address of a name server; written `IP:port`, or `IP` alone for port 53.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NameServer(pub SocketAddr);

/// A unix socket's place in the file system; whoever listens there makes it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SocketFile(pub PathBuf);

/// A folder in which a role keeps what it must not lose.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Folder(pub PathBuf);

/// Where an issuer's public keys are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySet {
    /// In a file.
    File(PathBuf),
    /// At an address.
    At(HttpsUrl),
}

/// An `https://` address of a server that has a name, for certificates prove names.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HttpsUrl {
    /// The server.
    pub host: Name,
    /// Its port.
    pub port: u16,
    /// Path and query, from the `/` on.
    pub path: Box<str>,
}

impl std::fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.host.to_string();
        write!(f, "https://{}:{}{}", host.trim_end_matches('.'), self.port, self.path)
    }
}
/// A number of octets; written `64MiB`, `512KiB`, `1GiB`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Size(pub u64);

type Parsed<T> = Result<T, Cow<'static, str>>;

/// What a type's own error says of the text.
fn said<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Parsed<T> {
    outcome.map_err(|error| error.to_string().into())
}

/// Nothing is to be added to what was expected.
fn silent<T, E>(outcome: Result<T, E>) -> Parsed<T> {
    outcome.map_err(|_| Cow::Borrowed(""))
}

impl Single for String {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Parsed<Self> {
        if text.trim().is_empty() { Err(Cow::Borrowed("it is empty")) } else { Ok(text.to_owned()) }
    }

    fn show(&self) -> Value {
        self.as_str().into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl Single for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Parsed<Self> {
        silent(text.parse())
    }

    fn show(&self) -> Value {
        (*self).into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

macro_rules! whole_number {
    ($type:ty, $expected:literal) => {
        impl Single for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Parsed<Self> {
                let number = match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                // A sign is no digit, though Rust's parser forgives a leading plus.
                let number = number.ok().filter(|_| !text.contains('+'));
                number.and_then(|number| number.try_into().ok()).ok_or(Cow::Borrowed(""))
            }

            fn show(&self) -> Value {
                (*self).into()
            }

            fn schema() -> Schema {
                json_schema!({ "type": "integer", "minimum": 0, "maximum": <$type>::MAX })
            }
        }
    };
}

whole_number!(u16, "a number from 0 to 65535");
whole_number!(u32, "a number from 0 to 4294967295, such as 17 or 0x46554e");
whole_number!(u64, "a whole number");

/// Values whose own `FromStr` and `Display` are their written form.
macro_rules! written {
    ($type:ty, $outcome:ident, $expected:literal, $schema:tt) => {
        impl Single for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Parsed<Self> {
                $outcome(text.parse())
            }

            fn show(&self) -> Value {
                json!(self.to_string())
            }

            fn schema() -> Schema {
                json_schema!($schema)
            }
        }
    };
}

written!(IpAddr, silent, "an IP address such as 2001:db8::1", { "type": "string", "format": "ip" });
written!(Ipv6Addr, silent, "an IPv6 address such as 2001:db8::1", { "type": "string", "format": "ipv6" });
written!(SocketAddr, silent, "an address and port such as 127.0.0.1:53 or [::]:53", {
    "type": "string", "pattern": r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]{1,5}$"
});
written!(WorkloadId, said, "a workload's name, spiffe://<trust domain>/ns/<namespace>/sa/<account>", {
    "type": "string", "pattern": "^spiffe://[a-z0-9._-]+/ns/[A-Za-z0-9._-]+/sa/[A-Za-z0-9._-]+$"
});
written!(CallerPattern, said, "a workload's name, in which * stands for any one part: spiffe://shop.example/ns/*/sa/web", {
    "type": "string", "pattern": r"^spiffe://([a-z0-9._-]+|\*)/ns/([A-Za-z0-9._-]+|\*)/sa/([A-Za-z0-9._-]+|\*)$"
});
written!(TrustDomain, said, "a trust domain such as shop.example", {
    "type": "string", "pattern": r"^[a-z0-9._-]+$"
});
written!(Algorithm, silent, "EdDSA, ES256 or RS256", { "enum": ["EdDSA", "ES256", "RS256"] });

macro_rules! prefix {
    ($type:ty, $expected:literal, $pattern:literal) => {
        impl Single for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Parsed<Self> {
                let prefix: Self = silent(text.parse())?;
                if prefix.addr() != prefix.network() {
                    return Err(format!("bits after the prefix are set: {} is meant?", prefix.trunc()).into());
                }
                Ok(prefix)
            }

            fn show(&self) -> Value {
                json!(self.to_string())
            }

            fn schema() -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

prefix!(Ipv6Net, "an IPv6 prefix such as 2001:db8:5:1::/64", r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$");
prefix!(IpNet, "a prefix such as 2001:db8:5:1::/64 or 192.0.2.0/24", r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$");
prefix!(Ipv4Net, "an IPv4 prefix such as 240.0.0.0/4", r"^[0-9.]+/[0-9]{1,2}$");

impl Single for Name {
    const EXPECTED: &'static str = "a domain name such as orders.shop.peak";

    fn parse(text: &str) -> Parsed<Self> {
        said(text.parse())
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 1_024 })
    }
}

impl Single for SocketFile {
    const EXPECTED: &'static str = "the absolute name of a unix socket such as /run/funicular/node.sock";

    fn parse(text: &str) -> Parsed<Self> {
        let path = PathBuf::from(text);
        // sun_path, with a final zero (unix(7)).
        match text.len() {
            108.. => Err(Cow::Borrowed("a socket's name has at most 107 octets")),
            _ if path.is_absolute() => Ok(Self(path)),
            _ => Err(Cow::Borrowed("begin it with /")),
        }
    }

    fn show(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^/", "maxLength": 107 })
    }
}

impl Single for Folder {
    const EXPECTED: &'static str = "the absolute name of a folder such as /var/lib/funicular";

    fn parse(text: &str) -> Parsed<Self> {
        let path = PathBuf::from(text);
        if path.is_absolute() { Ok(Self(path)) } else { Err(Cow::Borrowed("begin it with /")) }
    }

    fn show(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^/" })
    }
}

impl Single for HttpsUrl {
    const EXPECTED: &'static str = "an address such as https://issuer.example/jwks.json";

    fn parse(text: &str) -> Parsed<Self> {
        let rest = text.strip_prefix("https://").ok_or("begin it with https://")?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').map_or((authority, "443"), |parts| parts);
        let fits = |octet: u8| octet.is_ascii_graphic() && octet != b'#';
        if host.parse::<IpAddr>().is_ok() || host.contains(['[', ']', '@']) || !path.bytes().all(fits) {
            return Err(Cow::Borrowed("give the server by its name, and nothing but a path and a query after it"));
        }
        let port = silent(port.parse().map(std::num::NonZeroU16::get))?;
        Ok(Self { host: said(host.parse())?, port, path: path.into() })
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^https://" })
    }
}

impl Setting for KeySet {
    const SHAPE: Shape = Shape::Single;
    const EXPECTED: &'static str = "the name of a file, or an `https://` address";

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        match &node.content {
            Content::Scalar(text) if text.contains("://") => {
                <HttpsUrl as Setting>::read(node, key, reader).map(Self::At)
            }
            Content::Scalar(_) | Content::List(_) | Content::Map(_) | Content::Empty => {
                <PathBuf as Setting>::read(node, key, reader).map(Self::File)
            }
        }
    }

    fn schema(_: &mut schemars::SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl Single for NameServer {
    const EXPECTED: &'static str = "a name server's address such as 192.0.2.53 or [2001:db8::53]:53";

    fn parse(text: &str) -> Parsed<Self> {
        let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        silent(bare.or_else(|_| text.parse())).map(Self)
    }

    fn show(&self) -> Value {
        json!(self.0.to_string())
    }
}

/// Units of memory, the largest first, with their octets.
const MEMORY_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Single for Size {
    const EXPECTED: &'static str = "an amount of memory such as 64MiB or 1GiB";

    fn parse(text: &str) -> Parsed<Self> {
        let found = MEMORY_UNITS.iter().find_map(|(unit, octets)| Some((text.strip_suffix(unit)?, octets)));
        let (count, octets) = found.ok_or(Cow::Borrowed("the unit is missing: KiB, MiB or GiB"))?;
        let digits = !count.is_empty() && count.bytes().all(|octet| octet.is_ascii_digit());
        let count: Option<u64> = count.parse().ok().filter(|_| digits);
        count.and_then(|count| count.checked_mul(*octets)).map(Self).ok_or(Cow::Borrowed(""))
    }

    fn show(&self) -> Value {
        let fits = |(_, octets): &&(&str, u64)| self.0 >= *octets && self.0.is_multiple_of(*octets);
        let (unit, octets) = MEMORY_UNITS.iter().find(fits).unwrap_or(&MEMORY_UNITS[2]);
        json!(format!("{}{unit}", self.0 / octets))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB)$" })
    }
}

/// Units of time in the order in which a span is written, with their length in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Spans of time: `5s`, `300ms`, `1m30s`; the largest unit first, each once, whole numbers.
impl Single for Duration {
    const EXPECTED: &'static str = "a span of time such as 5s, 300ms or 1m30s";

    fn parse(text: &str) -> Parsed<Self> {
        if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(format!("the unit is missing: {text}s or {text}ms?").into());
        }
        parse_span(text).ok_or(Cow::Borrowed(""))
    }

    fn show(&self) -> Value {
        json!(show_span(*self))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?([0-9]+ns)?$",
            "minLength": 2 })
    }
}

/// At most some 584 years; `None` for anything that is no span.
fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanoseconds: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let after = &rest[digits..];
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        // Going on from the last unit refuses one that is out of order or stands twice.
        let (_, length) = units.find(|(unit, _)| *unit == &after[..letters])?;
        let count: u64 = rest[..digits].parse().ok()?;
        nanoseconds = nanoseconds.checked_add(count.checked_mul(*length)?)?;
        rest = &after[letters..];
    }
    (!text.is_empty()).then_some(Duration::from_nanos(nanoseconds))
}

fn show_span(span: Duration) -> String {
    let mut rest = span.as_nanos();
    let mut text = String::new();
    for (unit, length) in UNITS {
        let count = rest / u128::from(length);
        rest %= u128::from(length);
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Option<Duration> {
        Duration::parse(text).ok()
    }

    #[test]
    fn spans_of_time_are_read_with_their_units() {
        assert_eq!(span("5s"), Some(Duration::from_secs(5)));
        assert_eq!(span("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(span("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(span("1h1ns"), Some(Duration::new(3_600, 1)));
        assert_eq!(span("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_span_of_time_is_refused() {
        for wrong in ["", "5", "s", "5 s", "-5s", "5S", "1.5s", "30s1m", "1s1s", "5sec", "99999999999999999h", "½s"] {
            assert_eq!(span(wrong), None, "{wrong:?}");
        }
        assert!(Duration::parse("5").unwrap_err().contains("unit"));
    }

    #[test]
    fn a_span_of_time_is_shown_as_it_is_read() {
        for text in ["5s", "300ms", "1m30s", "1h1ns", "0s", "2h30m", "1us"] {
            assert_eq!(Duration::parse(text).unwrap().show(), text);
        }
        assert_eq!(Duration::parse("300s").unwrap().show(), "5m");
    }

    #[test]
    fn an_amount_of_memory_has_a_unit_and_is_shown_as_it_is_read() {
        for text in ["64MiB", "512KiB", "3GiB", "1025KiB"] {
            assert_eq!(Size::parse(text).unwrap().show(), text);
        }
        assert_eq!(Size::parse("1024KiB").unwrap().show(), "1MiB");
        for wrong in ["", "64", "MiB", "-1MiB", "+1MiB", "1.5GiB", "64MB", "64 MiB", "99999999999999999999GiB"] {
            assert!(Size::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Size::parse("64").unwrap_err().contains("unit"));
    }

    #[test]
    fn numbers_are_read_within_their_range_in_both_bases() {
        assert_eq!(u16::parse("65535").unwrap(), 65_535);
        assert_eq!(u32::parse("0x46554e").unwrap(), 0x0046_554e);
        for wrong in ["65536", "-1", "+1", "0x", "0x+1", "1_000", "1.0", "", "ten"] {
            assert!(u16::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_server_s_port_is_53_unless_it_is_given() {
        let read = |text| NameServer::parse(text).map(|server| server.0.to_string()).ok();
        assert_eq!(read("2001:db8::53").as_deref(), Some("[2001:db8::53]:53"));
        assert_eq!(read("[2001:db8::53]:5353").as_deref(), Some("[2001:db8::53]:5353"));
        assert_eq!(read("192.0.2.53").as_deref(), Some("192.0.2.53:53"));
        assert_eq!(read("dns.example"), None);
    }

    #[test]
    fn a_prefix_with_bits_after_it_is_refused_with_the_one_that_is_meant() {
        assert!(Ipv6Net::parse("2001:db8::/32").is_ok());
        assert!(Ipv6Net::parse("2001:db8::1/32").unwrap_err().contains("2001:db8::/32"));
        assert!(Ipv4Net::parse("10.0.0.1/8").is_err());
    }

    #[test]
    fn a_text_is_not_empty() {
        assert!(String::parse(" ").is_err());
        assert_eq!(String::parse("a b").unwrap(), "a b");
    }
}
