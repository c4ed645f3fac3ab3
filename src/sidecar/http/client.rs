//! A connection on which we ask: a server's, or the application's.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Version;
use super::body::{Body, Gate};
use super::fields::LONGEST_HEAD;
use super::message::copy_of;

/// How much of a stream, and of a connection, HTTP/2 lets come before it is taken, in octets.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 4 << 20;
/// What a message's head is read into at most; longer ones than [`LONGEST_HEAD`] are to be named, so they must be read.
pub(super) const MOST_READ_OF_A_HEAD: usize = 2 * LONGEST_HEAD;

/// The asking end of a connection. The connection goes on in a task of its own until this end, or the server's, is gone.
pub(in crate::sidecar) enum Sender {
    /// HTTP/1.1.
    One(http1::SendRequest<Body>),
    /// HTTP/2; many may ask at once.
    Two(http2::SendRequest<Body>),
}

/// What came of a request. Behind each that may have a further chance, a copy of it, where one could be made.
pub(in crate::sidecar) enum Exchanged {
    /// An answer.
    Answered(Response<Incoming>, Option<Request<Body>>),
    /// Nothing of it was sent: the connection was just closing.
    Unsent(Request<Body>, hyper::Error),
    /// It was sent, and no octet of an answer came.
    Lost(hyper::Error, Option<Request<Body>>),
}

impl Sender {
    /// Speaks HTTP over a fresh connection.
    ///
    /// # Errors
    /// HTTP/2 could not be begun.
    pub(in crate::sidecar) async fn over<T>(io: T, version: Version) -> Result<Self, hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(io);
        match version {
            Version::One => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MOST_READ_OF_A_HEAD);
                let (sender, connection) = builder.handshake(io).await?;
                // Its end is heard of by whoever asks.
                tokio::spawn(async { drop(connection.with_upgrades().await) });
                Ok(Self::One(sender))
            }
            Version::Two => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_header_list_size(MOST_READ_OF_A_HEAD as u32);
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(async { drop(connection.await) });
                Ok(Self::Two(sender))
            }
        }
    }

    /// The version spoken.
    pub(in crate::sidecar) fn version(&self) -> Version {
        match self {
            Self::One(_) => Version::One,
            Self::Two(_) => Version::Two,
        }
    }

    /// A second end of the connection, where many may ask at once.
    pub(in crate::sidecar) fn shared(&self) -> Option<Self> {
        match self {
            Self::One(_) => None,
            Self::Two(sender) => Some(Self::Two(sender.clone())),
        }
    }

    /// Whether nobody knows that the connection has ended.
    pub(in crate::sidecar) fn is_open(&self) -> bool {
        match self {
            Self::One(sender) => !sender.is_closed(),
            Self::Two(sender) => !sender.is_closed(),
        }
    }

    /// Whether the answer before has been read to its end, so that a further request may follow.
    pub(in crate::sidecar) fn is_ready(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_ready(),
            Self::Two(sender) => sender.is_ready(),
        }
    }

    async fn ready(&mut self) -> Result<(), hyper::Error> {
        match self {
            Self::One(sender) => sender.ready().await,
            Self::Two(sender) => sender.ready().await,
        }
    }

    async fn ask(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::One(sender) => sender.try_send_request(request).await,
            Self::Two(sender) => sender.try_send_request(request).await,
        }
    }

    /// Asks; opens `gate` when the server says that it wants the content. Keeps a copy of the request if it is
    /// `repeatable`.
    pub(in crate::sidecar) async fn exchange(
        &mut self,
        mut request: Request<Body>,
        gate: &Option<Arc<Gate>>,
        repeatable: bool,
    ) -> Exchanged {
        if let Some(gate) = gate {
            match self {
                Self::One(_) => open_when_wanted(&mut request, gate),
                Self::Two(_) => gate.open(),
            }
        }
        if let Err(error) = self.ready().await {
            return Exchanged::Unsent(request, error);
        }
        let copy = repeatable.then(|| copy_of(&request));
        match self.ask(request).await {
            Ok(answer) => Exchanged::Answered(answer, copy),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => Exchanged::Unsent(unsent, failed.into_error()),
                None => Exchanged::Lost(failed.into_error(), copy),
            },
        }
    }
}

fn open_when_wanted(request: &mut Request<Body>, gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    hyper::ext::on_informational(request, move |informed| {
        if informed.status() == StatusCode::CONTINUE {
            gate.open();
        }
    });
}
