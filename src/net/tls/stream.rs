//! A TLS connection whose buffers are the thread's.
//!
//! The library keeps the protocol's state and no bytes (its unbuffered interface). Records are read into a buffer that
//! the thread's connections share and decrypted where they are; content is encrypted into another and written from
//! there, with what goes before it. A connection keeps only what cannot go on yet: the beginning of a record, content
//! that was not asked for, records that the socket did not take. One that is idle keeps nothing.
//!
//! ```text
//! socket ──read──▶ shared buffer ──decrypted in place──▶ reader     kept: half a record, content nobody asked for
//! writer ──▶ gathered ──encrypted──▶ shared buffer ──write──▶ socket     kept: what was not taken
//! ```
//!
//! A server's tickets wait for its first content, so that both share a packet.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffers::{GATHERED, INCOMING, Kept, OUTGOING, Shared};
use super::session::Session;
use super::{Side, count};
use crate::net::copy::OverTcp;

/// The most octets of a record on the wire (RFC 8446 §5.2), its header included.
const RECORD_BYTES: usize = 5 + 16_384 + 256;
/// The most content of a record (RFC 8446 §5.1).
const FULL_RECORD: usize = 16_384;
/// How many full records are read or encrypted at once at most: as many as a transfer reads.
const RECORDS: usize = 16;
/// How much is encrypted at once.
const PIECE_BYTES: usize = RECORDS * FULL_RECORD;
/// Those records, and the beginning of one that came before them.
const INCOMING_BYTES: usize = (RECORDS + 1) * RECORD_BYTES;
/// Those records and another for what is left over, each as long as it may be.
const OUTGOING_BYTES: usize = (RECORDS + 1) * RECORD_BYTES;
/// A flight of a handshake is a few kilobytes long.
const FLIGHT_BYTES: usize = 4_096;

/// A TLS connection over TCP, its handshake done.
pub struct TlsStream<S> {
    tcp: TcpStream,
    session: Box<S>,
    /// The beginning of a record whose end has not come.
    incoming: Vec<u8>,
    content: Kept,
    outgoing: Kept,
    /// What waits in `outgoing` must not wait for content.
    urgent: bool,
    /// The peer has said that it says nothing more.
    ended: bool,
    /// We have said so.
    closing: bool,
}

/// How far the protocol has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// More must come before anything can be said.
    Blocked,
    /// Content may be said.
    Open,
    /// The peer says nothing more.
    Ended,
}

/// Makes connections as the client.
#[derive(Clone)]
pub(super) struct Connector {
    config: Arc<ClientConfig>,
}

impl From<Arc<ClientConfig>> for Connector {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }
}

impl Connector {
    /// Shakes hands with a server that is to prove `name`, and offers these protocols.
    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
    ) -> io::Result<TlsStream<UnbufferedClientConnection>> {
        let session = UnbufferedClientConnection::new_with_alpn(Arc::clone(&self.config), name, alpn);
        let mut stream = TlsStream::new(tcp, session.map_err(failure)?, Vec::new());
        stream.shake_hands().await?;
        // The server waits for our last flight; what it has to say to that, tickets, waits for its first content.
        poll_fn(|context| stream.poll_send(context)).await?;
        count(Side::Client, stream.session.common().handshake_kind());
        Ok(stream)
    }
}

/// Shakes hands with a client whose ClientHello is in `octets`.
pub(super) async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    octets: Vec<u8>,
) -> io::Result<TlsStream<UnbufferedServerConnection>> {
    let session = UnbufferedServerConnection::new(config).map_err(failure)?;
    let mut stream = TlsStream::new(tcp, session, octets);
    stream.shake_hands().await?;
    count(Side::Server, stream.session.common().handshake_kind());
    Ok(stream)
}

fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What the library would not do although there was room and the time was right.
fn unexpected(what: &'static str) -> io::Error {
    failure(rustls::Error::General(what.to_owned()))
}

impl<S: Session> TlsStream<S> {
    fn new(tcp: TcpStream, session: S, incoming: Vec<u8>) -> Self {
        let (content, outgoing) = (Kept::default(), Kept::default());
        Self {
            tcp,
            session: Box::new(session),
            incoming,
            content,
            outgoing,
            urgent: false,
            ended: false,
            closing: false,
        }
    }

    /// The connection beneath, and what was agreed on in the handshake.
    #[must_use]
    pub fn get_ref(&self) -> (&TcpStream, &CommonState) {
        (&self.tcp, self.session.common())
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        loop {
            let mut octets = std::mem::take(&mut self.incoming);
            let taken = self.take(&mut octets, &mut ReadBuf::new(&mut []));
            let (consumed, step) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    // The peer is to learn why, if it can be told.
                    let _ = poll_fn(|context| self.poll_send(context)).await;
                    return Err(failure(error));
                }
            };
            octets.drain(..consumed);
            match step {
                // A server may speak before the client has finished; nobody here does. A client may have said all by now.
                Step::Open | Step::Ended if !self.session.common().is_handshaking() => {
                    self.incoming = if octets.is_empty() { Vec::new() } else { octets };
                    return Ok(());
                }
                Step::Open | Step::Blocked => {}
                Step::Ended => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            poll_fn(|context| self.poll_send(context)).await?;
            octets.reserve(FLIGHT_BYTES);
            if self.tcp.read_buf(&mut octets).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming = octets;
        }
    }

    /// Takes whole records; their content goes to `buffer`, and is kept as far as it does not fit. Says how many octets
    /// were taken.
    fn take(&mut self, octets: &mut [u8], buffer: &mut ReadBuf<'_>) -> Result<(usize, Step), rustls::Error> {
        let Self { session, content, outgoing, .. } = self;
        let mut at = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = session.process(&mut octets[at..]);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    // It has put an alert aside for the peer, perhaps behind other things. A failed session must be
                    // asked for nothing else: what it remembers of its input is no longer there.
                    while session.common().wants_write()
                        && let Ok(ConnectionState::EncodeTlsData(mut data)) = session.process(&mut []).state
                    {
                        encode(&mut outgoing.octets, |room| data.encode(room))?;
                    }
                    return Err(error);
                }
            };
            let step = match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let (now, later) = record.payload.split_at(record.payload.len().min(buffer.remaining()));
                        buffer.put_slice(now);
                        content.octets.extend_from_slice(later);
                    }
                    None
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut outgoing.octets, |room| data.encode(room))?;
                    None
                }
                // It is kept until the socket takes it.
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::WriteTraffic(_) => Some(Step::Open),
                ConnectionState::PeerClosed | ConnectionState::Closed => Some(Step::Ended),
                // Early data is not accepted, so what is left is waiting.
                ConnectionState::ReadEarlyData(_) | ConnectionState::BlockedHandshake | _ => Some(Step::Blocked),
            };
            at += discard;
            if let Some(step) = step {
                self.ended |= step == Step::Ended;
                return Ok((at, step));
            }
        }
    }

    /// Reads once from the socket, and takes what is whole.
    fn poll_incoming(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = Shared::borrow(&INCOMING, INCOMING_BYTES);
        let before = self.incoming.len();
        shared.octets[..before].copy_from_slice(&self.incoming);
        // What the reader has no room for would have to be kept.
        let most = before + (buffer.remaining() / FULL_RECORD + 1) * RECORD_BYTES;
        let mut came = ReadBuf::new(&mut shared.octets[before..most.min(INCOMING_BYTES)]);
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut came))?;
        let whole = before + came.filled().len();
        if whole == before {
            // An end that was not announced may be somebody else's doing (RFC 8446 §6.1).
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let answers = self.outgoing.octets.len();
        let taken = self.take(&mut shared.octets[..whole], buffer);
        if self.outgoing.octets.len() > answers {
            self.urgent = true;
        }
        let (consumed, _) = taken.map_err(failure)?;
        self.incoming.clear();
        self.incoming.extend_from_slice(&shared.octets[consumed..whole]);
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(context, self.outgoing.waiting()))?;
            self.outgoing.take(written);
        }
        self.urgent = false;
        Poll::Ready(Ok(()))
    }

    /// Encrypts content into `room`; says how many octets that took. Whatever the protocol has to say first is put
    /// behind what waits. The library goes by where in its input the beginning of a message stands, so it is shown that
    /// again; there is no whole record in it.
    fn encrypt(&mut self, content: &[u8], room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.process(&mut self.incoming).state.map_err(failure)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut self.outgoing.octets, |room| data.encode(room)).map_err(failure)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    return traffic.encrypt(content, room).map_err(|error| match error {
                        EncryptError::InsufficientSize(_) => unexpected("records are longer than they may be"),
                        EncryptError::EncryptExhausted => unexpected("as much was encrypted as may be with one key"),
                    });
                }
                ConnectionState::ReadTraffic(_)
                | ConnectionState::Closed
                | ConnectionState::ReadEarlyData(_)
                | ConnectionState::BlockedHandshake
                | _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    /// Writes what waits and then `records`; keeps what is not taken.
    fn poll_records(&mut self, context: &mut Context<'_>, records: &[u8]) -> io::Result<()> {
        let before = self.outgoing.waiting().len();
        let parts = [IoSlice::new(self.outgoing.waiting()), IoSlice::new(records)];
        let parts = if before == 0 { &parts[1..] } else { &parts[..] };
        let written = match Pin::new(&mut self.tcp).poll_write_vectored(context, parts) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.outgoing.take(written.min(before));
        self.outgoing.octets.extend_from_slice(&records[written.saturating_sub(before)..]);
        self.urgent = !self.outgoing.is_empty();
        Ok(())
    }
}

/// Has something written behind `out`, which grows by what that takes.
fn encode(
    out: &mut Vec<u8>,
    mut into: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    let mut room = 256;
    loop {
        out.resize(start + room, 0);
        match into(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => room = needed.required_size,
            Err(error @ (EncodeError::InsufficientSize(_) | EncodeError::AlreadyEncoded)) => {
                out.truncate(start);
                return Err(rustls::Error::General(error.to_string()));
            }
        }
    }
}

impl<S: Session> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.urgent {
            let _ = stream.poll_send(context)?;
        }
        let start = buffer.filled().len();
        loop {
            if !stream.content.is_empty() {
                let waiting = stream.content.waiting();
                let given = waiting.len().min(buffer.remaining());
                buffer.put_slice(&waiting[..given]);
                stream.content.take(given);
            }
            if buffer.filled().len() > start || stream.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !stream.incoming.is_empty() && stream.take_kept(buffer)? {
                continue;
            }
            ready!(stream.poll_incoming(context, buffer))?;
            if stream.urgent {
                let _ = stream.poll_send(context)?;
            }
        }
    }
}

impl<S: Session> TlsStream<S> {
    /// Takes what came with the handshake, which may be whole records; says whether anything was.
    fn take_kept(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut octets = std::mem::take(&mut self.incoming);
        let (consumed, _) = self.take(&mut octets, buffer).map_err(failure)?;
        octets.drain(..consumed);
        self.incoming = octets;
        Ok(consumed > 0)
    }
}

impl<S: Session> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        // Tickets go with the content; what the socket would not take has to go first.
        if stream.outgoing.waiting().len() > FLIGHT_BYTES {
            ready!(stream.poll_send(context))?;
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut records = Shared::borrow(&OUTGOING, OUTGOING_BYTES);
        let mut parts = parts.iter().map(|part| &**part).filter(|part| !part.is_empty()).peekable();
        let (mut taken, mut octets) = (0, 0);
        let mut rest = parts.next().unwrap_or_default();
        if parts.peek().is_some() {
            // Several parts share the first record; what is longer than that needs no copy.
            let mut gathered = Shared::borrow(&GATHERED, FULL_RECORD);
            while taken < FULL_RECORD && !rest.is_empty() {
                let fits = rest.len().min(FULL_RECORD - taken);
                gathered.octets[taken..taken + fits].copy_from_slice(&rest[..fits]);
                taken += fits;
                rest = if fits < rest.len() { &rest[fits..] } else { parts.next().unwrap_or_default() };
            }
            octets = stream.encrypt(&gathered.octets[..taken], &mut records.octets)?;
        }
        if !rest.is_empty() {
            let content = &rest[..rest.len().min(PIECE_BYTES - taken)];
            octets += stream.encrypt(content, &mut records.octets[octets..])?;
            taken += content.len();
        }
        stream.poll_records(context, &records.octets[..octets])?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(context)
    }

    /// Says that nothing more follows (close_notify), then ends the connection for writing.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !std::mem::replace(&mut stream.closing, true) {
            let mut room = [0; 64];
            let octets = stream.close_notify(&mut room)?;
            stream.outgoing.octets.extend_from_slice(&room[..octets]);
        }
        ready!(stream.poll_send(context))?;
        Pin::new(&mut stream.tcp).poll_shutdown(context)
    }
}

impl<S: Session> TlsStream<S> {
    fn close_notify(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.process(&mut self.incoming).state.map_err(failure)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut self.outgoing.octets, |room| data.encode(room)).map_err(failure)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    return traffic
                        .queue_close_notify(room)
                        .map_err(|_| unexpected("an alert is longer than it may be"));
                }
                ConnectionState::ReadTraffic(_)
                | ConnectionState::Closed
                | ConnectionState::ReadEarlyData(_)
                | ConnectionState::BlockedHandshake
                | _ => return Ok(0),
            }
        }
    }
}

impl<S: Session> OverTcp for TlsStream<S> {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = [self.incoming.len(), self.content.waiting().len(), self.outgoing.waiting().len()];
        f.debug_struct("TlsStream").field("kept_octets", &kept).finish_non_exhaustive()
    }
}
