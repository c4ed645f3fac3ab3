//! Header fields: which belong to one hop, which are ours, and how many octets are too many.
//!
//! A message's fields are looked through once, in [`Survey`]; nearly all messages then need nothing removed.
//!
//! Ours are never passed on, whoever wrote them, in any spelling that a server may take for ours: CGI and its heirs (RFC
//! 3875 §4.1.18) make `-` and `_` the same.

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

/// The caller's token, as `Bearer` (RFC 6750 §2.1); the application's own `Authorization` stays its own.
pub(in crate::sidecar) const TOKEN: HeaderName = HeaderName::from_static("peak-authorization");
/// Tells the application who calls.
pub(in crate::sidecar) const CALLER: HeaderName = HeaderName::from_static("peak-caller");
/// Says in an answer of a sidecar why it is no answer of the application.
pub(in crate::sidecar) const REFUSAL: HeaderName = HeaderName::from_static("peak-refusal");
/// RFC 7239.
pub(in crate::sidecar) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The most octets of one field, name and value.
pub(in crate::sidecar) const LONGEST_FIELD: usize = 32 * 1024;
/// The most octets of all fields of a message, counted as RFC 9113 §6.5.2 does.
pub(in crate::sidecar) const LONGEST_HEAD: usize = 64 * 1024;
/// What a field takes besides its octets (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

/// A field that makes a head too long.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the field {name} makes the head longer than {most} octets")]
pub(in crate::sidecar) struct TooLong {
    /// Its name.
    pub(in crate::sidecar) name: HeaderName,
    /// The limit that it broke.
    pub(in crate::sidecar) most: usize,
}

/// What a message's fields hold that concerns an intermediary.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::sidecar) struct Survey {
    /// `Connection`, or one of the fields that stood for it once.
    connection: bool,
    te: bool,
    transfer_encoding: bool,
    content_length: bool,
    upgrade: bool,
    ours: bool,
    /// `Expect`.
    pub(in crate::sidecar) expect: bool,
    /// How often Host stands there.
    pub(in crate::sidecar) hosts: u32,
}

impl Survey {
    /// Looks the fields through.
    ///
    /// # Errors
    /// The first field that is too long, or that makes the head so.
    pub(in crate::sidecar) fn of(headers: &HeaderMap) -> Result<Self, TooLong> {
        let (mut survey, mut octets) = (Self::default(), 0);
        for (name, value) in headers {
            let length = name.as_str().len() + value.len();
            octets += length + OVERHEAD;
            if length > LONGEST_FIELD {
                return Err(TooLong { name: name.clone(), most: LONGEST_FIELD });
            }
            if octets > LONGEST_HEAD {
                return Err(TooLong { name: name.clone(), most: LONGEST_HEAD });
            }
            match *name {
                HOST => survey.hosts += 1,
                CONNECTION => survey.connection = true,
                CONTENT_LENGTH => survey.content_length = true,
                TRANSFER_ENCODING => survey.transfer_encoding = true,
                TE => survey.te = true,
                UPGRADE => survey.upgrade = true,
                EXPECT => survey.expect = true,
                _ if is_ours(name) => survey.ours = true,
                _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == HTTP2_SETTINGS => {
                    survey.connection = true;
                }
                _ => {}
            }
        }
        Ok(survey)
    }

    /// Removes what is meant for this hop (RFC 9110 §7.6.1) and what is ours. What follows `Connection` cannot take away
    /// fields that the next hop needs to understand the message.
    pub(in crate::sidecar) fn strip(self, headers: &mut HeaderMap) {
        if self.ours {
            strip_ours(headers);
        }
        if self.connection {
            for name in named(headers) {
                headers.remove(name);
            }
            for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS] {
                headers.remove(name);
            }
        }
        if self.te {
            let trailers = headers.get_all(TE).iter().any(|value| lists(value, "trailers"));
            headers.remove(TE);
            if trailers {
                headers.insert(TE, HeaderValue::from_static("trailers"));
            }
        }
        if self.transfer_encoding {
            // RFC 9112 §6.3: the length was that of something else, or a lie.
            headers.remove(TRANSFER_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        if self.upgrade {
            headers.remove(UPGRADE);
        }
    }

    /// Whether the content is in a form that is not read here: any transfer coding but `chunked` alone (RFC 9112 §7).
    pub(in crate::sidecar) fn is_coded(self, headers: &HeaderMap) -> bool {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        self.transfer_encoding
            && !(codings.next().is_some_and(|only| only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
                && codings.next().is_none())
    }

    /// The protocol that the message asks to change to, or that it changes to (RFC 9110 §7.8). HTTP/2 is none: it is
    /// either spoken from the start or not at all (RFC 9113 §3.1).
    pub(in crate::sidecar) fn upgrade(self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.upgrade || !headers.get_all(CONNECTION).iter().any(|value| lists(value, "upgrade")) {
            return None;
        }
        headers.get(UPGRADE).filter(|protocol| !lists(protocol, "h2c")).cloned()
    }
}

/// Removes our fields from a message or from its trailers.
pub(in crate::sidecar) fn strip_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Whether a server might take the field for one of ours.
fn is_ours(name: &HeaderName) -> bool {
    // As `-` everywhere; names are lower case already.
    let begins = |text: &str, with: &str| {
        text.len() >= with.len() && text.bytes().zip(with.bytes()).all(|(one, other)| alike(one, other))
    };
    let is = |text: &str, what: &str| text.len() == what.len() && begins(text, what);
    let ends = |text: &str, with: &str| text.len() >= with.len() && is(&text[text.len() - with.len()..], with);
    let text = name.as_str();
    match text.as_bytes().first() {
        Some(b'p') => [TOKEN, CALLER, REFUSAL].iter().any(|ours| is(text, ours.as_str())),
        // With something between the two.
        Some(b'w') => text.len() > "workload--token".len() && begins(text, "workload-") && ends(text, "-token"),
        Some(_) | None => false,
    }
}

fn alike(one: u8, other: u8) -> bool {
    one == other || (one == b'_' && other == b'-')
}

/// The fields that `Connection` names, without those that say where a message goes and where it ends.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    names.filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TE, UPGRADE].contains(name)).collect()
}

/// Whether a list of words holds this one, whatever its case.
fn lists(value: &HeaderValue, word: &str) -> bool {
    let words = value.as_bytes().split(|&octet| octet == b',');
    words.map(<[u8]>::trim_ascii).any(|found| found.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        lines.iter().map(parsed).collect()
    }

    fn stripped(lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = headers(lines);
        Survey::of(&headers).unwrap().strip(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn what_is_meant_for_one_hop_goes_no_further() {
        let lines = [
            ("host", "a"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("te", "gzip, trailers"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-stays", "3"),
        ];
        assert_eq!(stripped(&lines), ["host: a", "te: trailers", "x-stays: 3"]);
    }

    #[test]
    fn connection_cannot_take_away_where_a_message_goes_or_ends() {
        let lines = [("connection", "host, content-length, close"), ("host", "a"), ("content-length", "3")];
        assert_eq!(stripped(&lines), ["content-length: 3", "host: a"]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_not_believed() {
        assert_eq!(stripped(&[("transfer-encoding", "chunked"), ("content-length", "3")]), [""; 0]);
    }

    #[test]
    fn our_fields_are_removed_in_every_spelling_that_a_server_may_take_for_ours() {
        let forged = [
            "peak-authorization",
            "Peak_Authorization",
            "PEAK-CALLER",
            "peak_caller",
            "peak-refusal",
            "Workload-Identity-Token",
            "workload_proof-token",
            "workload-x_token",
        ];
        for name in forged {
            assert_eq!(stripped(&[(name, "forged"), (name, "twice")]), [""; 0], "{name}");
        }
        for name in ["authorization", "peak-season", "peak-callers", "workload-token", "workload-identity-tokens", "p"]
        {
            assert_eq!(stripped(&[(name, "x")]).len(), 1, "{name}");
        }
    }

    #[test]
    fn a_field_that_is_too_long_is_named_and_so_is_the_one_that_makes_the_head_so() {
        let one = |length| Survey::of(&headers(&[("x-big", &"x".repeat(length - 5))]));
        assert!(one(LONGEST_FIELD).is_ok());
        assert_eq!(one(LONGEST_FIELD + 1).unwrap_err().name, "x-big");
        let half = "x".repeat(LONGEST_HEAD / 2 - OVERHEAD - 1);
        assert!(Survey::of(&headers(&[("a", &half), ("b", &half)])).is_ok());
        let one_more = format!("{half}x");
        let refused = Survey::of(&headers(&[("a", &half), ("b", &one_more)])).unwrap_err();
        assert_eq!((refused.name.as_str(), refused.most), ("b", LONGEST_HEAD));
    }

    #[test]
    fn an_upgrade_takes_both_fields_and_is_never_to_http_2() {
        let asked = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            Survey::of(&headers).unwrap().upgrade(&headers).is_some()
        };
        assert!(asked(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!asked(&[("connection", "keep-alive"), ("upgrade", "websocket")]));
        assert!(!asked(&[("connection", "upgrade")]));
        assert!(!asked(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]));
    }

    #[test]
    fn content_that_is_coded_in_another_way_than_chunked_is_told_apart() {
        let coded = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            Survey::of(&headers).unwrap().is_coded(&headers)
        };
        assert!(!coded(&[]));
        assert!(!coded(&[("transfer-encoding", " Chunked")]));
        assert!(coded(&[("transfer-encoding", "gzip, chunked")]));
        assert!(coded(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]));
    }
}
