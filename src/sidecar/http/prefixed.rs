//! A connection of which something has been read already.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pace::Pace;
use crate::net::copy::OverTcp;

/// A connection whose first octets are given once more.
pub(in crate::sidecar) struct Prefixed<T> {
    early: Bytes,
    io: T,
    pace: Option<Arc<Pace>>,
}

impl<T> Prefixed<T> {
    /// `io`, of which `early` was read.
    pub(in crate::sidecar) fn new(early: Bytes, io: T) -> Self {
        Self { early, io, pace: None }
    }

    /// Notes in `pace` when something is read.
    pub(in crate::sidecar) fn paced(self, pace: Arc<Pace>) -> Self {
        Self { pace: Some(pace), ..self }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let prefixed = self.get_mut();
        if !prefixed.early.is_empty() {
            let taken = prefixed.early.len().min(buffer.remaining());
            buffer.put_slice(&prefixed.early.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut prefixed.io).poll_read(context, buffer))?;
        if let Some(pace) = &prefixed.pace
            && buffer.filled().len() > before
        {
            pace.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl<T: OverTcp> OverTcp for Prefixed<T> {
    fn tcp(&self) -> &TcpStream {
        self.io.tcp()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_only_once() {
        let rest: &[u8] = b" and the rest";
        let mut prefixed = Prefixed::new(Bytes::from_static(b"the beginning"), rest);
        let mut heard = String::new();
        prefixed.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the beginning and the rest");
    }
}
