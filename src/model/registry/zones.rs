//! What commands do to zones.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Applied, Effect, Held, Reads, Refused, Registry, Reply, Step, ZoneUpdate};
use crate::model::Name;
use crate::model::zone::{Change, Entry, Fault, Update, UpdateError, Zone, serial};

impl Registry {
    /// Makes all of the updates, or none.
    pub(super) fn update(&mut self, updates: &[ZoneUpdate], effects: &mut Vec<Effect>) -> Reply {
        // A single one that is refused has changed nothing; of several, those before it have.
        let zone = |update: &ZoneUpdate| self.zone(&update.zone).map(|held| Arc::clone(&held.zone));
        let before: Vec<Arc<Zone>> =
            if updates.len() > 1 { updates.iter().filter_map(zone).collect() } else { Vec::new() };
        let had = effects.len();
        let steps = updates.iter().enumerate().map(|(index, update)| self.make(index as u32, update, effects));
        let made = steps.collect::<Result<_, _>>();
        if made.is_err() {
            effects.truncate(had);
            before.into_iter().for_each(|zone| self.put(zone));
        }
        Ok(Applied::Zones(made?))
    }

    /// Makes one update.
    fn make(&mut self, index: u32, update: &ZoneUpdate, effects: &mut Vec<Effect>) -> Result<Step, Refused> {
        let ZoneUpdate { zone: apex, update } = update;
        let held = self.zones.get_mut(apex.to_lowercase().wire()).ok_or_else(|| Refused::NoZone(apex.clone()))?;
        let zone = Arc::make_mut(&mut held.zone);
        let refused = |cause: UpdateError| Refused::Update { index, zone: apex.clone(), cause };
        let delta = zone.make(&in_lower_case(update)).map_err(refused)?;
        let step = Step { serial: zone.serial(), changed: delta.is_some() };
        effects.extend(delta.map(Arc::new).map(Effect::Changed));
        Ok(step)
    }

    /// Shows a zone that is held with other contents.
    fn put(&mut self, zone: Arc<Zone>) {
        if let Some(held) = self.zones.get_mut(zone.apex().to_lowercase().wire()) {
            held.zone = zone;
        }
    }

    pub(super) fn create(&mut self, apex: &Name, reads: Reads, entries: &[Entry], effects: &mut Vec<Effect>) -> Reply {
        if self.zone(apex).is_some() {
            return Err(Refused::ZoneExists(apex.clone()));
        }
        let zone = self.load(apex, entries)?;
        let step = Step { serial: zone.serial(), changed: true };
        let held = Held::new(zone, reads);
        self.zones.insert(apex.to_lowercase().wire().into(), held.clone());
        effects.push(Effect::Held(held));
        Ok(Applied::Zones(vec![step]))
    }

    pub(super) fn import(&mut self, apex: &Name, entries: &[Entry], effects: &mut Vec<Effect>) -> Reply {
        let held = self.zone(apex).ok_or_else(|| Refused::NoZone(apex.clone()))?;
        let old = Arc::clone(&held.zone);
        let new = self.load(apex, entries)?;
        let faulty = || Refused::Faulty { zone: apex.clone(), faults: 1 };
        let mut delta = old.difference(&new).ok_or_else(faulty)?;
        if !serial::is_newer(delta.to(), delta.from()) {
            let same_soa = with_serial(&delta.new_soa, old.serial()) == delta.old_soa;
            if same_soa && delta.removed.is_empty() && delta.added.is_empty() {
                return Ok(Applied::Zones(vec![Step { serial: old.serial(), changed: false }]));
            }
            delta.new_soa = with_serial(&delta.new_soa, serial::next(old.serial()));
        }
        let zone = Arc::new(old.apply(&delta).map_err(|_| faulty())?);
        let step = Step { serial: zone.serial(), changed: true };
        self.put(zone);
        effects.push(Effect::Changed(Arc::new(delta)));
        Ok(Applied::Zones(vec![step]))
    }

    fn load(&self, apex: &Name, entries: &[Entry]) -> Result<Zone, Refused> {
        let lower = |entry: &Entry| Entry { name: entry.name.to_lowercase(), ..entry.clone() };
        let entries: Vec<Entry> = entries.iter().map(lower).collect();
        let faulty = |faults: Vec<Fault>| Refused::Faulty { zone: apex.clone(), faults: faults.len() as u32 };
        Ok(Zone::load(&apex.to_lowercase(), self.seed, &entries).map_err(faulty)?.zone)
    }

    pub(super) fn remove(&mut self, apex: &Name, effects: &mut Vec<Effect>) -> Reply {
        let held = self.zones.remove(apex.to_lowercase().wire()).ok_or_else(|| Refused::NoZone(apex.clone()))?;
        effects.push(Effect::Gone(held.zone.apex().clone()));
        Ok(Applied::Removed)
    }

    pub(super) fn set_reads(&mut self, apex: &Name, reads: Reads, effects: &mut Vec<Effect>) -> Reply {
        let held = self.zones.get_mut(apex.to_lowercase().wire()).ok_or_else(|| Refused::NoZone(apex.clone()))?;
        let changed = held.reads != reads;
        if changed {
            *held = Held::new(Zone::clone(&held.zone), reads);
            effects.push(Effect::Held(held.clone()));
        }
        Ok(Applied::Zones(vec![Step { serial: held.zone.serial(), changed }]))
    }
}

/// The update with its owners in lower case.
fn in_lower_case(update: &Update) -> Cow<'_, Update> {
    // Length octets are below 64, so an octet that is a capital letter stands in a label.
    let is_lower = |change: &Change| !change.name().wire().iter().any(u8::is_ascii_uppercase);
    if update.changes.iter().all(is_lower) {
        return Cow::Borrowed(update);
    }
    // Of every change: a draft spells a name as the first change that touches it does.
    let lower = |change: &Change| match change {
        Change::Add(entry) => Change::Add(Entry { name: entry.name.to_lowercase(), ..entry.clone() }),
        Change::RemoveRecord { name, rtype, rdata } => {
            Change::RemoveRecord { name: name.to_lowercase(), rtype: *rtype, rdata: rdata.clone() }
        }
        Change::RemoveSet(name, rtype) => Change::RemoveSet(name.to_lowercase(), *rtype),
        Change::RemoveName(name) => Change::RemoveName(name.to_lowercase()),
    };
    let changes = update.changes.iter().map(lower).collect();
    Cow::Owned(Update { prerequisites: update.prerequisites.clone(), changes })
}

/// The SOA record with another serial.
fn with_serial(soa: &Entry, serial: u32) -> Entry {
    let mut soa = soa.clone();
    // MNAME and RNAME, then five numbers, of which the serial is the first (RFC 1035 §3.3.13).
    if let Some(at) = soa.rdata.len().checked_sub(20) {
        soa.rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    }
    soa
}
