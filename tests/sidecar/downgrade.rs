//! HTTP/2 of an application that the sidecar has to say in HTTP/1.1, because the server speaks nothing else: what cannot be
//! said there as it was meant is not said at all (RFC 9113 §8, §10.3).
//!
//! The frames are made by hand: no client would send them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bed::*;
use crate::http::{ByHandServer, HEADER, head, say};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 400` of HPACK's own table (RFC 7541 appendix A).
const BAD_REQUEST: u8 = 0x80 | 12;
const NO_CONTENT: u8 = 0x80 | 9;
const OK: u8 = 0x80 | 8;

/// A frame of the first request, or of the connection.
fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let stream = u8::from(kind != SETTINGS);
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
}

/// Fields, each as it stands: neither compressed nor remembered (RFC 7541 §6.2.2). None is longer than 126 octets.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let literal = |(name, value): &(&str, &str)| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    fields.iter().flat_map(literal).collect()
}

/// An application that opens a connection in HTTP/2 and sends these frames on it.
async fn sends(outbound: &Running, frames: &[Vec<u8>]) -> TcpStream {
    let mut client = outbound.connect().await;
    let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, b"")[..], &frames.concat()].concat();
    client.write_all(&begun).await.unwrap();
    client
}

/// How the request was answered.
#[derive(Debug, PartialEq)]
enum Answered {
    /// By fields, of which this is the first octet.
    With(u8),
    /// By an end of the stream.
    Reset,
    /// By an end of the connection.
    Ended,
}

async fn answered(client: &mut TcpStream) -> Answered {
    loop {
        let mut begins = [0; 9];
        if within(client.read_exact(&mut begins)).await.is_err() {
            return Answered::Ended;
        }
        let mut content = vec![0; u32::from_be_bytes([0, begins[0], begins[1], begins[2]]) as usize];
        within(client.read_exact(&mut content)).await.unwrap();
        match begins[3] {
            HEADERS => return Answered::With(content[0]),
            RESET => return Answered::Reset,
            GOAWAY => return Answered::Ended,
            _ => {}
        }
    }
}

const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", SERVICE);
const PATH: (&str, &str) = (":path", "/");

#[tokio::test]
async fn a_request_that_http_1_would_read_otherwise_reaches_no_server() {
    let authority = Authority::new();
    let mut server = Application::start().await;
    let directory = Table::of([service(&["::1/128"], &[HEADER], Some(server.port))]);
    let outbound = OutboundBed::new(&authority, directory).start().await;
    let with = |field| vec![METHOD, SCHEME, AUTHORITY, PATH, field];
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("the end of a line in a value", with(("x-a", "1\r\nx-b: 2"))),
        ("a line feed in a value", with(("x-a", "1\nx-b: 2"))),
        ("a carriage return in a value", with(("x-a", "1\rx-b: 2"))),
        ("a nought in a value", with(("x-a", "1\0"))),
        ("the end of a line in a name", with(("x-a\r\nx-b", "1"))),
        ("a colon in a name", with(("x-a: 1\r\nx-b", "1"))),
        ("a space in a name", with(("x a", "1"))),
        ("a capital in a name", with(("X-A", "1"))),
        ("an empty name", with(("", "1"))),
        ("a transfer coding", with(("transfer-encoding", "chunked"))),
        ("Connection", with(("connection", "x-a"))),
        ("Keep-Alive", with(("keep-alive", "1"))),
        ("Upgrade", with(("upgrade", "x"))),
        ("TE of more than trailers", with(("te", "gzip"))),
        ("a length that is none", with(("content-length", "1x"))),
        ("a signed length", with(("content-length", "+1"))),
        ("another Host", with(("host", "other.example"))),
        ("a second method", with((":method", "GET"))),
        ("a second path", with((":path", "/other"))),
        ("an unknown pseudo-field", with((":other", "1"))),
        ("an answer's pseudo-field", with((":status", "200"))),
        ("a pseudo-field behind a field", vec![METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH]),
        ("no method", vec![SCHEME, AUTHORITY, PATH]),
        ("no scheme", vec![METHOD, AUTHORITY, PATH]),
        ("no path", vec![METHOD, SCHEME, AUTHORITY]),
        ("an empty path", vec![METHOD, SCHEME, AUTHORITY, (":path", "")]),
        ("a path with a second line", vec![METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1\r\nx-b: 2\r\n\r\n")]),
        ("a path with a space", vec![METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1")]),
        ("a path that is a name", vec![METHOD, SCHEME, AUTHORITY, (":path", "other.example/")]),
        ("a method with a space", vec![(":method", "GET /other HTTP/1.1\r\nx-a:"), SCHEME, AUTHORITY, PATH]),
        ("an authority with a user", vec![METHOD, SCHEME, (":authority", "user@orders.shop.peak"), PATH]),
        ("an authority with a second line", vec![METHOD, SCHEME, (":authority", "x\r\nx-b: 2"), PATH]),
    ];
    for (what, row) in rows {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, &fields(&row));
        let mut client = sends(&outbound, &[request]).await;
        let answered = answered(&mut client).await;
        let refused = [Answered::With(BAD_REQUEST), Answered::Reset, Answered::Ended].contains(&answered);
        assert!(refused && server.is_untouched(), "{what}: {answered:?}");
    }
}

#[tokio::test]
async fn content_of_another_length_than_announced_is_broken_off_and_never_the_next_request() {
    let authority = Authority::new();
    let (server, bed) = ByHandServer::start(&authority).await;
    let outbound = bed.start().await;
    for (announced, content) in [("3", "abcGET /more HTTP/1.1\r\nHost: x\r\n\r\n"), ("9", "abc")] {
        let request = [METHOD, SCHEME, AUTHORITY, PATH, ("content-length", announced)];
        let mut client = sends(&outbound, &[frame(HEADERS, END_HEADERS, &fields(&request))]).await;
        let mut stream = server.accept().await;
        assert!(head(&mut stream).await.contains(&format!("\r\ncontent-length: {announced}\r\n")));

        client.write_all(&frame(DATA, END_STREAM, content.as_bytes())).await.unwrap();

        let mut heard = Vec::new();
        // It breaks off, with or without a word of TLS about that.
        let _ = within(stream.read_to_end(&mut heard)).await;
        assert!(b"abc".starts_with(&heard), "{}", String::from_utf8_lossy(&heard));
        assert_ne!(answered(&mut client).await, Answered::With(OK));
    }
}

#[tokio::test]
async fn what_http_1_can_say_is_said_with_one_host_one_length_and_one_field_of_cookies() {
    let authority = Authority::new();
    let (server, bed) = ByHandServer::start(&authority).await;
    let outbound = bed.start().await;
    let request = [METHOD, SCHEME, AUTHORITY, (":path", "/a?b"), ("cookie", "a=1"), ("cookie", "b=2")];
    let frames = [frame(HEADERS, END_HEADERS, &fields(&request)), frame(DATA, END_STREAM, b"content")];
    let mut client = sends(&outbound, &frames).await;
    let mut stream = server.accept().await;

    let came = head(&mut stream).await;
    assert!(came.starts_with("post /a?b http/1.1\r\n"), "{came}");
    assert!(came.contains(&format!("\r\nhost: {SERVICE}\r\n")) && came.matches("host:").count() == 1, "{came}");
    assert!(came.contains("\r\ncookie: a=1; b=2\r\n"), "{came}");
    assert!(came.contains("\r\ntransfer-encoding: chunked\r\n") && !came.contains("content-length"), "{came}");
    crate::http::hear(&mut stream, "7\r\ncontent\r\n0\r\n\r\n").await;
    say(&mut stream, "HTTP/1.1 204 No Content\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\r\n").await;
    assert_eq!(answered(&mut client).await, Answered::With(NO_CONTENT));
}
