//! Starting what talks with other servers and with updaters: keys, the ledger, the desk, and a task for each secondary
//! of ours and for each zone we are secondary of.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::desk::counts::Counts;
use super::desk::policy::Policy;
use super::desk::{self, Desk, Furnishing, Queue};
use super::dns::Served;
use super::exchange::Peer;
use super::keys::{self, KeyError, Keyring};
use super::ledger::{Holding, KeepError, Ledger};
use super::notify;
use super::secondary::Secondary;
use crate::config::peak::{self, Peak};
use crate::model::{Name, UnixSeconds};
use crate::ops::metrics::{Counters, Registry};

/// Why Peak cannot talk with others.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeersError {
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What is kept of a zone.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// What talks with others.
pub(super) struct Peers {
    pub(super) ledger: Arc<Ledger>,
    keyring: Arc<Keyring>,
    /// Keeps the keyring to its files.
    following: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) desk: Desk,
    secondaries: Vec<(Secondary, Option<UnixSeconds>)>,
    tells: Vec<(Name, Peer)>,
    counts: Counts,
}

impl Peers {
    /// Reads the keys and what is kept of the zones; the zones of `served` are the ledger's from here on. Gives the
    /// queue for the desk's thread as well.
    ///
    /// # Errors
    /// A key that cannot be read, or a zone's state.
    pub(super) fn open(
        peak: &Peak,
        served: &Served,
        registry: &Registry,
        reloads: &Counters<keys::Outcome>,
    ) -> Result<(Self, Queue), PeersError> {
        let (keyring, following) = Keyring::open(&peak.keys, reloads)?;
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
        let (secondaries, wakers) = secondaries(peak, &keyring, &ledger, &counts, &confirmed, served);
        let tells = tells(peak, &keyring);
        let policies = policies(peak);
        let primaries = secondaries.iter().map(|(it, _)| (it.apex.clone(), it.primaries.clone())).collect();
        let (desk, queue) = desk::furnish(Furnishing {
            ledger: Arc::clone(&ledger),
            keyring: Arc::clone(&keyring),
            policies,
            primaries,
            wakers,
            counts: counts.clone(),
            transfers: peak.transfers,
        });
        Ok((Self { ledger, keyring, following: Box::pin(following), desk, secondaries, tells, counts }, queue))
    }

    /// Starts the tasks; they end with the runtime. Gives what reloading needs.
    pub(super) fn start(self) -> (Arc<Ledger>, Arc<Keyring>) {
        tokio::spawn(self.following);
        for (secondary, confirmed) in self.secondaries {
            tokio::spawn(secondary.run(confirmed));
        }
        for (apex, secondary) in self.tells {
            tokio::spawn(notify::tell(apex, secondary, Arc::clone(&self.ledger), self.counts.clone()));
        }
        (self.ledger, self.keyring)
    }
}

fn server(peak: &Peak, keyring: &Arc<Keyring>, peer: &peak::Peer) -> Peer {
    let key = peer.key.as_ref().and_then(|name| keyring.named(name));
    Peer { address: peer.address.0, source: source(peak), key }
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
fn tells(peak: &Peak, keyring: &Arc<Keyring>) -> Vec<(Name, Peer)> {
    let of = |zone: &peak::Zone| -> Vec<_> {
        zone.secondaries.iter().map(|peer| (zone.name.clone(), server(peak, keyring, peer))).collect()
    };
    peak.zones.iter().flat_map(of).collect()
}

type Wakers = HashMap<Name, mpsc::Sender<()>>;

fn secondaries(
    peak: &Peak,
    keyring: &Arc<Keyring>,
    ledger: &Arc<Ledger>,
    counts: &Counts,
    confirmed: &BTreeMap<String, UnixSeconds>,
    served: &Served,
) -> (Vec<(Secondary, Option<UnixSeconds>)>, Wakers) {
    let (mut secondaries, mut wakers) = (Vec::new(), Wakers::new());
    for zone in peak.zones.iter().filter(|zone| !zone.primaries.is_empty()) {
        let (waker, woken) = mpsc::channel(1);
        wakers.insert(zone.name.clone(), waker);
        let secondary = Secondary {
            apex: zone.name.clone(),
            primaries: zone.primaries.iter().map(|peer| server(peak, keyring, peer)).collect(),
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
