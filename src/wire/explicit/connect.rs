//! The head of an HTTP/1.1 CONNECT request.
//!
//! Only the request line says anything to a proxy that is explicitly asked; the header's fields are skipped over, up to
//! the empty line, and what follows is the tunnel's.
//!
//! Source: RFC 9110 §9.3.6; RFC 9112 §2, §3.2.3 (authority-form).

use super::Target;

/// The most octets of a head that are read.
pub const LONGEST: usize = 8 * 1024;
const END: &[u8] = b"\r\n\r\n";

/// Why a request is not served. One cause, one variant.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The line is no request line of HTTP/1.
    #[error("the first line is no request of HTTP/1.0 or HTTP/1.1")]
    Malformed,
    /// Another method.
    #[error("the method is not CONNECT: this port carries connections, it does not forward requests")]
    Method,
    /// The target has not the form `host:port`.
    #[error("the target has not the form host:port")]
    Target,
    /// The head does not end.
    #[error("the head is longer than {LONGEST} octets")]
    TooLong,
}

impl ConnectError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "connect-malformed",
            Self::Method => "connect-method",
            Self::Target => "connect-target",
            Self::TooLong => "connect-too-long",
        }
    }

    /// The status that the client is told (RFC 9110 §15.5).
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Target => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads a head; says where it leads and how many octets it has, `None` while it is not whole.
///
/// # Errors
/// [`ConnectError`]; what is wrong with the request line is said once that is whole.
pub fn request(octets: &[u8]) -> Result<Option<(Target, usize)>, ConnectError> {
    let Some(line_end) = octets.windows(2).position(|pair| pair == b"\r\n") else {
        return if octets.len() >= LONGEST { Err(ConnectError::TooLong) } else { Ok(None) };
    };
    let target = request_line(&octets[..line_end])?;
    match octets.windows(END.len()).position(|window| window == END) {
        Some(end) if end + END.len() <= LONGEST => Ok(Some((target, end + END.len()))),
        None if octets.len() < LONGEST => Ok(None),
        Some(_) | None => Err(ConnectError::TooLong),
    }
}

fn request_line(line: &[u8]) -> Result<Target, ConnectError> {
    let line = std::str::from_utf8(line).map_err(|_| ConnectError::Malformed)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ConnectError::Malformed);
    };
    // Methods are case-sensitive (RFC 9110 §9.1).
    if method != "CONNECT" {
        return Err(ConnectError::Method);
    }
    let (host, port) = target.rsplit_once(':').ok_or(ConnectError::Target)?;
    let digits = !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or(ConnectError::Target)?;
    // An IPv6 address stands in brackets, nothing else does (RFC 3986 §3.2.2).
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.contains(':')).ok_or(ConnectError::Target)?,
        None if host.contains([':', '@', '/']) => return Err(ConnectError::Target),
        None => host,
    };
    Target::new(host, port).ok_or(ConnectError::Target)
}

/// What the client is told when the connection is there; the tunnel's octets follow.
pub const GRANTED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// What the client is told when there is none: a status such as `502 Bad Gateway`, and the reason in the body.
#[must_use]
pub fn refusal(status: &str, reason: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
        reason.len() + 1
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Option<Target>, ConnectError> {
        request(format!("{line}\r\nHost: ignored\r\n\r\n").as_bytes()).map(|read| read.map(|(target, _)| target))
    }

    #[test]
    fn the_target_is_read_and_what_follows_the_head_is_left() {
        let octets = b"CONNECT orders.shop.peak:80 HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n\x16\x03";
        let whole = octets.len() - 2;
        for cut in 0..whole {
            assert_eq!(request(&octets[..cut]), Ok(None), "{cut}");
        }
        let expected = Target::Name("orders.shop.peak".parse().unwrap(), 80);
        assert_eq!(request(octets), Ok(Some((expected, whole))));
        assert_eq!(
            asked("CONNECT [2001:db8::1]:443 HTTP/1.0"),
            Ok(Some(Target::Address("[2001:db8::1]:443".parse().unwrap())))
        );
        assert_eq!(
            asked("CONNECT 192.0.2.1:443 HTTP/1.1"),
            Ok(Some(Target::Address("192.0.2.1:443".parse().unwrap())))
        );
    }

    #[test]
    fn every_other_request_is_refused_for_its_own_reason() {
        for (line, error) in [
            ("GET http://a.peak/ HTTP/1.1", ConnectError::Method),
            ("connect a.peak:80 HTTP/1.1", ConnectError::Method),
            ("CONNECT a.peak:80", ConnectError::Malformed),
            ("CONNECT a.peak:80 HTTP/2", ConnectError::Malformed),
            ("CONNECT  a.peak:80 HTTP/1.1", ConnectError::Malformed),
            ("CONNECT a.peak HTTP/1.1", ConnectError::Target),
            ("CONNECT a.peak: HTTP/1.1", ConnectError::Target),
            ("CONNECT a.peak:+80 HTTP/1.1", ConnectError::Target),
            ("CONNECT a.peak:65536 HTTP/1.1", ConnectError::Target),
            ("CONNECT user@a.peak:80 HTTP/1.1", ConnectError::Target),
            ("CONNECT 2001:db8::1:80 HTTP/1.1", ConnectError::Target),
            ("CONNECT [a.peak]:80 HTTP/1.1", ConnectError::Target),
            ("CONNECT :80 HTTP/1.1", ConnectError::Target),
        ] {
            assert_eq!(asked(line), Err(error), "{line}");
        }
    }

    #[test]
    fn a_head_without_end_is_given_up_at_the_bound() {
        let head = |padding: usize| format!("CONNECT a.peak:80 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(padding));
        let frame = head(0).len();
        assert!(matches!(request(head(LONGEST - frame).as_bytes()), Ok(Some((_, LONGEST)))));
        assert_eq!(request(head(LONGEST - frame + 1).as_bytes()), Err(ConnectError::TooLong));
        assert_eq!(request(&[b'C'; LONGEST]), Err(ConnectError::TooLong));
        assert_eq!(request(&[b'C'; LONGEST - 1]), Ok(None));
    }

    proptest::proptest! {
        #[test]
        fn no_octets_are_read_past_their_end(octets: Vec<u8>) {
            let head = [b"CONNECT ", &octets[..], b" HTTP/1.1\r\n\r\n"].concat();
            proptest::prop_assert!(request(&head).unwrap_or(None).is_none_or(|(_, taken)| taken <= head.len()));
        }
    }
}
