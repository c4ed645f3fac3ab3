//! The new program, as the running one sees it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::{Estate, Given, Known, SuccessionError, Word, hear, say};
use crate::net::descriptors;

/// How long a successor may take to read its files and learn its rules.
const PREPARES: Duration = Duration::from_secs(60);
/// How long from when it is told to serve until it does.
const BEGINS: Duration = Duration::from_secs(10);

/// How this program was started.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A successor: ended with the value, unless it serves.
#[derive(Debug)]
pub(in crate::sidecar) struct Heir {
    pub(super) process: Pid,
    pub(super) words: BufReader<OwnedReadHalf>,
    ears: OwnedWriteHalf,
    serves: bool,
}

impl Program {
    /// The running program: where its file is now, and where a new one will be put. `take_over` is the flag of a successor.
    ///
    /// # Errors
    /// Without /proc.
    pub(in crate::sidecar) fn running(take_over: &str) -> io::Result<Self> {
        let mut arguments: Vec<_> = std::env::args_os().skip(1).filter(|argument| argument != take_over).collect();
        arguments.push(take_over.into());
        Ok(Self { path: std::env::current_exe()?, arguments })
    }

    fn start(&self, input: OwnedFd) -> io::Result<Pid> {
        // Whoever notices children notices its end.
        let child = Command::new(&self.path).args(&self.arguments).stdin(Stdio::from(input)).spawn()?;
        Ok(Pid::from_child(&child))
    }
}

impl Heir {
    /// Starts `program`, gives it the sockets, and waits until it could serve. `first` leads to the sidecar that was there
    /// first, where that is another than this one.
    ///
    /// # Errors
    /// A program that cannot be started, that ends, or that is not prepared in time. It has ended then.
    pub(in crate::sidecar) async fn raise(
        program: &Program,
        estate: &Estate,
        first: Option<&OwnedFd>,
    ) -> Result<Self, SuccessionError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let refused = |cause| SuccessionError::Start { program: program.path.display().to_string(), cause };
        let process = program.start(theirs.into()).map_err(refused)?;
        tracing::info!(process = process.as_raw_nonzero(), "a new sidecar prepares to take over");
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let sockets: Vec<_> = estate.sockets().chain(first.map(|first| first.as_fd())).collect();
        let given = descriptors::give(&ours, &sockets).await;
        let (words, ears) = ours.into_split();
        let mut heir = Self { process, words: BufReader::new(words), ears, serves: false };
        given?;
        say(&mut heir.ears, &Given { sockets: estate.described(), first: first.is_some() }).await?;
        match timeout(PREPARES, hear(&mut heir.words)).await {
            Ok(Ok(Word::Prepared)) => Ok(heir),
            Ok(Ok(Word::Serving { .. })) => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SuccessionError::Late(PREPARES.as_secs())),
        }
    }

    /// Lets it serve: nobody else takes anything new any more.
    ///
    /// # Errors
    /// When it does not; it has ended then.
    pub(in crate::sidecar) async fn serve(&mut self, known: &Known) -> Result<(), SuccessionError> {
        say(&mut self.ears, known).await?;
        match timeout(BEGINS, hear(&mut self.words)).await {
            Ok(Ok(Word::Serving { .. })) => self.serves = true,
            Ok(Ok(Word::Prepared)) => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(SuccessionError::Late(BEGINS.as_secs())),
        }
        Ok(())
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if !self.serves {
            // It may have ended by itself.
            let _ = kill_process(self.process, Signal::KILL);
        }
    }
}
