//! Starting what talks with other servers and with updaters: keys, the ledger, the desk, and a task for each secondary
//! of ours and for each zone we are secondary of.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;

use super::desk::counts::Counts;
use super::desk::policy::Policy;
use super::desk::{self, Desk, Furnishing, Queue};
use super::dns::Served;
use super::ledger::{Holding, KeepError, Ledger};
use super::notify;
use super::secondary::{Primary, Secondary};
use crate::config::peak::{self, KeyAlgorithm, Peak};
use crate::model::{Name, UnixSeconds};
use crate::ops::metrics::Registry;
use crate::wire::dns::tsig::{Algorithm, Key, Keys, TsigError};

/// Why Peak cannot talk with others.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeersError {
    /// A key's file.
    #[error("the secret of the key {name} in {file}: {cause}", file = .file.display())]
    Secret {
        /// The key's name.
        name: Name,
        /// Its file.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What is in it. The text is not told: it may be a secret with a mistake in it.
    #[error("the secret of the key {name} in {file} is not base64 and nothing else", file = .file.display())]
    Base64 {
        /// The key's name.
        name: Name,
        /// Its file.
        file: PathBuf,
    },
    /// A secret that is none.
    #[error("the key {name}: {cause}")]
    Key {
        /// The key's name.
        name: Name,
        /// Why.
        cause: TsigError,
    },
    /// What is kept of a zone.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// What talks with others.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) ledger: Arc<Ledger>,
    pub(super) desk: Desk,
    secondaries: Vec<(Secondary, Option<UnixSeconds>)>,
    tells: Vec<(Name, notify::Secondary)>,
    counts: Counts,
}

impl Peers {
    /// Reads the keys and what is kept of the zones; the zones of `served` are the ledger's from here on. Gives the
    /// queue for the desk's thread as well.
    ///
    /// # Errors
    /// A key that cannot be read, or a zone's state.
    pub(super) fn open(peak: &Peak, served: &Served, registry: &Registry) -> Result<(Self, Queue), PeersError> {
        let keys = Arc::new(peak.keys.iter().map(key).collect::<Result<Keys, _>>()?);
        let counts = Counts::new(registry);
        let configured: Vec<(Name, Holding)> =
            peak.zones.iter().map(|zone| (zone.name.clone(), holding(zone))).collect();
        let by_flag = served.load();
        let by_flag = by_flag.iter().map(|zone| zone.apex().clone());
        let by_flag = by_flag.filter(|apex| !configured.iter().any(|(name, _)| name == apex));
        let holdings: Vec<(Name, Holding)> =
            by_flag.map(|apex| (apex, Holding::File)).chain(configured.iter().cloned()).collect();
        let folder = peak.state.as_ref().map(|folder| folder.0.clone());
        let (ledger, confirmed) = Ledger::open(served, &holdings, folder)?;
        let ledger = Arc::new(ledger);
        let (secondaries, wakers) = secondaries(peak, &keys, &ledger, &counts, &confirmed, served);
        let tells = tells(peak, &keys);
        let policies = policies(peak);
        let (desk, queue) =
            desk::furnish(Furnishing { ledger: Arc::clone(&ledger), keys, policies, wakers, counts: counts.clone() });
        Ok((Self { ledger, desk, secondaries, tells, counts }, queue))
    }

    /// Starts the tasks; they end with the runtime. Gives what reloading needs.
    pub(super) fn start(self) -> Arc<Ledger> {
        for (secondary, confirmed) in self.secondaries {
            tokio::spawn(secondary.run(confirmed));
        }
        for (apex, secondary) in self.tells {
            tokio::spawn(notify::tell(apex, secondary, Arc::clone(&self.ledger), self.counts.clone()));
        }
        self.ledger
    }
}

fn key(key: &peak::Key) -> Result<Arc<Key>, PeersError> {
    let peak::Key { name, algorithm, secret_file: file } = key;
    let text = std::fs::read_to_string(file).map_err(|cause| PeersError::Secret {
        name: name.clone(),
        file: file.clone(),
        cause,
    })?;
    let secret =
        STANDARD.decode(text.trim()).map_err(|_| PeersError::Base64 { name: name.clone(), file: file.clone() })?;
    let algorithm = match algorithm {
        KeyAlgorithm::Sha256 => Algorithm::Sha256,
        KeyAlgorithm::Sha384 => Algorithm::Sha384,
        KeyAlgorithm::Sha512 => Algorithm::Sha512,
    };
    Key::new(name, algorithm, &secret).map(Arc::new).map_err(|cause| PeersError::Key { name: name.clone(), cause })
}

fn find(keys: &Keys, peer: &peak::Peer) -> Option<Arc<Key>> {
    peer.key.as_ref().and_then(|name| keys.find(name)).cloned()
}

fn holding(zone: &peak::Zone) -> Holding {
    if zone.replicated {
        Holding::Replicated
    } else if !zone.primaries.is_empty() {
        Holding::Transferred
    } else if zone.allow_update.is_empty() {
        Holding::File
    } else {
        Holding::Updated
    }
}

/// Who may do what; empty when nobody may anything, so that the server can say that it does no such thing.
fn policies(peak: &Peak) -> HashMap<Name, Policy> {
    let is_open = |zone: &peak::Zone| {
        let lists = [zone.primaries.len(), zone.secondaries.len(), zone.allow_transfer.len(), zone.allow_update.len()];
        lists.into_iter().any(|length| length > 0)
    };
    if !peak.zones.iter().any(is_open) {
        return HashMap::new();
    }
    peak.zones.iter().map(|zone| (zone.name.clone(), Policy::of(zone))).collect()
}

/// The address that other servers know us by: the one we listen on, unless that is all of them.
fn source(peak: &Peak) -> Option<IpAddr> {
    Some(peak.listen.ip()).filter(|ip| !ip.is_unspecified())
}

/// Who is told of which zone's changes.
fn tells(peak: &Peak, keys: &Keys) -> Vec<(Name, notify::Secondary)> {
    let secondary =
        |peer: &peak::Peer| notify::Secondary { address: peer.address.0, source: source(peak), key: find(keys, peer) };
    let of = |zone: &peak::Zone| -> Vec<_> {
        zone.secondaries.iter().map(|peer| (zone.name.clone(), secondary(peer))).collect()
    };
    peak.zones.iter().flat_map(of).collect()
}

type Wakers = HashMap<Name, mpsc::Sender<()>>;

fn secondaries(
    peak: &Peak,
    keys: &Keys,
    ledger: &Arc<Ledger>,
    counts: &Counts,
    confirmed: &BTreeMap<String, UnixSeconds>,
    served: &Served,
) -> (Vec<(Secondary, Option<UnixSeconds>)>, Wakers) {
    let (mut secondaries, mut wakers) = (Vec::new(), Wakers::new());
    for zone in peak.zones.iter().filter(|zone| !zone.primaries.is_empty()) {
        let (waker, woken) = mpsc::channel(1);
        wakers.insert(zone.name.clone(), waker);
        let primary =
            |peer: &peak::Peer| Primary { address: peer.address.0, source: source(peak), key: find(keys, peer) };
        let secondary = Secondary {
            apex: zone.name.clone(),
            primaries: zone.primaries.iter().map(primary).collect(),
            ledger: Arc::clone(ledger),
            seed: served.load().seed(),
            counts: counts.clone(),
            woken,
        };
        let confirmed = confirmed.get(&zone.name.to_lowercase().to_string()).copied();
        secondaries.push((secondary, confirmed));
    }
    (secondaries, wakers)
}
