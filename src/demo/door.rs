//! The way into a pod of the bed, and what can go wrong there. Work goes to the thread that is the pod.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::net::routes::{Netlink, RouteError};

/// Why the bed could not be made, or something in it not be done.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A namespace.
    #[error("cannot make the namespaces of {pod}")]
    Namespace {
        /// Whose.
        pod: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Links, addresses and routes.
    #[error("cannot arrange the network of {pod}")]
    Network {
        /// Whose.
        pod: &'static str,
        /// Why.
        #[source]
        source: RouteError,
    },
    /// Work sent to a pod's thread panicked.
    #[error("the thread of {pod} has ended")]
    Ended {
        /// Whose.
        pod: &'static str,
    },
    /// A thread, file or pipe.
    #[error("cannot {action} in {pod}")]
    Io {
        /// Where.
        pod: &'static str,
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended that should not have, or without success.
    #[error("`{program}` ended in {pod} ({status}); it said:\n{output}")]
    Failed {
        /// Where.
        pod: &'static str,
        /// Which program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// Something did not come true in time.
    #[error("`{what}` in {pod} was not ready after {} s; it said:\n{said}", .after.as_secs())]
    NotReady {
        /// Where.
        pod: &'static str,
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of its output.
        said: String,
    },
}

pub(super) type Job = Box<dyn FnOnce(&Inside) + Send>;

/// What a pod's thread has at hand.
pub(super) struct Inside {
    pub(super) runtime: Runtime,
    pub(super) netlink: Netlink,
}

/// The way into a pod. The pod lives until the last of them is gone.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) pod: &'static str,
    pub(super) jobs: mpsc::Sender<Job>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.pod)
    }
}

impl Door {
    pub(super) fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inside) -> T + Send + 'static,
    ) -> Result<T, BedError> {
        let (reply, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |inside| {
            let _ = reply.send(work(inside));
        });
        let ended = || BedError::Ended { pod: self.pod };
        self.jobs.send(job).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())
    }
}
