//! The one writer of the zones: whatever changes one goes through here.
//!
//! ```text
//!  updates ──┐
//!  transfers ┼─► new zone and delta ─► disk ─► journal, snapshot ─► whoever is to be told
//!  reload ───┘        (a value)       (fsync)  (what answers see)
//!  registry ──► (agreed on, kept by its log) ──────┘
//! ```
//!
//! Nothing is answered from a change, and nobody is told of it, before the disk has it (RFC 2136 §3.5). Updates that
//! are waiting together share one write. Readers of the zones and of the journal never wait for the disk.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use file::KeepError;

use super::dns::Served;
use crate::model::registry::{Effect, Registry};
use crate::model::zone::{Delta, DeltaError, Journal, Update, UpdateError, Updated, Zone, Zones, serial};
use crate::model::{Name, UnixSeconds};
use crate::wire::dns::state;
use file::StateFile;

/// Octets of changes that are kept in memory for each zone, for those who have an older version.
const JOURNAL: usize = 8 << 20;

/// How a zone is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Holding {
    /// From its zone file alone.
    File,
    /// From its zone file and updates.
    Updated,
    /// From primaries.
    Transferred,
    /// From the registry, which keeps it.
    Replicated,
}

/// Why an update was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmade {
    /// The zone refuses it.
    #[error(transparent)]
    Refused(#[from] UpdateError),
    /// The disk refuses it.
    #[error("the change could not be kept")]
    Unkept,
}

/// What became of an update.
pub(super) type Outcome = Result<Change, Unmade>;

/// Whether an update changed anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The zone has this serial now.
    Made(u32),
    /// What was asked for was so already.
    None,
}

/// A zone, and what led to it from an older version where that is known.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) zone: Arc<Zone>,
    pub(super) deltas: Option<Vec<Arc<Delta>>>,
}

/// The zones' writer.
#[derive(Debug)]
pub(super) struct Ledger {
    served: Served,
    folder: Option<PathBuf>,
    /// Held by whoever writes, from reading the zone to showing what became of it.
    files: Mutex<HashMap<Name, StateFile>>,
    /// Held for a moment, while a journal and the zones shown change together or are read together.
    journals: Mutex<HashMap<Name, Journal>>,
    /// Held while the zones shown are replaced by others.
    showing: Mutex<()>,
    /// The zones that this node has from elsewhere than the registry.
    own: HashSet<Name>,
    news: HashMap<Name, watch::Sender<u32>>,
}

impl Ledger {
    /// Takes over the zones in `served`. Those of `holdings` that are kept get what the disk has of them; one without
    /// any contents is there all the same, and unknown. Gives when each secondary zone was last confirmed.
    ///
    /// # Errors
    /// A state that cannot be read, or not be written.
    pub(super) fn open(
        served: &Served,
        holdings: &[(Name, Holding)],
        folder: Option<PathBuf>,
    ) -> Result<(Self, BTreeMap<String, UnixSeconds>), KeepError> {
        let mut ledger = Self {
            served: Arc::clone(served),
            folder,
            files: Mutex::default(),
            journals: Mutex::default(),
            showing: Mutex::default(),
            own: own(holdings),
            news: holdings.iter().map(|(apex, _)| (apex.clone(), watch::Sender::new(0))).collect(),
        };
        let mut confirmed = BTreeMap::new();
        for (apex, holding) in holdings {
            if let Some(at) = ledger.take_over(apex, *holding)? {
                confirmed.insert(apex.to_lowercase().to_string(), at);
            }
        }
        Ok((ledger, confirmed))
    }

    fn take_over(&mut self, apex: &Name, holding: Holding) -> Result<Option<UnixSeconds>, KeepError> {
        let zones = self.served.load_full();
        let loaded = zones.zone(apex).cloned();
        let unknown = || Arc::new(Zone::unknown(apex.clone(), zones.seed()));
        let path = self
            .folder
            .as_deref()
            .filter(|_| !matches!(holding, Holding::File | Holding::Replicated))
            .map(|folder| file::path(folder, apex));
        let Some(path) = path else {
            self.show(loaded.unwrap_or_else(unknown));
            return Ok(None);
        };
        let kept = StateFile::open(&path, apex, zones.seed())?;
        match (kept, loaded) {
            (Some(kept), Some(loaded)) if serial::is_newer(loaded.serial(), kept.zone.serial()) => {
                tracing::warn!(
                    zone = %apex, serial = loaded.serial(), updated = kept.zone.serial(),
                    "the zone file is newer than what updates made of it, and takes its place"
                );
                self.keep(path, loaded)?;
                Ok(None)
            }
            (Some(kept), _) => {
                let mut journal = Journal::new(JOURNAL);
                kept.deltas.into_iter().for_each(|delta| journal.push(Arc::new(delta)));
                self.journals.lock().insert(apex.clone(), journal);
                self.files.lock().insert(apex.clone(), kept.file);
                tracing::info!(zone = %apex, serial = kept.zone.serial(), "zone continued from what was kept");
                self.show(Arc::new(kept.zone));
                Ok(kept.confirmed)
            }
            (None, Some(loaded)) => self.keep(path, loaded).map(|()| None),
            (None, None) => {
                self.show(unknown());
                Ok(None)
            }
        }
    }

    fn keep(&self, path: PathBuf, zone: Arc<Zone>) -> Result<(), KeepError> {
        let file = StateFile::create(&path, &zone, None)?;
        self.files.lock().insert(zone.apex().clone(), file);
        self.show(zone);
        Ok(())
    }

    /// Makes these zones what answers see.
    fn show(&self, zone: Arc<Zone>) {
        self.show_all([zone]);
    }

    fn show_all(&self, changed: impl IntoIterator<Item = Arc<Zone>>) {
        self.show_and_hide(changed, &[]);
    }

    fn show_and_hide(&self, changed: impl IntoIterator<Item = Arc<Zone>>, gone: &[Name]) {
        let _showing = self.showing.lock();
        let mut zones = Zones::clone(&self.served.load());
        let mut news = Vec::new();
        for apex in gone {
            zones.remove(apex);
        }
        for zone in changed {
            if zone.is_known() {
                news.push((zone.apex().clone(), zone.serial()));
            }
            zones.insert(zone);
        }
        self.served.store(Arc::new(zones));
        for (apex, serial) in news {
            if let Some(news) = self.news.get(&apex) {
                news.send_if_modified(|told| std::mem::replace(told, serial) != serial);
            }
        }
    }

    /// The zone's serial whenever it changes.
    pub(super) fn news(&self, apex: &Name) -> Option<watch::Receiver<u32>> {
        self.news.get(apex).map(watch::Sender::subscribe)
    }

    /// The zone as it is shown.
    pub(super) fn zone(&self, apex: &Name) -> Option<Arc<Zone>> {
        self.served.load().zone(apex).cloned()
    }

    /// The zone, and its changes since the version with this serial.
    pub(super) fn version(&self, apex: &Name, since: Option<u32>) -> Option<Version> {
        let journals = self.journals.lock();
        let zone = self.zone(apex)?;
        let deltas = since.and_then(|serial| journals.get(apex)?.since(serial));
        Some(Version { zone, deltas })
    }

    /// Makes updates, in order, each all or nothing; gives what became of each. Blocks until the disk has them.
    pub(super) fn update(&self, updates: &[(Name, Update)]) -> Vec<Outcome> {
        let mut files = self.files.lock();
        let mut drafts: HashMap<&Name, Draft> = HashMap::new();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(updates.len());
        for (apex, update) in updates {
            let Some(zone) = drafts.get(apex).map(|draft| Arc::clone(&draft.zone)).or_else(|| self.zone(apex)) else {
                outcomes.push(Err(UpdateError::Unknown(apex.clone()).into()));
                continue;
            };
            outcomes.push(match zone.update(update) {
                Ok(Updated { zone, delta: Some(delta) }) => {
                    let serial = zone.serial();
                    let zone = Arc::new(zone);
                    let fresh = || Draft { zone: Arc::clone(&zone), deltas: Vec::new() };
                    let draft = drafts.entry(apex).or_insert_with(fresh);
                    draft.zone = Arc::clone(&zone);
                    draft.deltas.push(Arc::new(delta));
                    Ok(Change::Made(serial))
                }
                Ok(Updated { delta: None, .. }) => Ok(Change::None),
                Err(refused) => Err(refused.into()),
            });
        }
        let unkept: Vec<&Name> =
            drafts.keys().copied().filter(|apex| !write(&mut files, apex, &drafts[*apex].deltas)).collect();
        for ((apex, _), outcome) in updates.iter().zip(&mut outcomes) {
            if unkept.contains(&apex) && outcome.is_ok() {
                *outcome = Err(Unmade::Unkept);
            }
        }
        drafts.retain(|apex, _| !unkept.contains(apex));
        self.commit(drafts.into_iter().map(|(apex, draft)| (apex.clone(), draft)));
        outcomes
    }

    fn commit(&self, drafts: impl IntoIterator<Item = (Name, Draft)>) {
        let mut journals = self.journals.lock();
        let mut changed = Vec::new();
        for (apex, draft) in drafts {
            let journal = journals.entry(apex).or_insert_with(|| Journal::new(JOURNAL));
            draft.deltas.into_iter().for_each(|delta| journal.push(delta));
            changed.push(draft.zone);
        }
        if !changed.is_empty() {
            self.show_all(changed);
        }
    }

    /// Shows what these effects have made of the registry. Its zones are kept there, and nowhere else.
    pub(super) fn follow(&self, registry: &Registry, effects: Vec<Effect>) {
        let mut journals = self.journals.lock();
        // Few in a row of effects.
        let mut touched: Vec<Name> = Vec::new();
        for effect in effects {
            let apex = match &effect {
                Effect::Changed(delta) => delta.apex(),
                Effect::Held(held) => held.zone().apex(),
                Effect::Gone(apex) => apex,
            };
            if self.own.contains(apex) {
                tracing::warn!(zone = %apex, "the registry's zone is not shown: this node has one of that name itself");
                continue;
            }
            if !touched.contains(apex) {
                touched.push(apex.clone());
                journals.entry(apex.clone()).or_insert_with(|| Journal::new(JOURNAL));
            }
            let Some(journal) = journals.get_mut(apex) else { continue };
            match effect {
                Effect::Changed(delta) => journal.push(delta),
                Effect::Held(held) => {
                    // Of a zone that came as a whole nobody knows how it differs from what was there.
                    if self.zone(held.zone().apex()).is_none_or(|shown| shown.serial() != held.zone().serial()) {
                        journal.clear();
                    }
                }
                Effect::Gone(_) => journal.clear(),
            }
        }
        let (held, gone): (Vec<Name>, Vec<Name>) = touched.into_iter().partition(|apex| registry.zone(apex).is_some());
        gone.iter().for_each(|apex| drop(journals.remove(apex)));
        self.show_and_hide(held.iter().filter_map(|apex| Some(Arc::clone(registry.zone(apex)?.zone()))), &gone);
    }

    /// Whether the registry holds the zone, as far as this node knows.
    pub(super) fn is_replicated(&self, apex: &Name) -> bool {
        !self.own.contains(apex)
    }

    /// Writes those files anew that have grown too long. To be called when nobody waits.
    pub(super) fn tidy(&self) {
        let mut files = self.files.lock();
        for (apex, file) in files.iter_mut().filter(|(_, file)| file.has_grown()) {
            let Some(zone) = self.zone(apex) else { continue };
            match StateFile::create(file.path(), &zone, file.confirmed()) {
                Ok(new) => *file = new,
                Err(error) => {
                    tracing::error!(zone = %apex, %error, "the zone's state could not be written anew");
                    if matches!(error, KeepError::Broken { .. }) {
                        file.give_up();
                    }
                }
            }
        }
    }

    /// Applies differences that came from a primary. Blocks until the disk has them.
    ///
    /// # Errors
    /// The first difference that does not fit; then none of them was applied.
    pub(super) fn extend(&self, apex: &Name, deltas: Vec<Delta>, now: UnixSeconds) -> Result<Arc<Zone>, DeltaError> {
        let mut files = self.files.lock();
        let Some(mut zone) = self.zone(apex) else {
            return Err(DeltaError::Elsewhere { begins: 0, at: 0 });
        };
        for delta in &deltas {
            zone = Arc::new(zone.apply(delta)?);
        }
        let deltas: Vec<Arc<Delta>> = deltas.into_iter().map(Arc::new).collect();
        // A secondary that cannot write still serves: its primary has everything. What it has on disk is an older
        // version from then on, to which nothing may be added.
        if write(&mut files, apex, &deltas) {
            confirm(&mut files, apex, now);
        } else {
            files.remove(apex);
        }
        self.commit([(apex.clone(), Draft { zone: Arc::clone(&zone), deltas })]);
        Ok(zone)
    }

    /// Puts a whole zone in the place of what is shown: from a primary (`confirmed`), or from its file.
    pub(super) fn replace(&self, zone: Arc<Zone>, confirmed: Option<UnixSeconds>) {
        let mut files = self.files.lock();
        let apex = zone.apex().clone();
        let old = self.zone(&apex).filter(|old| old.is_known());
        let delta = old.as_ref().and_then(|old| old.difference(&zone));
        if let Some((old, delta)) = old.zip(delta.as_ref()).filter(|(old, _)| old.serial() == zone.serial()) {
            if confirmed.is_none() && old.soa() == zone.soa() && delta.removed.is_empty() && delta.added.is_empty() {
                return;
            }
            tracing::warn!(
                zone = %apex, serial = old.serial(),
                "the zone has changed and its serial has not: secondaries will not notice"
            );
        }
        let delta = delta.filter(|delta| serial::is_newer(delta.to(), delta.from()));
        let kept = files.get(&apex).map(|file| file.path().to_owned());
        let path = kept.or_else(|| Some(file::path(self.folder.as_deref().filter(|_| confirmed.is_some())?, &apex)));
        if let Some(path) = path {
            match StateFile::create(&path, &zone, confirmed) {
                Ok(file) => drop(files.insert(apex.clone(), file)),
                Err(error) => {
                    tracing::error!(zone = %apex, %error, "the zone could not be kept");
                    // Updates must not be added to what is there of an older version, nor be made without being kept.
                    files.entry(apex.clone()).and_modify(StateFile::give_up);
                }
            }
        }
        let mut journals = self.journals.lock();
        let journal = journals.entry(apex).or_insert_with(|| Journal::new(JOURNAL));
        match delta {
            Some(delta) => journal.push(Arc::new(delta)),
            None => journal.clear(),
        }
        self.show(zone);
    }

    /// Takes a zone that was read from its file again; false when what updates made of it is not older.
    pub(super) fn reload(&self, zone: Arc<Zone>) -> bool {
        let held = self.zone(zone.apex());
        let updated = self.files.lock().contains_key(zone.apex());
        if updated && held.is_some_and(|held| !serial::is_newer(zone.serial(), held.serial())) {
            return false;
        }
        self.replace(zone, None);
        true
    }

    /// Notes that the zone is what its primary has.
    pub(super) fn confirm(&self, apex: &Name, now: UnixSeconds) {
        confirm(&mut self.files.lock(), apex, now);
    }

    /// Shows the zone as unknown from now on: nobody has vouched for it for too long (RFC 1035 §3.3.13, EXPIRE).
    pub(super) fn expire(&self, apex: &Name) {
        let _writing = self.files.lock();
        let unknown = Zone::unknown(apex.clone(), self.served.load().seed());
        self.journals.lock().remove(apex);
        self.show(Arc::new(unknown));
    }
}

fn own(holdings: &[(Name, Holding)]) -> HashSet<Name> {
    let own = holdings.iter().filter(|(_, holding)| *holding != Holding::Replicated);
    own.map(|(apex, _)| apex.clone()).collect()
}

/// A zone on the way to its next version.
struct Draft {
    zone: Arc<Zone>,
    deltas: Vec<Arc<Delta>>,
}

/// Adds the changes to the zone's file, if it has one; whether they are kept as they should be.
fn write(files: &mut HashMap<Name, StateFile>, apex: &Name, deltas: &[Arc<Delta>]) -> bool {
    let Some(file) = files.get_mut(apex) else { return true };
    let mut pieces = Vec::new();
    deltas.iter().for_each(|delta| state::append_delta(delta, &mut pieces));
    is_kept(file.append(&pieces), apex)
}

fn confirm(files: &mut HashMap<Name, StateFile>, apex: &Name, now: UnixSeconds) {
    if let Some(file) = files.get_mut(apex) {
        is_kept(file.confirm(now), apex);
    }
}

fn is_kept(outcome: Result<(), KeepError>, apex: &Name) -> bool {
    if let Err(error) = &outcome {
        tracing::error!(zone = %apex, %error, "a change could not be kept");
    }
    outcome.is_ok()
}
