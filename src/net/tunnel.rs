//! One stream after another over one connection: the frames of [`crate::wire::tunnel`], read and written.
//!
//! [`Tunnel`] looks like a connection that carries one stream: its end of data is the stream's, ending it for writing
//! ends the stream alone. When a stream has finished both ways, the next may begin.
//!
//! What goes before content (the stream's PROXY header, a frame's header, a renewed token) waits until there is
//! something to go with it, so that it costs no write of its own; when nothing comes, reading sends it. The end of a
//! stream whose other end has come may wait for the next stream in the same way ([`Party::end_may_wait`]).
//!
//! A stream that breaks off ends the tunnel with it: what is under way could not be told from the next stream's.

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::copy::{Chunk, OverTcp};
use crate::wire::tunnel::{self, Decoder, Event, FrameError};

/// How much of a stream's first octets is kept, to be said again elsewhere should the server never have taken the stream.
const MOST_REPLAYED: usize = 64 * 1024;

/// Whose end of the tunnel this is, as far as tokens go.
pub trait Party: Unpin {
    /// A token to renew the caller's with, once.
    fn renewed(&mut self) -> Option<Vec<u8>>;

    /// The caller has renewed its token.
    ///
    /// # Errors
    /// The reason why the new one is no good; the tunnel ends.
    fn renew(&mut self, token: &[u8]) -> Result<(), &'static str>;

    /// Whether our end of a stream may wait for the next stream once the peer's has come. Whoever says so has
    /// [`Tunnel::say_end`] called when none comes soon. Usually not: the peer may have said its last to hear ours.
    fn end_may_wait(&self) -> bool {
        false
    }
}

/// What ends a tunnel besides a connection that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The peer does not keep to the framing.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer renewed its token with one that is no good.
    #[error("the caller renewed its token with one that is no good: {0}")]
    Token(&'static str),
}

impl Fault {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.reason(),
            Self::Token(reason) => reason,
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// The reason of a tunnel's own fault behind an error of its connection.
pub(super) fn fault(error: &io::Error) -> Option<&'static str> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).map(Fault::reason)
}

/// A connection that carries one stream at a time.
pub struct Tunnel<S, P> {
    beneath: S,
    party: P,
    decoder: Decoder,
    /// What has come and is not understood yet: the next stream's beginning.
    ahead: Vec<u8>,
    /// What goes before the next content, from `said` on.
    unsaid: Vec<u8>,
    said: usize,
    /// How much content of the DATA frame that was begun is still to be written.
    promised: usize,
    /// Our direction has ended, or is about to.
    ended: bool,
    /// Our direction ends with the content that is written next.
    last: bool,
    /// What is unsaid is the stream's end, which waits for the next stream.
    end_waits: bool,
    first: First,
}

/// What a stream began with, as long as the server may never have taken it.
enum First {
    /// The octets of content written so far; nothing has been heard yet.
    Unheard(Vec<u8>),
    /// The server closed the tunnel in good order before it had said anything in this stream.
    Untaken(Vec<u8>),
    /// The server has taken the stream, or this is too long to be said again.
    Settled,
}

impl<S: OverTcp, P: Party> Tunnel<S, P> {
    /// A tunnel on which nothing has been said or heard. Unless it is closed, its connection ends with a reset.
    pub fn new(beneath: S, party: P) -> Self {
        super::copy::reset_on_drop(beneath.tcp());
        Self {
            beneath,
            party,
            decoder: Decoder::default(),
            ahead: Vec::new(),
            unsaid: Vec::new(),
            said: 0,
            promised: 0,
            ended: false,
            last: false,
            end_waits: false,
            first: First::Settled,
        }
    }

    /// Begins a stream with this header. `may_be_untaken` where the server may have closed the tunnel already; then the
    /// stream's first octets are kept until the server says something.
    pub fn open(&mut self, header: Vec<u8>, may_be_untaken: bool) {
        self.begin();
        if self.unsaid.is_empty() {
            self.unsaid = header;
        } else {
            self.unsaid.extend_from_slice(&header);
        }
        self.first = if may_be_untaken { First::Unheard(Vec::new()) } else { First::Settled };
    }

    /// Begins a stream whose header, the first `octets` of [`Tunnel::ahead`], has been read.
    pub fn accept(&mut self, octets: usize) {
        self.begin();
        self.ahead.drain(..octets);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
    }

    fn begin(&mut self) {
        self.decoder = Decoder::default();
        // The last stream's end, if it has waited.
        self.unsaid.drain(..self.said);
        (self.said, self.promised, self.ended, self.last, self.end_waits) = (0, 0, false, false, false);
        self.first = First::Settled;
    }

    /// Who we are.
    pub fn party(&mut self) -> &mut P {
        &mut self.party
    }

    /// What has come of the next stream.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for more of the next stream; 0 when the peer has ended the tunnel in good order. Cancel safe.
    ///
    /// # Errors
    /// Whatever became of the connection.
    pub async fn more_ahead(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| {
            let mut chunk = Chunk::borrow();
            let mut buffer = ReadBuf::new(&mut chunk.0);
            ready!(Pin::new(&mut self.beneath).poll_read(context, &mut buffer))?;
            self.ahead.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }

    /// Whether the stream has finished both ways, so that the next may begin.
    pub fn is_free(&self) -> bool {
        self.ended && (self.unsaid.is_empty() || self.end_waits) && self.decoder.has_ended()
    }

    /// Whether the end of the last stream waits for the next one.
    pub fn end_waits(&self) -> bool {
        self.end_waits
    }

    /// Says the end that has waited, as far as that can be done at once. A connection that fails shows when it is used.
    pub fn say_end(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if self.end_waits && self.poll_unsaid(&mut context).is_ready() {
            self.end_waits = false;
            let _ = Pin::new(&mut self.beneath).poll_flush(&mut context);
        }
    }

    /// Whether a free tunnel is still good as far as we can tell without asking: nothing has come, no end either.
    pub fn is_quiet(&mut self) -> bool {
        let mut buffer = [0; 1];
        let mut buffer = ReadBuf::new(&mut buffer);
        let mut context = Context::from_waker(Waker::noop());
        self.ahead.is_empty() && Pin::new(&mut self.beneath).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// What the stream's content began with, when the server certainly never took the stream: it can be said again
    /// elsewhere.
    pub fn untaken(&mut self) -> Option<Vec<u8>> {
        if matches!(self.first, First::Unheard(_)) {
            // Writing may have failed before the server's orderly end was read.
            let mut buffer = [0; 1];
            let mut context = Context::from_waker(Waker::noop());
            let _ = self.poll_beneath(&mut context, &mut ReadBuf::new(&mut buffer));
        }
        match std::mem::replace(&mut self.first, First::Settled) {
            First::Untaken(content) => Some(content),
            First::Unheard(_) | First::Settled => None,
        }
    }

    /// Says that no further stream follows, as far as that can be done at once, and lets go.
    pub fn close(mut self) {
        self.say_end();
        super::copy::finish_on_drop(self.beneath.tcp());
        let _ = Pin::new(&mut self.beneath).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }

    /// Says that no further stream is taken, then waits until the peer has closed as well: were the socket closed on
    /// octets that nobody read, the kernel would answer with a reset, which may overtake what we said.
    ///
    /// # Errors
    /// Whatever became of the connection.
    pub async fn close_and_wait(&mut self) -> io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        super::copy::finish_on_drop(self.beneath.tcp());
        self.beneath.shutdown().await?;
        let mut ignored = [0; 1024];
        while self.beneath.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    /// Puts a renewed token before what comes next, where a frame may stand.
    fn renew(&mut self) {
        if self.promised == 0
            && !self.ended
            && let Some(token) = self.party.renewed()
        {
            // A token that was sent in a header fits into a frame.
            let _ = tunnel::token(&token, &mut self.unsaid);
        }
    }

    /// Writes what goes before content, by itself.
    fn poll_unsaid(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.said < self.unsaid.len() {
            let written = ready!(Pin::new(&mut self.beneath).poll_write(context, &self.unsaid[self.said..]))?;
            self.wrote_unsaid(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote_unsaid(&mut self, octets: usize) -> io::Result<()> {
        if octets == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.said += octets;
        if self.said >= self.unsaid.len() {
            self.unsaid.clear();
            self.said = 0;
        }
        Ok(())
    }

    /// Writes a begun frame: what goes before it, as much of its content as is taken, and the end if it is the last.
    fn poll_content(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let content = &octets[..octets.len().min(self.promised)];
        let is_last = self.last && content.len() == octets.len() && content.len() == self.promised;
        let end = tunnel::end();
        let end = if is_last { &end[..] } else { &[] };
        loop {
            let before = self.unsaid.len() - self.said;
            let parts = [IoSlice::new(&self.unsaid[self.said..]), IoSlice::new(content), IoSlice::new(end)];
            let parts = &parts[usize::from(before == 0)..if is_last { 3 } else { 2 }];
            let written = ready!(Pin::new(&mut self.beneath).poll_write_vectored(context, parts))?;
            if before > 0 || written == 0 {
                self.wrote_unsaid(written.min(before))?;
            }
            if let Some(written) = written.checked_sub(before).filter(|&written| written > 0) {
                let taken = written.min(content.len());
                self.promised -= taken;
                self.first.wrote(&content[..taken]);
                if is_last && self.promised == 0 {
                    self.ended = true;
                    self.unsaid.extend_from_slice(&end[written - taken..]);
                }
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// Reads from what has come already.
    fn read_ahead(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let ahead = std::mem::take(&mut self.ahead);
        let window = &ahead[..ahead.len().min(buffer.remaining())];
        let mut at = 0;
        while let Some(event) = self.decoder.next(window, &mut at).map_err(Fault::Frame)? {
            match event {
                Event::Data(range) => buffer.put_slice(&window[range]),
                Event::Token(token) => self.party.renew(&token.0).map_err(Fault::Token)?,
                Event::End => break,
            }
        }
        self.ahead.extend_from_slice(&ahead[at..]);
        Ok(())
    }

    /// Reads once from the connection, and moves the content together in place.
    fn poll_beneath(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        ready!(Pin::new(&mut self.beneath).poll_read(context, buffer))?;
        if buffer.filled().len() == start {
            self.first.closed();
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.first = First::Settled;
        // Content only ever moves towards the front, so what is not understood yet stays as it is.
        let (mut at, mut content) = (start, start);
        while let Some(event) = self.decoder.next(buffer.filled(), &mut at).map_err(Fault::Frame)? {
            match event {
                Event::Data(range) => {
                    let octets = range.len();
                    if range.start != content {
                        buffer.filled_mut().copy_within(range, content);
                    }
                    content += octets;
                }
                Event::Token(token) => self.party.renew(&token.0).map_err(Fault::Token)?,
                Event::End => break,
            }
        }
        self.ahead.extend_from_slice(&buffer.filled()[at..]);
        buffer.set_filled(content);
        Poll::Ready(Ok(()))
    }
}

impl First {
    fn wrote(&mut self, content: &[u8]) {
        if let Self::Unheard(kept) = self {
            if kept.len() + content.len() > MOST_REPLAYED {
                *self = Self::Settled;
            } else {
                kept.extend_from_slice(content);
            }
        }
    }

    fn closed(&mut self) {
        if let Self::Unheard(kept) = self {
            *self = Self::Untaken(std::mem::take(kept));
        }
    }
}

impl<S: OverTcp, P: Party> AsyncRead for Tunnel<S, P> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.get_mut();
        tunnel.renew();
        if tunnel.promised == 0 && !tunnel.unsaid.is_empty() && tunnel.poll_unsaid(context)?.is_ready() {
            let _ = Pin::new(&mut tunnel.beneath).poll_flush(context)?;
        }
        let start = buffer.filled().len();
        while buffer.filled().len() == start && !tunnel.decoder.has_ended() {
            if tunnel.ahead.is_empty() {
                ready!(tunnel.poll_beneath(context, buffer))?;
            } else {
                tunnel.read_ahead(buffer)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: OverTcp, P: Party> AsyncWrite for Tunnel<S, P> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let tunnel = self.get_mut();
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if tunnel.promised == 0 {
            tunnel.renew();
            tunnel.promised = octets.len().min(tunnel::LONGEST_DATA);
            tunnel.unsaid.extend_from_slice(&tunnel::data(tunnel.promised));
        }
        tunnel.poll_content(context, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.get_mut();
        ready!(tunnel.poll_unsaid(context))?;
        Pin::new(&mut tunnel.beneath).poll_flush(context)
    }

    /// Ends the stream in our direction; the tunnel goes on.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.get_mut();
        if !tunnel.ended {
            tunnel.ended = true;
            tunnel.end_waits = tunnel.unsaid.is_empty() && tunnel.decoder.has_ended() && tunnel.party.end_may_wait();
            tunnel.unsaid.extend_from_slice(&tunnel::end());
        }
        if tunnel.end_waits {
            return Poll::Ready(Ok(()));
        }
        ready!(tunnel.poll_unsaid(context))?;
        Pin::new(&mut tunnel.beneath).poll_flush(context)
    }
}

impl<S: OverTcp, P: Party> OverTcp for Tunnel<S, P> {
    fn tcp(&self) -> &TcpStream {
        self.beneath.tcp()
    }

    fn ends_with_next(&mut self) {
        self.last = true;
    }

    /// The tunnel outlives its streams, and is reset when it is dropped unless it is closed: see [`Tunnel::close`].
    fn settle(&self, _in_order: bool) {}
}
