//! Zones and records over HTTP: looking at them, changing them.

use std::sync::Arc;

use super::access::Need;
use super::refusal::Refusal;
use super::route::{Answered, Call, Reply, Routes};
use crate::model::Name;
use crate::model::registry::{Applied, Command, Op, Reads, Refused, RequestId, Step, ZoneUpdate};
use crate::model::zone::{Entry, Fault, Seed, Zone};
use crate::peak::dns::Served;
use crate::peak::store::Store;
use crate::wire::api::{
    Batch, Changed, Changes, Outcome, RecordSet, Records, ZoneInfo, ZoneList, ZonePatch, request_number,
};
use crate::wire::dns::{Type, zonefile};

/// The TTL of a set that is new and for which none was given, in seconds.
const USUAL_TTL: u32 = 300;

/// The media type of zone files (RFC 4027).
const ZONE_FILE: &str = "text/dns";

/// What zones are answered from, and changed by.
#[derive(Clone, Debug)]
pub(super) struct Zones {
    pub(super) store: Store,
    pub(super) served: Served,
}

/// The paths that zones and records have.
pub(super) fn routes(zones: &Zones) -> Routes {
    let on = || zones.clone();
    let (all, put, remove, patch) = (on(), on(), on(), on());
    let (records, file, change) = (on(), on(), on());
    Routes::default()
        .on("GET", "/v1/zones", Need::Read, move |_| std::future::ready(Ok(all.all())))
        .on("PUT", "/v1/zones/{zone}", Need::Admin, move |call| put.clone().put(call))
        .on("DELETE", "/v1/zones/{zone}", Need::Admin, move |call| remove.clone().remove(call))
        .on("PATCH", "/v1/zones/{zone}", Need::Admin, move |call| patch.clone().patch(call))
        .on("GET", "/v1/zones/{zone}/records", Need::Read, move |call| records.clone().records(call))
        .on("GET", "/v1/zones/{zone}/file", Need::Read, move |call| file.clone().file(call))
        .on("POST", "/v1/changes", Need::Write, move |call| change.clone().change(call))
}

impl Zones {
    fn all(&self) -> Reply {
        let served = self.served.load();
        let mut zones: Vec<ZoneInfo> = self.store.read(|registry| {
            let told = |zone: &Zone| {
                let held = registry.zone(zone.apex());
                ZoneInfo {
                    name: zone.apex().to_string(),
                    serial: zone.serial(),
                    names: zone.len() as u64,
                    replicated: held.is_some(),
                    reads: held.map(|held| reads_word(held.reads()).to_owned()),
                }
            };
            // What the registry has and is not shown yet will be in a moment.
            let shown = served.iter().filter(|zone| registry.zone(zone.apex()).is_none()).map(told);
            shown.chain(registry.zones().map(|held| told(held.zone()))).collect()
        });
        zones.sort_by(|one, other| one.name.cmp(&other.name));
        Reply::json(&ZoneList { zones })
    }

    /// The zone, as the registry has it, else as it is served.
    fn zone(&self, apex: &Name) -> Result<Arc<Zone>, Refusal> {
        let held = self.store.read(|registry| registry.zone(apex).map(|held| Arc::clone(held.zone())));
        held.or_else(|| self.served.load().zone(apex).cloned())
            .filter(|zone| zone.is_known())
            .ok_or_else(|| Refusal::NoZone(apex.clone()))
    }

    /// The zone in the path, after everything that was acknowledged before where `strict` asks for that.
    async fn asked(&self, call: &Call) -> Result<Arc<Zone>, Refusal> {
        let apex = apex(call.part())?;
        if call.switch("strict")? {
            self.store.read_index().await?;
        }
        self.zone(&apex)
    }

    async fn records(self, call: Call) -> Answered {
        let zone = self.asked(&call).await?;
        let name = match call.query.get("name").map(String::as_str) {
            None => None,
            Some("@") => Some(zone.apex().clone()),
            Some(text) => {
                Some(Name::parse(text, zone.apex()).map_err(|_| Refusal::Query { name: "name", expected: "a name" })?)
            }
        };
        let rtype = match call.query.get("type").map(|text| text.parse::<Type>()) {
            None => None,
            Some(Ok(rtype)) => Some(rtype),
            Some(Err(_)) => return Err(Refusal::Query { name: "type", expected: "a type of records" }),
        };
        let records = move || {
            let sets = RecordSet::of_zone(&zone, name.as_ref(), rtype);
            Reply::json(&Records { zone: zone.apex().to_string(), serial: zone.serial(), sets })
        };
        aside(records).await
    }

    async fn file(self, call: Call) -> Answered {
        let zone = self.asked(&call).await?;
        let text = move || {
            let sets = RecordSet::of_zone(&zone, None, None);
            // A zone file begins with its SOA (RFC 1035 §5.2).
            let (soa, others): (Vec<_>, Vec<_>) = sets.iter().partition(|set| set.rtype == "SOA");
            let text: String = soa.into_iter().chain(others).map(RecordSet::lines).collect();
            Reply::typed(ZONE_FILE, text)
        };
        aside(text).await
    }

    async fn change(self, call: Call) -> Answered {
        let batch: Batch = serde_json::from_slice(&call.body).map_err(Refusal::Json)?;
        let mut updates = Vec::with_capacity(batch.zones.len());
        for (index, changes) in batch.zones.iter().enumerate() {
            updates.push(self.update(&call, index, changes)?);
        }
        let zones: Vec<Name> = updates.iter().map(|update| update.zone.clone()).collect();
        let steps = if batch.dry_run {
            self.rehearse(&updates)?
        } else {
            let request = request(&call)?;
            tracing::debug!(caller = call.permit.who(), zones = zones.len(), "records are changed");
            steps(self.store.propose(Command { request, op: Op::Update(updates) }).await??)
        };
        let zones = zones.iter().zip(steps).map(|(zone, step)| told(zone, step)).collect();
        Ok(Reply::json(&Outcome { zones, dry_run: batch.dry_run }))
    }

    fn update(&self, call: &Call, index: usize, changes: &Changes) -> Result<ZoneUpdate, Refusal> {
        let zone = apex(&changes.zone)?;
        call.permit.changes(&zone)?;
        let held = self.store.read(|registry| registry.zone(&zone).map(|held| Arc::clone(held.zone())));
        let Some(held) = held else {
            let served = self.served.load().zone(&zone).is_some();
            return Err(if served { Refusal::NotReplicated(zone) } else { Refusal::NoZone(zone) });
        };
        // Only a usual value: the command says it, so every node takes the same.
        let usual_ttl = |name: &Name, rtype: Type| {
            held.node(name).and_then(|node| node.set(rtype.0)).map_or(USUAL_TTL, |set| set.ttl())
        };
        let update = changes.update(&zone, usual_ttl).map_err(|fault| Refusal::Fault { zone: index, fault })?;
        Ok(ZoneUpdate { zone, update })
    }

    /// What would come of the updates, by what this node has.
    fn rehearse(&self, updates: &[ZoneUpdate]) -> Result<Vec<Step>, Refusal> {
        let mut drafts: Vec<Arc<Zone>> = Vec::new();
        let mut steps = Vec::with_capacity(updates.len());
        for (index, ZoneUpdate { zone: apex, update }) in updates.iter().enumerate() {
            let at = drafts.iter().position(|draft| draft.apex() == apex);
            let zone = at.map_or_else(|| self.zone(apex), |at| Ok(Arc::clone(&drafts[at])))?;
            let refused = |cause| Refused::Update { index: index as u32, zone: apex.clone(), cause };
            let updated = zone.update(update).map_err(refused)?;
            steps.push(Step { serial: updated.zone.serial(), changed: updated.delta.is_some() });
            match at {
                Some(at) => drafts[at] = Arc::new(updated.zone),
                None => drafts.push(Arc::new(updated.zone)),
            }
        }
        Ok(steps)
    }

    /// Takes a zone file: a new zone, or other contents of one that is there.
    async fn put(self, call: Call) -> Answered {
        let apex = apex(call.part())?;
        let dry_run = call.switch("dry_run")?;
        let reads = match call.query.get("reads") {
            None => Reads::Available,
            Some(word) => reads(word).ok_or(Refusal::Query { name: "reads", expected: "available or strict" })?,
        };
        let held = self.store.read(|registry| registry.zone(&apex).map(|held| Arc::clone(held.zone())));
        if held.is_none() && self.served.load().zone(&apex).is_some() {
            return Err(Refusal::NotReplicated(apex));
        }
        let (name, body, seed) = (apex.clone(), call.body.clone(), self.served.load().seed());
        let (entries, zone) = aside(move || read_zone(&name, seed, &body)).await??;
        if dry_run {
            let changed = held.as_ref().is_none_or(|held| {
                held.difference(&zone).is_none_or(|delta| !delta.added.is_empty() || !delta.removed.is_empty())
            });
            let step = Step { serial: held.map_or(zone.serial(), |held| held.serial()), changed };
            return Ok(Reply::json(&Outcome { zones: vec![told(&apex, step)], dry_run }));
        }
        let (op, status) = match held {
            Some(_) => (Op::Import { apex: apex.clone(), entries }, 200),
            None => (Op::Create { apex: apex.clone(), reads, entries }, 201),
        };
        let applied = self.store.propose(Command { request: request(&call)?, op }).await??;
        tracing::info!(zone = %apex, caller = call.permit.who(), "zone taken in");
        let zones = steps(applied).into_iter().map(|step| told(&apex, step)).collect();
        Ok(Reply::json(&Outcome { zones, dry_run }).status(status))
    }

    async fn remove(self, call: Call) -> Answered {
        let apex = apex(call.part())?;
        let op = Op::Remove { apex: apex.clone() };
        self.store.propose(Command { request: request(&call)?, op }).await??;
        tracing::info!(zone = %apex, caller = call.permit.who(), "zone let go");
        Ok(Reply::json(&Outcome { zones: Vec::new(), dry_run: false }))
    }

    async fn patch(self, call: Call) -> Answered {
        let apex = apex(call.part())?;
        let patch: ZonePatch = serde_json::from_slice(&call.body).map_err(Refusal::Json)?;
        let reads = reads(&patch.reads).ok_or(Refusal::Query { name: "reads", expected: "available or strict" })?;
        let op = Op::Reads { apex: apex.clone(), reads };
        let applied = self.store.propose(Command { request: request(&call)?, op }).await??;
        let zones = steps(applied).into_iter().map(|step| told(&apex, step)).collect();
        Ok(Reply::json(&Outcome { zones, dry_run: false }))
    }
}

/// Does what may take a while where nobody waits for the thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Broken)
}

fn apex(text: &str) -> Result<Name, Refusal> {
    text.parse().map_err(|_| Refusal::ZoneName(text.to_owned()))
}

fn request(call: &Call) -> Result<Option<RequestId>, Refusal> {
    let number = call.key.as_ref().map(|key| request_number(call.permit.who(), key)).transpose()?;
    Ok(number.map(RequestId))
}

fn steps(applied: Applied) -> Vec<Step> {
    match applied {
        Applied::Zones(steps) => steps,
        Applied::Removed | Applied::Leases(_) => Vec::new(),
    }
}

fn told(zone: &Name, Step { serial, changed }: Step) -> Changed {
    Changed { zone: zone.to_string(), serial, changed }
}

const fn reads_word(reads: Reads) -> &'static str {
    match reads {
        Reads::Available => "available",
        Reads::Strict => "strict",
    }
}

fn reads(word: &str) -> Option<Reads> {
    [Reads::Available, Reads::Strict].into_iter().find(|reads| reads_word(*reads) == word)
}

/// Reads a zone file and looks whether it makes a zone, so that all of its faults are told.
fn read_zone(apex: &Name, seed: Seed, text: &[u8]) -> Result<(Vec<Entry>, Zone), Refusal> {
    let text = std::str::from_utf8(text).map_err(|error| Refusal::ZoneFile(error.to_string()))?;
    let all = |faults: Vec<String>| Refusal::ZoneFile(faults.join("\n"));
    let located = zonefile::parse_located(text, apex)
        .map_err(|errors| all(errors.into_iter().map(|error| error.to_string()).collect()))?;
    let entry = |record: &crate::wire::dns::Record| Entry {
        name: record.name.clone(),
        rtype: record.rtype.0,
        ttl: record.ttl,
        rdata: record.rdata.clone(),
    };
    let entries: Vec<Entry> = located.iter().map(|located| entry(&located.record)).collect();
    let told = |Fault { entry, cause }: Fault| match entry.and_then(|entry| located.get(entry)) {
        Some(at) => format!("line {}, column {}: {cause}", at.line, at.column),
        None => cause.to_string(),
    };
    let loaded = Zone::load(apex, seed, &entries).map_err(|faults| all(faults.into_iter().map(told).collect()))?;
    Ok((entries, loaded.zone))
}
