//! The unix socket between sidecars and the agent of their node: lines both ways, and the sidecar's end of it.
//!
//! [`Lines`] carries the messages of [`wire::agent`](crate::wire::agent) over any stream. [`AgentLink`] is what a
//! sidecar holds: it says what the pod wants, and keeps saying it, over as many connections as that takes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::wire::agent::{self, BadLine, Claim, LONGEST_LINE, Report, VERSION, Welcome};

/// How long to wait before the agent is called again: first, and at most. An agent that starts anew is back in less.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket.
    #[error("cannot speak with the node's agent at {}: {source}", path.display())]
    Socket {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that makes no sense.
    #[error(transparent)]
    Line(#[from] BadLine),
    /// The other side speaks a later version of the protocol.
    #[error("the node's agent speaks version {theirs} of the protocol, and this sidecar knows {VERSION} alone")]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// The other side ended it.
    #[error("the other side hung up")]
    HungUp,
}

/// The reading end of a conversation.
#[derive(Debug)]
pub struct Lines<R> {
    from: BufReader<R>,
    line: Vec<u8>,
}

/// The writing end of a conversation.
#[derive(Debug)]
pub struct Pen<W>(W);

/// Both ends.
#[must_use]
pub fn converse<S: AsyncRead + AsyncWrite>(stream: S) -> (Lines<ReadHalf<S>>, Pen<WriteHalf<S>>) {
    let (from, to) = tokio::io::split(stream);
    (Lines { from: BufReader::new(from), line: Vec::new() }, Pen(to))
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next message; none when the other side has hung up. Cancel safe: a line that has begun goes on.
    ///
    /// # Errors
    /// [`BadLine`], and what reading failed with as [`AgentError::HungUp`]: there is nobody to tell.
    pub async fn next<M: DeserializeOwned>(&mut self) -> Result<M, AgentError> {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        let mut bounded = (&mut self.from).take(room as u64);
        let read = bounded.read_until(b'\n', &mut self.line).await;
        if self.line.last() == Some(&b'\n') {
            let message = agent::decode(&self.line);
            self.line.clear();
            return Ok(message?);
        }
        match read {
            Ok(_) if self.line.len() >= LONGEST_LINE => Err(BadLine::TooLong.into()),
            Ok(_) | Err(_) => Err(AgentError::HungUp),
        }
    }
}

impl<W: AsyncWrite + Unpin> Pen<W> {
    /// Sends a message.
    ///
    /// # Errors
    /// [`AgentError::HungUp`].
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), AgentError> {
        let written = async {
            self.0.write_all(&agent::encode(message)).await?;
            self.0.flush().await
        };
        written.await.map_err(|_: io::Error| AgentError::HungUp)
    }
}

/// What a sidecar knows of its agent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Whether there is a conversation now.
    pub connected: bool,
    /// The agent's last welcome. It stays when the agent has gone: where the pod is does not change by that.
    pub welcome: Option<Welcome>,
    /// The agent's last report. It stays as well; the routes do.
    pub report: Option<Report>,
}

/// A sidecar's link to its node's agent. It keeps calling until it is dropped; the routes then stay for a while, so
/// whoever stops in order claims nothing and waits for that to be in place.
#[derive(Debug)]
pub struct AgentLink {
    /// Nothing until the first claim: a sidecar that has just come back must not give away what it had.
    wanted: watch::Sender<Option<Claim>>,
    first: u64,
    seen: watch::Receiver<Seen>,
    task: AbortHandle,
}

impl AgentLink {
    /// Begins to call the agent at `path`. Numbers of claims begin after `first`: give something that grows from one
    /// start of the sidecar to the next (a clock's seconds), so that no old report is taken for a new one.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    #[must_use]
    pub fn open(path: PathBuf, first: u64) -> Self {
        let (wanted, claims) = watch::channel(None);
        let (tell, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(keep_calling(path, claims, tell)).abort_handle();
        Self { wanted, first, seen, task }
    }

    /// Claims `spaces` from now on, in place of everything claimed before; gives the claim's number.
    pub fn claim(&mut self, spaces: Vec<agent::SpaceClaim>) -> u64 {
        let number = self.wanted.borrow().as_ref().map_or(self.first, |claim| claim.number) + 1;
        self.wanted.send_replace(Some(Claim { number, spaces }));
        number
    }

    /// What is known of the agent, and every change of it.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Waits for the first report on the claim `number`, or on a later one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn report_on(&self, number: u64) -> Report {
        let mut seen = self.seen.clone();
        let told = seen.wait_for(|seen| seen.report.as_ref().is_some_and(|report| report.number >= number)).await;
        match told.ok().and_then(|seen| seen.report.clone()) {
            Some(report) => report,
            // The task that tells lives as long as this link, which is borrowed.
            None => std::future::pending().await,
        }
    }
}

impl Drop for AgentLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_calling(path: PathBuf, mut claims: watch::Receiver<Option<Claim>>, tell: watch::Sender<Seen>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = call(&path, &mut claims, &tell).await;
        let was_connected = tell.borrow().connected;
        tell.send_if_modified(|seen| std::mem::take(&mut seen.connected));
        match ended {
            Err(error) if was_connected => tracing::warn!("the node's agent is gone, routes stay as they are: {error}"),
            Err(error) => tracing::debug!("{error}"),
            // The link was dropped.
            Ok(()) => return,
        }
        pause = if was_connected { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// One conversation, to its end. `Ok` when nobody claims any longer.
async fn call(
    path: &Path,
    claims: &mut watch::Receiver<Option<Claim>>,
    tell: &watch::Sender<Seen>,
) -> Result<(), AgentError> {
    let connected = UnixStream::connect(path).await;
    let stream = connected.map_err(|source| AgentError::Socket { path: path.to_owned(), source })?;
    let (mut lines, mut pen) = converse(stream);
    let welcome: Welcome = lines.next().await?;
    if welcome.version > VERSION {
        return Err(AgentError::Version { theirs: welcome.version });
    }
    tell.send_modify(|seen| {
        seen.connected = true;
        seen.welcome = Some(welcome);
    });
    claims.mark_changed();
    loop {
        tokio::select! {
            changed = claims.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let claim = claims.borrow_and_update().clone();
                if let Some(claim) = claim {
                    pen.send(&claim).await?;
                }
            }
            report = lines.next::<Report>() => {
                let report = report?;
                tell.send_modify(|seen| seen.report = Some(report));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::wire::agent::{SpaceClaim, State};

    fn space() -> SpaceClaim {
        let space = "2001:db8:5::/64".parse().unwrap();
        SpaceClaim { space, owned: vec![space], arriving: vec![], leaving: vec![] }
    }

    async fn welcomed(listener: &UnixListener) -> (Lines<ReadHalf<UnixStream>>, Pen<WriteHalf<UnixStream>>) {
        let (lines, mut pen) = converse(listener.accept().await.unwrap().0);
        let (node, pod) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        pen.send(&Welcome { version: VERSION, node, pod }).await.unwrap();
        (lines, pen)
    }

    #[tokio::test]
    async fn a_claim_is_repeated_to_an_agent_that_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let mut link = AgentLink::open(path.clone(), 40);
        let (mut lines, mut pen) = welcomed(&listener).await;
        let mut seen = link.seen();
        assert_eq!(seen.wait_for(|seen| seen.connected).await.unwrap().report, None);
        let number = link.claim(vec![space()]);
        let claim: Claim = lines.next().await.unwrap();
        // The first line: nothing is claimed before that, not even nothing.
        assert_eq!((claim.number, &claim.spaces), (number, &vec![space()]));
        pen.send(&Report { number, state: State::InPlace }).await.unwrap();
        assert_eq!(link.report_on(number).await.state, State::InPlace);

        drop((lines, pen, listener));
        std::fs::remove_file(&path).unwrap();
        assert!(!seen.wait_for(|seen| !seen.connected).await.unwrap().connected);
        let listener = UnixListener::bind(&path).unwrap();
        let (mut lines, _pen) = welcomed(&listener).await;
        assert_eq!(lines.next::<Claim>().await.unwrap(), claim);
    }

    #[tokio::test]
    async fn a_line_that_never_ends_ends_the_conversation() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut lines, _pen) = converse(one);
        let (_theirs, mut pen) = converse(other);
        let writing = tokio::spawn(async move { pen.0.write_all(&vec![b'x'; LONGEST_LINE + 1]).await });
        assert!(matches!(lines.next::<Claim>().await, Err(AgentError::Line(BadLine::TooLong))));
        drop(lines);
        let _ = writing.await.unwrap();
    }
}
