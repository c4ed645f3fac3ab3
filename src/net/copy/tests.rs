//! Both directions over real sockets: ends, resets, back-pressure.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A pair of connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let (near, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

/// A client and a server with a relay between them.
async fn relayed(early: &[u8]) -> (TcpStream, TcpStream, JoinHandle<Transferred>) {
    let (client, client_side) = pair().await;
    let (server_side, server) = pair().await;
    let carrying = both_ways(client_side, server_side, early.to_vec(), std::future::pending());
    (client, server, tokio::spawn(carrying))
}

#[tokio::test]
async fn an_end_of_one_direction_is_passed_on_while_the_other_goes_on() {
    let (mut client, mut server, relay) = relayed(b"").await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");

    server.write_all(b"a long answer").await.unwrap();
    drop(server);
    heard.clear();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"a long answer");
    let transferred = relay.await.unwrap();
    assert!(transferred.end.is_ok());
    assert_eq!((transferred.sent_bytes, transferred.received_bytes), (8, 13));
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other_as_a_reset() {
    let (client, mut server, relay) = relayed(b"").await;
    reset_on_drop(&client);
    drop(client);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relay.await.unwrap().end.unwrap_err().reason(), "client-broke-off");

    let (mut client, server, relay) = relayed(b"").await;
    reset_on_drop(&server);
    drop(server);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relay.await.unwrap().end.unwrap_err().reason(), "server-broke-off");
}

#[tokio::test]
async fn bytes_that_were_read_before_come_first() {
    let (mut client, mut server, _relay) = relayed(b"early ").await;
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"early late");
}

#[tokio::test]
async fn a_reader_that_pauses_loses_nothing_and_holds_the_writer_back() {
    let (mut client, mut server, relay) = relayed(b"").await;
    let sent: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    // Far less than all of it fits into the sockets, so the relay has to wait with bytes in hand.
    let mut first = vec![0; 10];
    server.read_exact(&mut first).await.unwrap();
    assert!(!writing.is_finished());
    let mut heard = first;
    server.read_to_end(&mut heard).await.unwrap();
    assert!(heard == expected);
    drop((server, writing.await.unwrap()));
    assert_eq!(relay.await.unwrap().sent_bytes, 8 << 20);
}

#[tokio::test]
async fn a_stop_resets_both_sides_and_counts_what_was_carried() {
    let (mut client, client_side) = pair().await;
    let (server_side, mut server) = pair().await;
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let stop = async move { told.await.map_or(Stop::Told, |()| Stop::Told) };
    let relay = tokio::spawn(both_ways(client_side, server_side, Vec::new(), stop));
    client.write_all(b"abc").await.unwrap();
    server.read_exact(&mut [0; 3]).await.unwrap();
    tell.send(()).unwrap();
    let transferred = tokio::time::timeout(Duration::from_secs(5), relay).await.unwrap().unwrap();
    assert!(matches!(transferred.end, Err(BrokenOff::Stopped)));
    assert_eq!(transferred.sent_bytes, 3);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_came_before_a_reset_arrives_before_the_reset() {
    let (mut client, mut server, relay) = relayed(b"").await;
    server.write_all(b"the last words").await.unwrap();
    reset_on_drop(&server);
    drop(server);
    let mut heard = [0; 14];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"the last words");
    assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relay.await.unwrap().end.unwrap_err().reason(), "server-broke-off");
}

/// A writer that takes so many pieces, and notes their lengths.
struct Taking {
    tcp: TcpStream,
    more: usize,
    taken: Vec<usize>,
}

impl AsyncRead for Taking {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Taking {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.more == 0 {
            return Poll::Pending;
        }
        self.more -= 1;
        self.taken.push(octets.len());
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OverTcp for Taking {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

#[tokio::test]
async fn pieces_are_large_as_long_as_each_is_filled_and_taken_at_once() {
    let mut writer = Taking { tcp: pair().await.0, more: 3, taken: Vec::new() };
    let (mut direction, mut endless) = (Direction::default(), tokio::io::repeat(7));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(direction.poll(&mut context, &mut endless, &mut writer).is_pending());
    assert_eq!(writer.taken, [CHUNK_BYTES, STREAM_BYTES, STREAM_BYTES]);
    assert_eq!(direction.kept.len(), STREAM_BYTES);

    writer.more = 2;
    assert!(direction.poll(&mut context, &mut endless, &mut writer).is_pending());
    assert_eq!(writer.taken[3..], [STREAM_BYTES, CHUNK_BYTES], "who has to be waited for is given less");
}
