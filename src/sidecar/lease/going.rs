//! The end of a lease, from outside: it is handed over, left to another run of the sidecar, or given back.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long telling Peak that a lease is given back may take.
const SAYING: Duration = Duration::from_millis(200);

/// How far the pod is with going.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Going {
    Stays,
    HandsOver,
    Leaves,
}

/// Where a handover of all slices stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Here {
    Something,
    Nothing,
    Returned,
}

/// The life of the lease, from outside.
#[derive(Debug)]
pub struct Handle {
    pub(super) task: AbortHandle,
    pub(super) going: watch::Sender<Going>,
    pub(super) here: watch::Receiver<Here>,
}

/// What hands slices over.
#[derive(Clone, Debug)]
pub struct Leaver {
    going: watch::Sender<Going>,
    here: watch::Receiver<Here>,
}

impl Leaver {
    /// Hands all slices over, and gives up `within`; new connections go elsewhere then. Gives whether nothing is left here.
    pub async fn hand_over(mut self, within: Duration) -> bool {
        self.going.send_if_modified(|going| {
            *going == Going::Stays && std::mem::replace(going, Going::HandsOver) == Going::Stays
        });
        timeout(within, self.here.wait_for(|here| *here != Here::Something)).await.is_ok()
    }
}

impl Handle {
    /// What hands its slices over.
    #[must_use]
    pub fn leaver(&self) -> Leaver {
        Leaver { going: self.going.clone(), here: self.here.clone() }
    }

    /// Leaves the lease to another run of this pod's sidecar, which takes it by registering.
    pub fn leave(self) {
        self.task.abort();
    }

    /// Gives the lease back: nothing is left here.
    pub async fn give_back(&mut self) {
        self.going.send_replace(Going::Leaves);
        // Peak may be away: the lease ends by itself then.
        let _ = timeout(SAYING, self.here.wait_for(|here| *here == Here::Returned)).await;
    }
}
