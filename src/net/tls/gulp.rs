//! The connection beneath TLS, read in large pieces.
//!
//! The TLS library asks for 4 KiB at a time, a quarter of a record. Here the kernel is asked for as much as there is, into
//! a buffer that the thread's connections share; what the library did not ask for yet waits with the connection, and its
//! memory goes when it has been taken. An idle connection holds nothing.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read takes at most, in bytes: four full records.
const GULP_BYTES: usize = 4 * (16_384 + 22);

/// A TCP connection that is read in large pieces.
pub struct Gulp {
    tcp: TcpStream,
    /// What was read and not asked for yet, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
}

impl Gulp {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, waiting: Vec::new(), taken: 0 }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let waiting = &self.waiting[self.taken..];
        let taken = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..taken]);
        self.taken += taken;
        if self.taken == self.waiting.len() {
            self.waiting = Vec::new();
            self.taken = 0;
        }
    }
}

impl fmt::Debug for Gulp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gulp").field("waiting_octets", &(self.waiting.len() - self.taken)).finish_non_exhaustive()
    }
}

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

impl AsyncRead for Gulp {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gulp = self.get_mut();
        if !gulp.waiting.is_empty() {
            gulp.take(buffer);
            return Poll::Ready(Ok(()));
        }
        let mut shared = SPARE.take().unwrap_or_else(|| vec![0; GULP_BYTES].into());
        let mut large = ReadBuf::new(&mut shared);
        let read = Pin::new(&mut gulp.tcp).poll_read(context, &mut large);
        if read.is_ready() {
            let (now, later) = large.filled().split_at(large.filled().len().min(buffer.remaining()));
            buffer.put_slice(now);
            gulp.waiting.extend_from_slice(later);
        }
        SPARE.set(Some(shared));
        ready!(read)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gulp {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_was_read_too_much_is_given_in_order_and_then_let_go() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut gulp = Gulp::new(listener.accept().await.unwrap().0);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move { writer.write_all(&sent).await });
        let (mut heard, mut piece) = (Vec::new(), [0; 4_096]);
        while let came @ 1.. = gulp.read(&mut piece).await.unwrap() {
            heard.extend_from_slice(&piece[..came]);
        }
        assert!(heard == expected);
        assert_eq!(gulp.waiting.capacity(), 0);
        writing.await.unwrap().unwrap();
    }
}
