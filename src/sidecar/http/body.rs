//! Content on its way from one connection to another.
//!
//! Nothing is gathered: a frame is asked for when the other side has room for it, so the slower of two connections sets
//! the pace of both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::fields::strip_ours;

/// How long content waits for a server that was asked whether it wants it (RFC 9110 §10.1.1: no longer than that, as the
/// server may not know of asking).
const PATIENCE: Duration = Duration::from_secs(1);

/// Anything that is let go when a message has gone by.
pub(in crate::sidecar) trait Held: Send + Sync {}

impl<T: Send + Sync> Held for T {}

/// The content of a message.
pub(in crate::sidecar) struct Body {
    content: Content,
    /// Counts its octets.
    octets: Option<Arc<AtomicU64>>,
    /// Let go at its end.
    held: Option<Box<dyn Held>>,
}

enum Content {
    Text(Bytes),
    Carried(Incoming),
    /// Goes on when the server says that it wants it.
    Asked(Incoming, Arc<Gate>, Pin<Box<Sleep>>),
}

/// Why content broke off.
#[derive(Debug, thiserror::Error)]
pub(in crate::sidecar) enum BodyError {
    /// Its sender did.
    #[error(transparent)]
    Sender(#[from] hyper::Error),
    /// The server has answered without wanting it.
    #[error("the server did not want the content")]
    Unwanted,
}

impl Body {
    /// No content.
    pub(in crate::sidecar) fn empty() -> Self {
        Self::text(Bytes::new())
    }

    /// A few words of our own.
    pub(in crate::sidecar) fn text(text: impl Into<Bytes>) -> Self {
        Self { content: Content::Text(text.into()), octets: None, held: None }
    }

    /// What comes in.
    pub(in crate::sidecar) fn carried(incoming: Incoming) -> Self {
        Self { content: Content::Carried(incoming), octets: None, held: None }
    }

    /// What comes in once the gate is open.
    pub(in crate::sidecar) fn asked(incoming: Incoming, gate: Arc<Gate>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(PATIENCE));
        Self { content: Content::Asked(incoming, gate, sleep), octets: None, held: None }
    }

    /// Adds the number of its octets to `octets`.
    pub(in crate::sidecar) fn counted(self, octets: &Arc<AtomicU64>) -> Self {
        Self { octets: Some(Arc::clone(octets)), ..self }
    }

    /// Keeps something, and what it kept before, until the content has ended.
    pub(in crate::sidecar) fn holding(mut self, held: impl Held + 'static) -> Self {
        self.held = Some(match self.held.take() {
            None => Box::new(held),
            Some(before) => Box::new((before, held)),
        });
        self
    }

    /// As [`Body::holding`], if there is anything to keep.
    pub(in crate::sidecar) fn holding_some(self, held: Option<impl Held + 'static>) -> Self {
        match held {
            Some(held) => self.holding(held),
            None => self,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let frame = match &mut body.content {
            Content::Text(text) if text.is_empty() => None,
            Content::Text(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::Carried(incoming) => ready!(Pin::new(incoming).poll_frame(context)),
            Content::Asked(incoming, gate, sleep) => {
                let passed = gate.poll_passed(context);
                if passed.is_pending() && sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                if passed == Poll::Ready(Passed::Shut) {
                    return Poll::Ready(Some(Err(BodyError::Unwanted)));
                }
                gate.open();
                ready!(Pin::new(incoming).poll_frame(context))
            }
        };
        match frame {
            Some(Ok(frame)) => {
                if let (Some(octets), Some(data)) = (&body.octets, frame.data_ref()) {
                    octets.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if HttpBody::is_end_stream(body) {
                    body.held = None;
                }
                Poll::Ready(Some(Ok(clean(frame))))
            }
            Some(Err(error)) => {
                body.held = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                body.held = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_empty(),
            Content::Carried(incoming) | Content::Asked(incoming, ..) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Carried(incoming) | Content::Asked(incoming, ..) => incoming.size_hint(),
        }
    }
}

/// Trailers may hold our fields as little as heads may.
fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_ours(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Holds content back until the server has said whether it wants it.
#[derive(Default)]
pub(in crate::sidecar) struct Gate {
    passed: Mutex<Option<Passed>>,
    waker: AtomicWaker,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Passed {
    Open,
    Shut,
}

impl Gate {
    /// The server wants it.
    pub(in crate::sidecar) fn open(&self) {
        self.pass(Passed::Open);
    }

    /// The server has answered all there is to answer. Content that is still held back never goes.
    pub(in crate::sidecar) fn shut(&self) {
        self.pass(Passed::Shut);
    }

    fn pass(&self, passed: Passed) {
        self.passed.lock().get_or_insert(passed);
        self.waker.wake();
    }

    fn poll_passed(&self, context: &Context<'_>) -> Poll<Passed> {
        self.waker.register(context.waker());
        self.passed.lock().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Shuts a gate when it is dropped.
pub(in crate::sidecar) struct Shutting(pub(in crate::sidecar) Arc<Gate>);

impl Drop for Shutting {
    fn drop(&mut self) {
        self.0.shut();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_held_is_let_go_with_the_last_octet() {
        let held = Arc::new(());
        let mut body = Body::text("words").holding(Arc::clone(&held));
        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "words");
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_gate_stays_as_it_was_first_passed() {
        let gate = Gate::default();
        gate.open();
        gate.shut();
        let passed = std::future::poll_fn(|context| gate.poll_passed(context)).await;
        assert_eq!(passed, Passed::Open);
    }
}
