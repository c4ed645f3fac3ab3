//! Processes that have ended and wait for their parent to notice.
//!
//! The parent is this one for those that it started, for what they left behind ([`adopt`]), and, as the first process of a
//! container, for whatever nobody else is the parent of. Tested in a process of its own, because a signal reaches all
//! tests of one.

use std::io;

use rustix::process::{Pid, WaitOptions, set_child_subreaper, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell says of a program that a signal has ended: 128 and the signal's number.
const BY_SIGNAL: i32 = 128;

/// A child that has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Which.
    pub pid: Pid,
    /// Its exit code; 128 and the number of the signal that ended it.
    pub code: u8,
}

/// The children of this process, noticed from the moment it is made.
#[derive(Debug)]
pub struct Children(Signal);

impl Children {
    /// Begins to notice. Nothing else in the process may wait for a child then. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the system said to the attempt to catch SIGCHLD.
    pub fn notice() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::child())?))
    }

    /// The next child that has ended; nothing is left of it then. Cancel safe: none is lost.
    pub async fn next(&mut self) -> Ended {
        loop {
            // Without any child there is none to wait for: that is no error here.
            if let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let signalled = || status.terminating_signal().map(|signal| BY_SIGNAL + signal);
                if let Some(code) = status.exit_status().or_else(signalled) {
                    return Ended { pid, code: code as u8 };
                }
                continue;
            }
            self.0.recv().await;
        }
    }
}

/// From now on the children of this process's children become its own when their parent ends.
///
/// # Errors
/// Whatever prctl(2) refuses.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}
