//! The signals that a role obeys.
//!
//! SIGTERM and SIGINT ask for a graceful stop; the second of them ends the role at once. SIGHUP asks it to read its
//! files again; SIGUSR2, of roles that can be, to let a new program take its place. Tested in a process of their own, because a signal reaches all tests of one.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Stop: gracefully the first time, at once the second.
    Stop,
    /// Read the files again.
    Reload,
}

/// The signals of this process, caught from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Begins to catch the signals; what arrives before is the system's to handle. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the system said to the attempt.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel safe: none is lost.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for the next wish to stop; wishes to reload are passed over. Cancel safe.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

/// Wishes that a new program take the place of this one: SIGUSR2.
#[derive(Debug)]
pub struct Upgrades(unix::Signal);

impl Upgrades {
    /// Begins to catch them. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the system said to the attempt.
    pub fn catch() -> io::Result<Self> {
        Ok(Self(unix::signal(SignalKind::user_defined2())?))
    }

    /// Waits for the next. Cancel safe.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
