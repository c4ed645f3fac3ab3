//! The running program, as the new one sees it.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Estate, Given, Known, SuccessionError, Word, hear, say};
use crate::net::descriptors;

/// The one whose place is taken.
#[derive(Debug)]
pub(in crate::sidecar) struct Predecessor {
    words: BufReader<OwnedReadHalf>,
    ears: OwnedWriteHalf,
    /// Leads to the sidecar that was there first.
    first: OwnedFd,
    /// Whether that is another than this predecessor.
    apart: bool,
}

impl Predecessor {
    /// Meets it at standard input, and takes its sockets.
    ///
    /// # Errors
    /// When nobody, or nobody who speaks like this, is there.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub(in crate::sidecar) async fn meet() -> Result<(Self, Estate), SuccessionError> {
        let input = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 0).map_err(io::Error::from)?;
        let stream = std::os::unix::net::UnixStream::from(input);
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let mut sockets = descriptors::receive(&stream).await?;
        let (words, ears) = stream.into_split();
        let mut words = BufReader::new(words);
        let given: Given = hear(&mut words).await?;
        let farther = if given.first { sockets.pop() } else { None };
        let apart = farther.is_some();
        let first = match farther {
            Some(first) => first,
            None => rustix::io::fcntl_dupfd_cloexec(io::stdin(), 0).map_err(io::Error::from)?,
        };
        Ok((Self { words, ears, first, apart }, Estate::of(given.sockets, sockets)))
    }

    /// Says that this one could serve; then nobody else takes anything new, and it is told what is known.
    ///
    /// # Errors
    /// When the other is gone.
    pub(in crate::sidecar) async fn relieve(&mut self) -> Result<Known, SuccessionError> {
        say(&mut self.ears, &Word::Prepared).await?;
        Ok(hear(&mut self.words).await?)
    }

    /// Says that this one serves, to it and to whoever was there first, to which what is returned leads.
    ///
    /// # Errors
    /// When the other is gone.
    pub(in crate::sidecar) async fn part(mut self) -> Result<OwnedFd, SuccessionError> {
        let serving = Word::serving();
        // The first before the predecessor: that one may end at once, and must not be taken for the last.
        if self.apart {
            let stream = std::os::unix::net::UnixStream::from(self.first.try_clone()?);
            stream.set_nonblocking(true)?;
            // Whoever was there first may be gone: then nobody needs to know.
            let _ = say(&mut UnixStream::from_std(stream)?, &serving).await;
        }
        say(&mut self.ears, &serving).await?;
        // Dropped, it would close the conversation for those who come after as well.
        self.ears.forget();
        Ok(self.first)
    }
}
