//! The name that a client says first: Host in a request of HTTP/1.1 (RFC 9112 §3.2), the server name in a ClientHello (RFC
//! 6066 §3).
//!
//! Looks at what has come and consumes nothing. Whatever is malformed, or of another protocol, names nobody: it is not for us
//! to judge what is passed on untouched. Bounded by the caller: [`MOST`] octets say it or nothing does.

/// As many octets as are looked at.
pub const MOST: usize = 8 * 1024;
/// The longest name of DNS, in text.
const LONGEST_NAME: usize = 255;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What a client's first octets say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Words {
    /// Not enough has come to tell.
    Unfinished,
    /// A protocol that says no name first, or not this way.
    Nobody,
    /// This name, as it was spelled, without port.
    Name(Box<str>),
}

/// What the first octets of a connection say.
#[must_use]
pub fn said(octets: &[u8]) -> Words {
    let words = match octets.first() {
        None => Some(Words::Unfinished),
        Some(&HANDSHAKE_RECORD) => hello(octets),
        Some(first) if first.is_ascii_uppercase() => Some(request(octets)),
        Some(_) => None,
    };
    match words.unwrap_or(Words::Nobody) {
        Words::Unfinished if octets.len() >= MOST => Words::Nobody,
        words @ (Words::Unfinished | Words::Nobody | Words::Name(_)) => words,
    }
}

fn named(name: &[u8]) -> Words {
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() && name.len() <= LONGEST_NAME && name.is_ascii() => Words::Name(name.into()),
        Ok(_) | Err(_) => Words::Nobody,
    }
}

/// The Host of a request. A method is a word of capitals, in every method that is registered.
fn request(octets: &[u8]) -> Words {
    let mut lines = octets.split(|&octet| octet == b'\n');
    let Some(first) = lines.next() else { return Words::Unfinished };
    if !begins_like_a_request(first) {
        return Words::Nobody;
    }
    // The last piece is not a line yet.
    let mut piece = lines.next();
    while let Some(line) = piece {
        piece = lines.next();
        let is_whole = piece.is_some();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() && is_whole {
            return Words::Nobody;
        }
        if let Some((name, value)) =
            line.iter().position(|&octet| octet == b':').map(|at| (&line[..at], &line[at + 1..]))
            && is_whole
            && name.eq_ignore_ascii_case(b"host")
        {
            return named(without_port(value.trim_ascii()));
        }
    }
    Words::Unfinished
}

fn begins_like_a_request(line: &[u8]) -> bool {
    const LONGEST_METHOD: usize = 20;
    let method = line.iter().take_while(|octet| octet.is_ascii_uppercase() || **octet == b'-').count();
    method <= LONGEST_METHOD && line.get(method).is_none_or(|&octet| octet == b' ') && !line.starts_with(b"PRI ")
}

fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|&octet| octet == b':') {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        Some(_) | None => authority,
    }
}

/// The server name in a ClientHello; none where the octets are no such thing.
fn hello(octets: &[u8]) -> Option<Words> {
    let mut record = Reader(octets);
    let Some(length) = record.skip(3).and_then(|()| record.number(2)) else { return Some(Words::Unfinished) };
    let whole = record.0.len() >= length;
    // What lies in a further record is not looked for.
    let mut hello = Reader(&record.0[..length.min(record.0.len())]);
    match server_name(&mut hello) {
        Some(words) => Some(words),
        None if whole => None,
        None => Some(Words::Unfinished),
    }
}

fn server_name(hello: &mut Reader<'_>) -> Option<Words> {
    if hello.number(1)? != usize::from(CLIENT_HELLO) {
        return Some(Words::Nobody);
    }
    // Length, version, random; session, suites, compression.
    hello.skip(3 + 2 + 32)?;
    for width in [1, 2, 1] {
        hello.vector(width)?;
    }
    let length = hello.number(2)?;
    let all = hello.0.len() >= length;
    let mut extensions = Reader(&hello.0[..length.min(hello.0.len())]);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut extension = Reader(extensions.vector(2)?);
        if kind == usize::from(SERVER_NAME) {
            let mut names = Reader(extension.vector(2)?);
            let is_host = names.number(1)? == usize::from(HOST_NAME);
            let name = names.vector(2)?;
            return Some(if is_host { named(name) } else { Words::Nobody });
        }
    }
    all.then_some(Words::Nobody)
}

/// Octets that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, octets: usize) -> Option<()> {
        self.take(octets).map(|_| ())
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, &octet| number << 8 | usize::from(octet)))
    }

    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Words {
        Words::Name(text.into())
    }

    /// A ClientHello with these extensions, as one record.
    fn client_hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let sized = |width: usize, octets: &[u8]| [&octets.len().to_be_bytes()[8 - width..], octets].concat();
        let one = |(kind, content): &(u16, &[u8])| [&kind.to_be_bytes()[..], &sized(2, content)].concat();
        let extensions: Vec<u8> = extensions.iter().flat_map(one).collect();
        let parts = [vec![3, 3], vec![7; 32], sized(1, &[1; 32]), sized(2, &[0x13, 1]), sized(1, &[0])];
        let body = [parts.concat(), sized(2, &extensions)].concat();
        let message = [vec![CLIENT_HELLO], sized(3, &body)].concat();
        [vec![HANDSHAKE_RECORD, 3, 1], sized(2, &message)].concat()
    }

    const ORDERS: &[u8] = b"\0\x13\0\0\x10orders.shop.peak";

    #[test]
    fn a_request_names_its_host_as_soon_as_that_line_is_whole() {
        let request = b"GET /path HTTP/1.1\r\nAccept: */*\r\nhOsT:  Orders.shop.peak:8080 \r\nX: y\r\n\r\n";
        let line_ends = request.windows(4).position(|window| window == b"\r\nX:").unwrap() + 2;
        assert!((0..line_ends).all(|length| said(&request[..length]) == Words::Unfinished));
        assert!((line_ends..=request.len()).all(|length| said(&request[..length]) == name("Orders.shop.peak")));
    }

    #[test]
    fn what_names_nobody_is_known_at_once() {
        for octets in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"*1\r\n$4\r\nPING\r\n",
            b"helo mail\r\n",
            b"EHLO_",
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        ] {
            assert_eq!(said(octets), Words::Nobody, "{octets:?}");
        }
        assert_eq!(said(&[b'A'; MOST]), Words::Nobody);
    }

    #[test]
    fn a_client_hello_names_its_server_wherever_the_extension_stands() {
        for extensions in [&[(0, ORDERS)][..], &[(43, b"\x02\x03\x04"), (0, ORDERS), (51, &[0; 1200])]] {
            let hello = client_hello(extensions);
            assert_eq!(said(&hello), name("orders.shop.peak"));
            let needed = (0..=hello.len()).find(|&length| said(&hello[..length]) != Words::Unfinished).unwrap();
            assert_eq!(said(&hello[..needed]), name("orders.shop.peak"), "nothing else is said before");
        }
        assert_eq!(said(&client_hello(&[(43, b"\x02\x03\x04")])), Words::Nobody);
        assert_eq!(said(b"\x16\x03\x01\x00\x01\x02"), Words::Nobody);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic_and_more_octets_never_change_a_name(
            octets in proptest::collection::vec(any::<u8>(), 0..600),
            tls in any::<bool>(),
        ) {
            let octets = if tls { [&[HANDSHAKE_RECORD, 3, 1][..], &octets].concat() } else { octets };
            let mut before = Words::Unfinished;
            for length in 0..=octets.len() {
                let now = said(&octets[..length]);
                prop_assert!(before == Words::Unfinished || before == now, "{before:?} became {now:?}");
                before = now;
            }
        }
    }
}
