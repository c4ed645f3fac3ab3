//! Bytes both ways between two streams, until both directions have ended.
//!
//! Owns what every path needs in the same way: an end of one direction (FIN) is passed on while the other direction
//! goes on, a reset is passed on as a reset, and what was carried is counted even when it breaks off.
//!
//! ```text
//! each direction:  Carrying ──end of stream──▶ Closing ──passed on──▶ Closed
//! either fails, or `stop` comes  ──▶ both sockets end with a reset
//! ```
//!
//! An idle pair holds no buffer: bytes are read into one that the thread's connections share, and only what the other
//! side would not take at once is kept with the direction. Nothing is read while a writer still holds what it was given
//! before, so a peer that takes nothing costs one piece of memory; how large that may be, [`read_little`] says.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel;
use crate::wire::tunnel as tunnel_frame;

/// What one read takes at most, in bytes: with the header of a tunnel's frame it fills four TLS records.
const CHUNK_BYTES: usize = 4 * 16_384 - tunnel_frame::HEADER_OCTETS;

/// The same while each is filled and taken at once: fewer and larger pieces have the kernel wake fewer readers.
const STREAM_BYTES: usize = 16 * 16_384 - tunnel_frame::HEADER_OCTETS;

/// What one read takes at most while memory is short, in bytes.
const LITTLE_BYTES: usize = 4_096;

/// Whether memory is short. It is the process's, as memory is.
static SHORT: AtomicBool = AtomicBool::new(false);

/// Has every transfer of this process read little at a time while memory is short, and much otherwise.
pub fn read_little(short: bool) {
    SHORT.store(short, Ordering::Relaxed);
}

/// A stream over a TCP connection.
pub trait OverTcp: AsyncRead + AsyncWrite + Unpin {
    /// The connection beneath.
    fn tcp(&self) -> &TcpStream;

    /// What is written next is the last: its end may go with it.
    fn ends_with_next(&mut self) {}

    /// A transfer has ended, in good order or not; settles what dropping the connection does.
    fn settle(&self, in_order: bool) {
        let settle = if in_order { finish_on_drop } else { reset_on_drop };
        settle(self.tcp());
    }
}

impl<T: OverTcp> OverTcp for &mut T {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }

    fn ends_with_next(&mut self) {
        (**self).ends_with_next();
    }

    fn settle(&self, in_order: bool) {
        (**self).settle(in_order);
    }
}

impl<T: OverTcp> OverTcp for Box<T> {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }

    fn ends_with_next(&mut self) {
        (**self).ends_with_next();
    }

    fn settle(&self, in_order: bool) {
        (**self).settle(in_order);
    }
}

impl OverTcp for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// Makes the connection end with a reset instead of a FIN when it is dropped, so that the peer sees a failure as one.
pub fn reset_on_drop(tcp: &TcpStream) {
    // Fails only for a socket that has no connection left to reset.
    let _ = tcp.set_zero_linger();
}

/// Takes [`reset_on_drop`] back: what is still under way is delivered, then comes the FIN.
pub fn finish_on_drop(tcp: &TcpStream) {
    let _ = socket2::SockRef::from(tcp).set_linger(None);
}

/// What was carried, and how it ended.
#[derive(Debug)]
pub struct Transferred {
    /// Bytes that the server side took from the client's.
    pub sent_bytes: u64,
    /// Bytes that the client side took from the server's.
    pub received_bytes: u64,
    /// Both directions came to their end, or why not.
    pub end: Result<(), BrokenOff>,
}

/// Why a transfer ended before both directions had.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The client's side failed.
    #[error("the connection to the client broke off: {0}")]
    Client(io::Error),
    /// The server's side failed.
    #[error("the connection to the server broke off: {0}")]
    Server(io::Error),
    /// We were told to stop.
    #[error("the transfer was told to stop")]
    Stopped,
    /// The caller's token had expired, and no new one came.
    #[error("the caller's token has expired, and the time to renew it has passed")]
    TokenExpired,
}

/// Why a transfer is told to end before it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Everything is to end.
    Told,
    /// The token by which it was let in is no longer good.
    TokenExpired,
}

impl From<Stop> for BrokenOff {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Told => Self::Stopped,
            Stop::TokenExpired => Self::TokenExpired,
        }
    }
}

impl BrokenOff {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(error) => tunnel::fault(error).unwrap_or("client-broke-off"),
            Self::Server(error) => tunnel::fault(error).unwrap_or("server-broke-off"),
            Self::Stopped => "stopped",
            Self::TokenExpired => "token-expired",
        }
    }
}

/// Carries bytes between `client` and `server` until both directions have ended, one fails, or `stop` completes.
///
/// A socket that was to be reset when dropped is so only if the transfer breaks off, or is itself dropped.
///
/// `early` are bytes of the client that have been read already; they come first.
///
/// A stream that fails, or that ends without saying so (TLS without close_notify, RFC 8446 §6.1), resets the other one.
pub async fn both_ways<C: OverTcp, S: OverTcp>(
    mut client: C,
    mut server: S,
    early: Vec<u8>,
    stop: impl Future<Output = Stop>,
) -> Transferred {
    let mut sending = Direction { kept: early, ..Direction::default() };
    let mut receiving = Direction::default();
    let mut stop = pin!(stop);
    let end = poll_fn(|context| {
        if let Poll::Ready(stop) = stop.as_mut().poll(context) {
            return Poll::Ready(Err(stop.into()));
        }
        let sent = sending.poll(context, &mut client, &mut server).map_err(|failed| match failed {
            Failed::Reading(error) => BrokenOff::Client(error),
            Failed::Writing(error) => BrokenOff::Server(error),
        })?;
        let received = receiving.poll(context, &mut server, &mut client).map_err(|failed| match failed {
            Failed::Reading(error) => BrokenOff::Server(error),
            Failed::Writing(error) => BrokenOff::Client(error),
        })?;
        if sent.is_ready() && received.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    client.settle(end.is_ok());
    server.settle(end.is_ok());
    Transferred { sent_bytes: sending.carried, received_bytes: receiving.carried, end }
}

/// Which side of a direction failed.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum State {
    #[default]
    Carrying,
    Closing,
    Closed,
}

#[derive(Default)]
struct Direction {
    /// What was read and not taken yet, from `taken` on.
    kept: Vec<u8>,
    taken: usize,
    /// The writer may hold bytes of its own (a TLS record not yet on its way).
    unflushed: bool,
    /// The last piece filled the buffer, and was taken at once.
    streams: bool,
    carried: u64,
    state: State,
    /// What became of the reader behind what is kept.
    broken: Option<io::Error>,
}

impl Direction {
    /// Goes on until something would have to be waited for. Ready once the end has been passed on.
    fn poll<R, W>(&mut self, context: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: OverTcp,
    {
        loop {
            let Poll::Ready(gone) = self.poll_gone(context, writer) else {
                self.streams = false;
                return Poll::Pending;
            };
            gone.map_err(Failed::Writing)?;
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(Failed::Reading(error)));
            }
            match self.state {
                State::Carrying => ready!(self.poll_chunk(context, reader, writer)?),
                State::Closing => {
                    ready!(poll_shutdown(context, writer)).map_err(Failed::Writing)?;
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Has everything on its way that was read before.
    fn poll_gone<W: OverTcp>(&mut self, context: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(context, writer))?;
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is kept, and gives its memory back.
    fn poll_kept<W: OverTcp>(&mut self, context: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        while self.taken < self.kept.len() {
            let octets = &self.kept[self.taken..];
            let written = ready!(Pin::new(&mut *writer).poll_write(context, octets))?;
            self.taken += took(written)?;
            self.carried += written as u64;
            self.unflushed = true;
        }
        if self.taken > 0 {
            self.kept = Vec::new();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes as much of it as is taken at once; keeps the rest.
    fn poll_chunk<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Result<Poll<()>, Failed>
    where
        R: AsyncRead + Unpin,
        W: OverTcp,
    {
        let mut chunk = Chunk::borrow();
        let most = match (SHORT.load(Ordering::Relaxed), self.streams) {
            (true, _) => LITTLE_BYTES,
            (false, false) => CHUNK_BYTES,
            (false, true) => STREAM_BYTES,
        };
        let mut buffer = ReadBuf::new(&mut chunk.0[..most]);
        match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(error)) => return Err(Failed::Reading(error)),
            Poll::Ready(Ok(())) => {}
        }
        if buffer.filled().is_empty() {
            self.state = State::Closing;
            return Ok(Poll::Ready(()));
        }
        self.look_ahead(context, reader, &mut buffer);
        if self.state == State::Closing {
            writer.ends_with_next();
        }
        let octets = buffer.filled();
        // Of a tunnel's frames the headers are no content.
        self.streams = octets.len() + 4 * tunnel_frame::HEADER_OCTETS >= CHUNK_BYTES;
        let written = match Pin::new(writer).poll_write(context, octets) {
            Poll::Ready(Ok(written)) => took(written).map_err(Failed::Writing)?,
            Poll::Ready(Err(error)) => return Err(Failed::Writing(error)),
            Poll::Pending => 0,
        };
        self.unflushed |= written > 0;
        self.carried += written as u64;
        self.kept.extend_from_slice(&octets[written..]);
        Ok(Poll::Ready(()))
    }

    /// Asks whether the reader ends behind what was just read, so that both can be passed on at once. A buffer with room
    /// left has taken all that there was: asking then costs a system call only if the peer has said its last.
    fn look_ahead<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        buffer: &mut ReadBuf<'_>,
    ) {
        let before = buffer.filled().len();
        if buffer.remaining() == 0 {
            return;
        }
        match Pin::new(reader).poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => self.state = State::Closing,
            Poll::Ready(Err(error)) => self.broken = Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
    }
}

/// Passes the end of the stream on. A peer that has gone entirely needs to hear of no end: that is no failure.
fn poll_shutdown<W: AsyncWrite + Unpin>(context: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
    match ready!(Pin::new(writer).poll_shutdown(context)) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
        outcome => Poll::Ready(outcome),
    }
}

/// A writer that takes nothing of something will never take more.
fn took(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// The thread's buffer for as long as one read and write take; it is never held while waiting.
pub(super) struct Chunk(pub(super) Box<[u8]>);

impl Chunk {
    pub(super) fn borrow() -> Self {
        Self(SPARE.take().unwrap_or_else(|| vec![0; STREAM_BYTES].into()))
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        SPARE.set(Some(std::mem::take(&mut self.0)));
    }
}
