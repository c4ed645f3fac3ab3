//! Messages that two parsers might take for different ones: what of them reaches the application is one message, or none.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::bed::*;
use crate::http::{HEADER, OK, Pair, head, say};

/// What is asked behind every row: it is heard as itself, or not at all.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
pub(crate) const BEHIND_HEARD: &str = "get /behind http/1.1\r\nhost: x\r\n\r\n";

/// What the application hears of these octets and of [`BEHIND`], on whichever connection, until the sidecar has ended the
/// client's connection and those to the application; and what the client hears. The application answers once it has heard
/// exactly `expected`, and again to what is behind it: whatever else arrives waits in vain.
pub(crate) async fn heard(octets: &str, expected: &str) -> (String, String) {
    let Pair { outbound, inbound, application, .. } = &mut Pair::start().await;
    let mut client = outbound.connect().await;
    say(&mut client, octets).await;
    // It may have been refused, and closed, by now.
    let _ = client.write_all(BEHIND.as_bytes()).await;
    let ended = Notify::new();
    let asking = async {
        let mut answer = Vec::new();
        // A connection with something unread ends in a reset.
        let _ = within(client.read_to_end(&mut answer)).await;
        // What stays for the next client ends as well.
        within(inbound.drain.drain(Duration::from_secs(10))).await;
        ended.notify_one();
        answer
    };
    let answering = async {
        let mut came = String::new();
        loop {
            let mut server = tokio::select! {
                biased;
                server = application.accept() => server,
                () = ended.notified() => return in_one_chunk(&came),
            };
            let mut piece = vec![0; 65_536];
            while let Ok(octets @ 1..) = within(server.read(&mut piece)).await {
                came.push_str(&String::from_utf8_lossy(&piece[..octets]).to_ascii_lowercase());
                if in_one_chunk(&came) == expected || came.ends_with(BEHIND_HEARD) {
                    let _ = server.write_all(OK.as_bytes()).await;
                }
            }
        }
    };
    let (answer, came) = tokio::join!(asking, answering);
    (came, String::from_utf8_lossy(&answer).to_ascii_lowercase())
}

/// A message whose content comes in chunks, with as few of them as can be: a hop may cut them otherwise (RFC 9112 §7.1).
fn in_one_chunk(message: &str) -> String {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";
    let Some((head, mut rest)) = message.split_once(CHUNKED) else { return message.to_owned() };
    let mut content = String::new();
    while let Some((piece, behind)) = chunk(rest) {
        content.push_str(piece);
        rest = behind;
    }
    let size = content.len();
    let joined = if content.is_empty() { String::new() } else { format!("{size:x}\r\n{content}\r\n") };
    format!("{head}{CHUNKED}{joined}{rest}")
}

/// The first chunk, if it is whole and not the last, and what follows it.
fn chunk(text: &str) -> Option<(&str, &str)> {
    let (size, behind) = text.split_once("\r\n")?;
    let size = usize::from_str_radix(size, 16).ok().filter(|&size| size > 0)?;
    let (piece, behind) = behind.split_at_checked(size)?;
    Some((piece, behind.strip_prefix("\r\n")?))
}

/// The head goes on, its content does not.
const BREAKS_OFF: &str = "post / http/1.1";

#[tokio::test]
async fn a_request_of_two_minds_about_its_end_is_refused_or_arrives_as_one() {
    // Name, octets, what the application hears; nothing where it must not hear anything.
    let rows: &[(&str, &str, &str)] = &[
        (
            "length, then coding: the coding counts",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "post / http/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "coding, then length",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 90\r\n\r\n0\r\n\r\n",
            "post / http/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ""),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabcd", ""),
        ("a signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", ""),
        ("a negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", ""),
        (
            "a length too large to count",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "",
        ),
        ("an unknown coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ""),
        (
            "a coding behind chunked",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            "",
        ),
        (
            "a coding before chunked",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "",
        ),
        (
            "two codings",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
        ),
        ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ("a folded line", "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n 2\r\n\r\n", ""),
        ("a folded coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", ""),
        ("a space before the colon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", ""),
        ("an invalid name", "GET / HTTP/1.1\r\nHost: x\r\nX(A): 1\r\n\r\n", ""),
        ("an empty name", "GET / HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n", ""),
        ("a bare carriage return", "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\rX-B: 2\r\n\r\n", ""),
        ("a nought", "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\0\r\n\r\n", ""),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", ""),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", ""),
        ("a Host with a user", "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", ""),
        ("a Host that is none", "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", ""),
        ("an unknown version", "GET / HTTP/1.9\r\nHost: x\r\n\r\n", ""),
        ("two spaces in the first line", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        (
            "an end of a chunk that is none",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n",
            BREAKS_OFF,
        ),
        (
            "a chunk too large to count",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            BREAKS_OFF,
        ),
        (
            "an absolute target takes the place of Host",
            "GET http://right.example/a?b HTTP/1.1\r\nHost: wrong.example\r\n\r\n",
            "get /a?b http/1.1\r\nhost: right.example\r\n\r\n",
        ),
    ];
    for (what, octets, expected) in rows {
        let (came, answer) = heard(octets, expected).await;
        if expected.is_empty() {
            assert!(came.is_empty() || came == BEHIND_HEARD, "{what}: {came:?}");
            let refused = ["400", "501", "505"].iter().any(|status| answer.starts_with(&format!("http/1.1 {status} ")));
            assert!(refused || answer.starts_with("http/1.0 400"), "{what}: {answer:?}");
        } else if *expected == BREAKS_OFF {
            // It may do so before anything has gone on.
            assert!(came.is_empty() || came.starts_with(BREAKS_OFF), "{what}: {came:?}");
            assert!(came.matches("http/1.1").count() <= 1, "{what}: {came:?}");
        } else {
            // RFC 9112 §6.1: where length and coding stood together, nothing further is taken.
            let behind = came.strip_prefix(expected).unwrap_or_else(|| panic!("{what}: {came:?}"));
            assert!(behind == BEHIND_HEARD || (behind.is_empty() && what.contains("length")), "{what}: {came:?}");
        }
    }
}

#[tokio::test]
async fn what_follows_a_request_is_the_next_request_and_never_part_of_it() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let two = "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /GET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
    say(&mut client, two).await;
    let mut server = pair.application.accept().await;
    assert!(head(&mut server).await.starts_with("post /1 "));
    crate::http::hear(&mut server, "GET /").await;
    say(&mut server, "HTTP/1.1 204 No\r\n\r\n").await;
    assert!(head(&mut server).await.starts_with("get /2 "));
    assert!(head(&mut client).await.starts_with("http/1.1 204 "));
}

#[tokio::test]
async fn an_answer_of_two_minds_about_its_end_is_one_or_none() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nok", "502"),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "502"),
        ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", "502"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "502"),
        ("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "502"),
        ("SSH-2.0-OpenSSH\r\n", "502"),
    ] {
        let mut pair = Pair::start().await;
        let mut client = pair.outbound.connect().await;
        say(&mut client, "POST / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = pair.application.accept().await;
        head(&mut server).await;
        say(&mut server, answer).await;
        let came = head(&mut client).await;
        assert!(came.starts_with(&format!("http/1.1 {expected} ")), "{answer}: {came}");
        if expected == "200" {
            assert!(!came.contains("content-length"), "{came}");
            crate::http::hear(&mut client, "2\r\nok\r\n0\r\n\r\n").await;
        }
    }
}

#[tokio::test]
async fn octets_that_are_no_http_reach_no_application() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
    bed.inbound.directory = Table::of([service(&["::1/128"], &[HEADER], None)]);
    let inbound = bed.start().await;
    for protocol in ["http/1.1", "h2"] {
        let garbage =
            ["SSH-2.0-x\r\n\r\n", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "GET / HTTP/1.1\r\n\r\n"];
        for octets in garbage {
            let connected = authority.client().connect(inbound.connect().await, &name(SERVICE), protocol).await;
            let mut stream = connected.unwrap();
            let _ = stream.write_all(octets.as_bytes()).await;
            let _ = stream.flush().await;
            let _ = stream.shutdown().await;
            let _ = within(stream.read_to_end(&mut Vec::new())).await;
        }
    }
    assert!(application.is_untouched());
}
