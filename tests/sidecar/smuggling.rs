//! Messages that two parsers might take for different ones: what of them reaches the application is one message, or none.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::*;
use crate::http::{HEADER, Pair, head, say};

/// What the application hears of these octets until nothing more comes, and what the client hears. The application answers
/// whatever comes with one answer that closes.
async fn heard(octets: &str) -> (String, String) {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, octets).await;
    let mut came = Vec::new();
    let answering = async {
        let mut server = pair.application.accept().await;
        let mut piece = vec![0; 65_536];
        // Quiet for as long as anything could take to get through on one machine.
        while let Ok(Ok(octets @ 1..)) = tokio::time::timeout(Duration::from_millis(300), server.read(&mut piece)).await
        {
            came.extend_from_slice(&piece[..octets]);
        }
        let _ = server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        std::future::pending::<()>().await;
    };
    let mut answer = vec![0; 65_536];
    let octets = tokio::select! {
        octets = within(client.read(&mut answer)) => octets.unwrap_or(0),
        () = answering => 0,
    };
    answer.truncate(octets);
    (String::from_utf8_lossy(&came).to_ascii_lowercase(), String::from_utf8_lossy(&answer).to_ascii_lowercase())
}

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
            "post / http/1.1",
        ),
        (
            "a chunk too large to count",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "post / http/1.1",
        ),
        (
            "an absolute target takes the place of Host",
            "GET http://right.example/a?b HTTP/1.1\r\nHost: wrong.example\r\n\r\n",
            "get /a?b http/1.1\r\nhost: right.example\r\n\r\n",
        ),
    ];
    for (what, octets, expected) in rows {
        let (came, answer) = heard(octets).await;
        if expected.is_empty() {
            assert_eq!(came, "", "{what}");
            let refused = ["400", "501", "505"].iter().any(|status| answer.starts_with(&format!("http/1.1 {status} ")));
            assert!(refused || answer.starts_with("http/1.0 400"), "{what}: {answer:?}");
        } else {
            // What breaks off may do so before anything has gone on.
            let breaks_off = *expected == "post / http/1.1" && came.is_empty();
            assert!(came.starts_with(expected) || breaks_off, "{what}: {came:?}");
            assert!(came.matches("http/1.1").count() <= 1, "{what}: {came:?}");
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
