//! What HTTP/1.1 asks of whoever takes a request and passes it on: a case a row, with the section that asks for it.
//!
//! Each goes through both sidecars to an application, with a request behind it. What must be refused is not seen by the
//! application at all; `smuggling` has the cases that are about where a message ends.

use crate::smuggling::{BEHIND_HEARD, heard};

/// What becomes of a request, and of the one behind it.
enum Then {
    /// The application hears this, and then the one behind it.
    Heard(&'static str),
    /// The application hears this; then the connection ends.
    Last(&'static str),
    /// It is refused with one of these. The one behind it is heard as itself, or not at all.
    Refused(&'static [&'static str]),
    /// Its head may go on; its content, or what would be taken for that, does not.
    BrokenOff,
}

use Then::{BrokenOff, Heard, Last, Refused};

const BAD: Then = Refused(&["400"]);
const PLAIN: Then = Heard("get / http/1.1\r\nhost: x\r\n\r\n");

/// Runs every row; what departs is told together.
async fn all(rows: &[(&str, &str, &str, Then)]) {
    let mut departures = Vec::new();
    for (section, what, octets, then) in rows {
        let expected = match then {
            Heard(text) | Last(text) => *text,
            Refused(_) | BrokenOff => "",
        };
        let (came, answer) = heard(octets, expected).await;
        let as_asked = match then {
            Heard(text) => came.strip_prefix(text) == Some(BEHIND_HEARD),
            Last(text) => came == *text,
            Refused(statuses) => {
                let status = answer.split(' ').nth(1).unwrap_or_default();
                (came.is_empty() || came == BEHIND_HEARD) && answer.starts_with("http/1.") && statuses.contains(&status)
            }
            BrokenOff => came.matches("http/1.").count() <= 1 && !answer.contains(" 200 "),
        };
        if !as_asked {
            departures.push(format!("RFC {section}, {what}: the application heard {came:?}, the client {answer:?}"));
        }
    }
    assert!(departures.is_empty(), "{}", departures.join("\n"));
}

#[tokio::test]
async fn the_first_line_is_read_as_it_stands_or_refused() {
    all(&[
        ("9112 §2.2", "an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", PLAIN),
        ("9112 §2.2", "lines that end in LF", "GET / HTTP/1.1\nHost: x\n\n", PLAIN),
        ("9112 §2.2", "a field that begins with a space", "GET / HTTP/1.1\r\n X: 1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §2.3", "a version in small letters", "GET / http/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §2.3", "a version of two digits", "GET / HTTP/1.10\r\nHost: x\r\n\r\n", BAD),
        ("9112 §2.3", "another version", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", Refused(&["400", "505"])),
        ("9112 §3", "no version", "GET /\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3", "tabs for spaces", "GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3", "a space behind it", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.1", "no method", " / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.1", "a method that is no word", "G@T / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        (
            "9110 §9.1",
            "a method that nobody knows",
            "BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
            Heard("brew / http/1.1\r\nhost: x\r\n\r\n"),
        ),
        ("9112 §3.2", "a space in the target", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.2", "a nought in the target", "GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.2.1", "a target that is a name", "GET other.example HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.2.1", "a target that is a name and a port", "GET other.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.2.2", "a user in the target", "GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9112 §3.2.3", "CONNECT to a path", "CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9110 §9.3.6", "CONNECT without port", "CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        ("9110 §9.3.6", "CONNECT to no port", "CONNECT x:0 HTTP/1.1\r\nHost: x:0\r\n\r\n", BAD),
        (
            "9112 §3.2.4",
            "OPTIONS of everything",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            Heard("options * http/1.1\r\nhost: x\r\n\r\n"),
        ),
        ("9112 §3.2.4", "GET of everything", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    ])
    .await;
}

#[tokio::test]
async fn fields_are_read_as_they_stand_or_the_request_is_refused() {
    all(&[
        ("9112 §5", "no colon", "GET / HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n", BAD),
        ("9112 §5.1", "a tab before the colon", "GET / HTTP/1.1\r\nHost: x\r\nX-A\t: 1\r\n\r\n", BAD),
        (
            "9112 §5.1",
            "spaces around a value",
            "GET / HTTP/1.1\r\nHost:x\r\nX-A: \t 1 2\t \r\n\r\n",
            Heard("get / http/1.1\r\nhost: x\r\nx-a: 1 2\r\n\r\n"),
        ),
        (
            "9110 §5.5",
            "an empty value",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A:\r\n\r\n",
            Heard("get / http/1.1\r\nhost: x\r\nx-a: \r\n\r\n"),
        ),
        (
            "9110 §5.5",
            "octets beyond ASCII",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: é\r\n\r\n",
            Heard("get / http/1.1\r\nhost: x\r\nx-a: é\r\n\r\n"),
        ),
        ("9110 §5.5", "a bell in a value", "GET / HTTP/1.1\r\nHost: x\r\nX-A: \x07\r\n\r\n", BAD),
        ("9110 §7.2", "a port that is none", "GET / HTTP/1.1\r\nHost: x:y\r\n\r\n", BAD),
        ("9110 §7.2", "two hosts in one", "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", BAD),
        ("9110 §7.2", "half an IPv6 address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD),
        ("9112 §3.2", "an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Heard("get / http/1.1\r\nhost: \r\n\r\n")),
        (
            "9110 §7.6.1",
            "fields of this hop",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\n\r\n",
            PLAIN,
        ),
        ("9110 §7.6.1", "Connection that names Host", "GET / HTTP/1.1\r\nConnection: Host\r\nHost: x\r\n\r\n", PLAIN),
    ])
    .await;
}

#[tokio::test]
async fn content_ends_where_it_says_or_not_at_all() {
    const CHUNKED: &str = "post / http/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    macro_rules! chunked {
        ($content:literal) => {
            concat!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", $content)
        };
    }
    macro_rules! post {
        ($field:literal, $content:literal) => {
            concat!("POST / HTTP/1.1\r\nHost: x\r\n", $field, "\r\n\r\n", $content)
        };
    }
    all(&[
        (
            "9112 §6.2",
            "a length with noughts before it",
            post!("Content-Length: 003", "abc"),
            Heard("post / http/1.1\r\nhost: x\r\ncontent-length: 003\r\n\r\nabc"),
        ),
        (
            "9110 §9.3.1",
            "content of GET",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            Heard("get / http/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"),
        ),
        ("9112 §6.2", "an empty length", post!("Content-Length:", "abc"), BAD),
        ("9112 §6.2", "a hexadecimal length", post!("Content-Length: 0x3", "abc"), BAD),
        ("9112 §6.2", "a length in two words", post!("Content-Length: 3 3", "abc"), BAD),
        (
            "9112 §6.3",
            "the same length twice",
            post!("Content-Length: 3\r\nContent-Length: 3", "abc"),
            Heard("post / http/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"),
        ),
        (
            "9112 §7",
            "a coding in capitals",
            post!("Transfer-Encoding: CHUNKED", "3\r\nabc\r\n0\r\n\r\n"),
            Heard(CHUNKED),
        ),
        ("9112 §7", "no coding", post!("Transfer-Encoding: identity", "abc"), Refused(&["400", "501"])),
        ("9112 §7", "an empty coding", post!("Transfer-Encoding:", "0\r\n\r\n"), Refused(&["400", "501"])),
        (
            "9112 §7",
            "chunked twice",
            post!("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
            Refused(&["400", "501"]),
        ),
        (
            "9112 §7",
            "chunked in quotes",
            post!("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
            Refused(&["400", "501"]),
        ),
        (
            "9112 §7",
            "chunked of a kind",
            post!("Transfer-Encoding: chunked;a=b", "0\r\n\r\n"),
            Refused(&["400", "501"]),
        ),
        ("9112 §7.1", "noughts before a size", chunked!("0003\r\nabc\r\n0\r\n\r\n"), Heard(CHUNKED)),
        ("9112 §7.1", "several noughts at the end", chunked!("3\r\nabc\r\n000\r\n\r\n"), Heard(CHUNKED)),
        (
            "9112 §7.1",
            "a size in a capital",
            chunked!("A\r\n0123456789\r\n0\r\n\r\n"),
            Heard("post / http/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"),
        ),
        ("9112 §7.1.1", "words behind a size", chunked!("3;a=\"b\"\r\nabc\r\n0;c\r\n\r\n"), Heard(CHUNKED)),
        ("9112 §7.1.1", "a line feed in such words", chunked!("3;a\nabc\r\n0\r\n\r\n"), BrokenOff),
        (
            "9112 §7.1.2",
            "a trailer that was not announced",
            chunked!("3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n"),
            Heard(CHUNKED),
        ),
        ("9112 §7.1", "no size", chunked!("\r\nabc\r\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a signed size", chunked!("+3\r\nabc\r\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a negative size", chunked!("-3\r\nabc\r\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a size of C", chunked!("0x3\r\nabc\r\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a line feed behind a size", chunked!("3\nabc\r\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a line feed behind a chunk", chunked!("3\r\nabc\n0\r\n\r\n"), BrokenOff),
        ("9112 §7.1", "a chunk longer than it says", chunked!("3\r\nabcd\r\n0\r\n\r\n"), BrokenOff),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_goes_on_or_ends_as_its_request_wants() {
    all(&[
        (
            "9112 §9.6",
            "an end",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            Last("get / http/1.1\r\nhost: x\r\n\r\n"),
        ),
        (
            "9112 §9.6",
            "an end among other words",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: x-a, Close\r\n\r\n",
            Last("get / http/1.1\r\nhost: x\r\n\r\n"),
        ),
        ("9112 §9.3", "HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", Last("get / http/1.1\r\nhost: x\r\n\r\n")),
        (
            "9112 §9.3",
            "HTTP/1.0 that wants to go on",
            "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            PLAIN,
        ),
        (
            "9112 §3.2",
            "HTTP/1.0 without Host",
            "GET / HTTP/1.0\r\n\r\n",
            Last("get / http/1.1\r\nhost: orders.shop.peak\r\n\r\n"),
        ),
    ])
    .await;
}
