//! Streams one after another between two real sockets.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// Who has no tokens.
#[derive(Default)]
struct Nobody {
    ends_wait: bool,
}

impl Party for Nobody {
    fn renewed(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn renew(&mut self, _token: &[u8]) -> Result<(), &'static str> {
        Err("token-unexpected")
    }

    fn end_may_wait(&self) -> bool {
        self.ends_wait
    }
}

type Plain = Tunnel<TcpStream, Nobody>;

async fn pair() -> (Plain, Plain) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let (near, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (Tunnel::new(near.unwrap(), Nobody::default()), Tunnel::new(accepted.unwrap().0, Nobody::default()))
}

/// Opens a stream with a header of four octets.
async fn stream(client: &mut Plain, server: &mut Plain, may_be_untaken: bool) {
    client.open(b"HEAD".to_vec(), may_be_untaken);
    client.flush().await.unwrap();
    while server.ahead().len() < 4 {
        assert_ne!(server.more_ahead().await.unwrap(), 0);
    }
    assert_eq!(server.ahead(), b"HEAD");
    server.accept(4);
}

async fn heard(from: &mut Plain) -> Vec<u8> {
    let mut octets = Vec::new();
    from.read_to_end(&mut octets).await.unwrap();
    octets
}

#[tokio::test]
async fn streams_follow_each_other_and_keep_apart() {
    let (mut client, mut server) = pair().await;
    for text in [&b"first"[..], b"second", b""] {
        stream(&mut client, &mut server, false).await;
        client.write_all(text).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(heard(&mut server).await, text);
        assert!(!server.is_free() && !client.is_free());
        server.write_all(b"heard").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(heard(&mut client).await, b"heard");
        assert!(server.is_free() && client.is_free() && client.is_quiet());
    }
}

/// A stream whose server ends first, and whose client has ended after that.
async fn ended_by_the_server_first(client: &mut Plain, server: &mut Plain) {
    stream(client, server, false).await;
    server.shutdown().await.unwrap();
    assert_eq!(heard(client).await, b"");
    client.shutdown().await.unwrap();
    assert!(client.is_free());
}

#[tokio::test]
async fn an_end_that_nobody_waits_for_goes_with_the_next_stream_or_when_told() {
    let (mut client, mut server) = pair().await;
    client.party().ends_wait = true;

    ended_by_the_server_first(&mut client, &mut server).await;
    assert!(client.end_waits() && server.is_quiet());
    client.open(b"HEAD".to_vec(), false);
    client.write_all(b"second").await.unwrap();
    assert_eq!(heard(&mut server).await, b"");
    assert!(server.is_free() && server.ahead().starts_with(b"HEAD"));
    server.accept(4);
    let mut said = [0; 6];
    server.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"second");
    server.shutdown().await.unwrap();
    assert_eq!(heard(&mut client).await, b"");

    client.shutdown().await.unwrap();
    client.say_end();
    assert!(client.is_free() && !client.end_waits());
    assert_eq!(heard(&mut server).await, b"");
    assert!(server.is_free());
}

#[tokio::test]
async fn an_end_that_the_server_may_wait_for_does_not_wait_and_one_that_waits_goes_before_the_tunnel_closes() {
    let (mut client, mut server) = pair().await;
    client.party().ends_wait = true;
    stream(&mut client, &mut server, false).await;
    client.shutdown().await.unwrap();
    assert!(!client.end_waits());
    assert_eq!(heard(&mut server).await, b"");
    server.shutdown().await.unwrap();
    assert_eq!(heard(&mut client).await, b"");

    ended_by_the_server_first(&mut client, &mut server).await;
    assert!(client.end_waits());
    client.close();
    assert_eq!(heard(&mut server).await, b"");
    assert_eq!(server.more_ahead().await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_longer_than_any_buffer_arrives_whole_whatever_the_reader_takes_at_a_time() {
    let (mut client, mut server) = pair().await;
    stream(&mut client, &mut server, false).await;
    let sent: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let (mut octets, mut sizes) = (Vec::new(), [1, 3, 7, 5_000, 70_000].into_iter().cycle());
    loop {
        let mut piece = vec![0; sizes.next().unwrap()];
        match server.read(&mut piece).await.unwrap() {
            0 => break,
            came => octets.extend_from_slice(&piece[..came]),
        }
    }
    assert!(octets == expected);
    writing.await.unwrap();
}

#[tokio::test]
async fn the_next_streams_header_may_come_with_the_end_of_the_last() {
    let (mut client, mut server) = pair().await;
    stream(&mut client, &mut server, false).await;
    server.shutdown().await.unwrap();
    assert_eq!(heard(&mut client).await, b"");
    client.write_all(b"x").await.unwrap();
    client.shutdown().await.unwrap();
    client.open(b"HEAD".to_vec(), false);
    client.flush().await.unwrap();
    assert_eq!(heard(&mut server).await, b"x");
    assert!(server.is_free());
    while server.ahead().len() < 4 {
        server.more_ahead().await.unwrap();
    }
    assert_eq!(server.ahead(), b"HEAD");
}

#[tokio::test]
async fn a_stream_is_untaken_when_the_server_closes_in_good_order_and_says_nothing_in_it() {
    for (said, untaken) in [(&b""[..], Some(b"content".to_vec())), (b"x", None)] {
        let (mut client, mut server) = pair().await;
        stream(&mut client, &mut server, true).await;
        client.write_all(b"content").await.unwrap();
        server.write_all(said).await.unwrap();
        server.beneath.shutdown().await.unwrap();
        let ended = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(client.untaken(), untaken);
    }
}

#[tokio::test]
async fn more_than_is_kept_is_never_said_again() {
    for (octets, kept) in [(MOST_REPLAYED, true), (MOST_REPLAYED + 1, false)] {
        let (mut client, mut server) = pair().await;
        stream(&mut client, &mut server, true).await;
        client.write_all(&vec![b'x'; octets]).await.unwrap();
        server.beneath.shutdown().await.unwrap();
        assert!(client.read_to_end(&mut Vec::new()).await.is_err());
        assert_eq!(client.untaken().is_some(), kept, "{octets}");
    }
}

#[tokio::test]
async fn an_end_without_word_inside_a_stream_is_a_failure() {
    let (mut client, mut server) = pair().await;
    stream(&mut client, &mut server, false).await;
    super::super::copy::finish_on_drop(client.tcp());
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_tunnel_that_is_let_go_is_reset_and_one_that_is_closed_is_not() {
    for (closed, kind) in [(false, io::ErrorKind::ConnectionReset), (true, io::ErrorKind::UnexpectedEof)] {
        let (client, mut server) = pair().await;
        if closed {
            client.close();
        } else {
            drop(client);
        }
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn an_end_that_is_known_goes_with_the_last_content() {
    let (mut client, mut server) = pair().await;
    stream(&mut client, &mut server, false).await;
    client.ends_with_next();
    client.write_all(b"last").await.unwrap();
    let mut came = [0; 64];
    let octets = server.beneath.read(&mut came).await.unwrap();
    assert_eq!(came[..octets], [&tunnel::data(4)[..], b"last", &tunnel::end()].concat());
    client.shutdown().await.unwrap();
    client.beneath.shutdown().await.unwrap();
    assert_eq!(server.beneath.read(&mut came).await.unwrap(), 0, "the end is said once");
}

#[tokio::test]
async fn a_fault_names_its_reason_through_the_error_of_the_connection() {
    let (mut client, mut server) = pair().await;
    stream(&mut client, &mut server, false).await;
    client.beneath.write_all(b"\x09\0\0\0").await.unwrap();
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(fault(&error), Some("frame-kind-unknown"));
    client.beneath.write_all(b"\x02\0\0\x01t").await.unwrap();
    server.accept(0);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(fault(&error), Some("token-unexpected"));
}

#[tokio::test]
async fn a_tunnel_that_has_been_closed_or_spoken_in_is_not_quiet() {
    let (mut client, server) = pair().await;
    assert!(client.is_quiet());
    drop(server);
    client.beneath.readable().await.unwrap();
    assert!(!client.is_quiet());
}
