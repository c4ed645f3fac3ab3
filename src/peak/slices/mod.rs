//! Leases and slices: which pods serve, who owns what, what moves when.
//!
//! The state is the registry's ([`crate::model::registry::lease`]), who owns what is the planner's
//! ([`crate::model::ssa::plan`]). Here is what a leader does with them: it listens to sidecars, keeps the deadlines of
//! their leases, plans, begins handovers, and tells everybody its share.
//!
//! | module | owns |
//! |---|---|
//! | `stream` | one sidecar's connection: TLS, token, frames |
//! | `desk` | the leader's loop |
//! | `deadlines` | when leases end |
//! | `load` | which slices are hot |
//! | `space` | a service's space, from Peak's zones |
//! | `show`, `ask` | all of it, for people |

mod ask;
mod deadlines;
mod desk;
mod load;
mod metrics;
mod show;
mod space;
mod spare;
mod stream;
mod word;

pub(super) use ask::{CannotAsk, routes};
pub(super) use load::Load;
pub(super) use show::shown;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::dns::Served;
use super::store::Store;
use crate::config::slices::Slices;
use crate::net::listen;
use crate::net::tls::{ServerTls, TlsFileError};
use crate::ops::metrics::{Reason, Registry};
use crate::trust::{Issuers, IssuersError, Verifier};
use crate::wire::lease::PROTOCOL;
use desk::{Desk, Settings};
use metrics::Counts;
use stream::Gate;
use word::{StreamId, Word};

/// Words that may wait for the desk; sidecars that say more wait with them.
const WAITING: usize = 4096;
/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Why slices cannot be given out.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlicesError {
    /// The listener.
    #[error("slices.listen: cannot listen on {addr}: {cause}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The key sets of those whose tokens are accepted.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
}

/// Takes leases, once it is served.
pub(super) struct Opened {
    listener: TcpListener,
    gate: Arc<Gate>,
    issuers: Arc<Issuers>,
    desk: Desk,
    words: mpsc::Receiver<Word>,
    to_desk: mpsc::Sender<Word>,
    counts: Counts,
}

/// Reads the files and binds the listener; sidecars are heard once [`Opened::serve`] runs. `begins` says whether this node
/// may begin a registry.
pub(super) fn open(
    slices: &Slices,
    store: &Store,
    (served, load): (&Served, &Load),
    begins: bool,
    registry: &Registry,
) -> Result<Opened, SlicesError> {
    let addr = slices.listen;
    let listener = listen::tcp(addr).map_err(|cause| SlicesError::Listen { addr, cause })?;
    let verifier = Arc::new(Verifier::new(Vec::new(), |_| {}));
    let issuers = Arc::new(Issuers::new(&slices.trust, Arc::clone(&verifier), None)?);
    let gate = Gate {
        tls: ServerTls::from_files(&slices.certificate, &slices.key, &[PROTOCOL])?,
        name: slices.name.clone(),
        verifier,
        services: slices.services.iter().map(|service| (service.name.clone(), service.pods.clone())).collect(),
    };
    let settings = Settings { life: slices.lease, moving: slices.moving, defragment: slices.defragment, begins };
    let counts = Counts::new(registry);
    let (to_desk, words) = mpsc::channel(WAITING);
    let desk = Desk::new(store.clone(), Arc::clone(served), settings, counts.clone(), load.clone());
    show::register(registry, store);
    Ok(Opened { listener, gate: Arc::new(gate), issuers, desk, words, to_desk, counts })
}

impl Opened {
    /// Where it listens.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whose tokens are accepted.
    pub(super) const fn issuers(&self) -> &Arc<Issuers> {
        &self.issuers
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self) {
        let Self { listener, gate, issuers, desk, words, to_desk, counts } = self;
        tokio::spawn(desk.run(words));
        tokio::spawn(async move { issuers.look_after(|| {}).await });
        let mut streams = 0;
        loop {
            let (tcp, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("a sidecar's connection cannot be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let _ = tcp.set_nodelay(true);
            streams += 1;
            let (gate, desk, counts) = (Arc::clone(&gate), to_desk.clone(), counts.clone());
            tokio::spawn(async move {
                let ended = stream::carry(gate, tcp, peer, StreamId(streams), desk).await;
                counts.refusals.increment(&Reason(ended.reason()));
                tracing::debug!(%peer, reason = ended.reason(), "a sidecar's connection ended: {ended}");
            });
        }
    }
}
