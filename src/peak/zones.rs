//! Zones from zone files: read, checked, and served in the place of what was served before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::dns::Served;
use crate::model::Name;
use crate::model::zone::{Entry, Fault, Loaded, Seed, Zone, ZoneFault, ZoneWarning, Zones};
use crate::net::sys::heap;
use crate::ops::metrics::{Counters, Kind, Registry, labels};
use crate::wire::dns::zonefile::{self, Located, ZoneFileError};

labels! {
    /// How reading a zone file again ended.
    pub(super) enum Outcome: "outcome" {
        /// The zone is served as the file has it.
        Loaded = "loaded",
        /// The zone is served as before.
        Faulty = "faulty",
        /// The zone is served as before: updates have made something newer of it than the file is.
        Older = "older",
    }
}

/// Where a zone comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ZoneSource {
    pub(super) apex: Name,
    pub(super) file: PathBuf,
}

/// A line and a column, from 1.
type Spot = (u32, u32);

/// What is wrong with a zone file, all of it.
#[derive(Debug)]
pub(super) struct ZoneFaults {
    file: PathBuf,
    faults: Vec<FileFault>,
}

#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error(": cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error(":{}:{}: {}", .0.line, .0.column, .0.cause)]
    Text(ZoneFileError),
    #[error("{}: {cause}", place(*.spot))]
    Zone { spot: Option<Spot>, cause: ZoneFault },
}

fn place(spot: Option<Spot>) -> String {
    spot.map_or(String::new(), |(line, column)| format!(":{line}:{column}"))
}

impl fmt::Display for ZoneFaults {
    /// A line for each fault, `file:line:column: cause`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index + 1 < self.faults.len() { "\n" } else { "" };
            write!(f, "{}{fault}{end}", self.file.display())?;
        }
        Ok(())
    }
}

impl ZoneFaults {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }
}

/// Reads the zone; what is only odd is logged.
///
/// # Errors
/// All that is wrong with the file.
pub(super) fn load(source: &ZoneSource, seed: Seed) -> Result<Arc<Zone>, ZoneFaults> {
    let failed = |faults| ZoneFaults { file: source.file.clone(), faults };
    let text = std::fs::read(&source.file)
        .and_then(|octets| String::from_utf8(octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
        .map_err(|error| failed(vec![FileFault::Unreadable(error)]))?;
    let (mut entries, mut spots) = (Vec::new(), Vec::new());
    let take = |Located { record, line, column }| {
        entries.push(Entry { name: record.name, rtype: record.rtype.0, ttl: record.ttl, rdata: record.rdata });
        spots.push((line, column));
    };
    zonefile::parse_each(&text, &source.apex, take)
        .map_err(|errors| failed(errors.into_iter().map(FileFault::Text).collect()))?;
    drop(text);
    let loaded = made(source, seed, &entries, &spots).map_err(failed);
    drop((entries, spots));
    // Of a large zone the records as they were read take as much as the zone itself.
    heap::trim();
    loaded
}

fn made(source: &ZoneSource, seed: Seed, entries: &[Entry], spots: &[Spot]) -> Result<Arc<Zone>, Vec<FileFault>> {
    let spot = |entry: usize| spots.get(entry).copied();
    match Zone::load(&source.apex, seed, entries) {
        Ok(Loaded { zone, warnings }) => {
            for (entry, warning) in &warnings {
                warn(&source.file, spot(*entry), warning);
            }
            Ok(Arc::new(zone))
        }
        Err(faults) => {
            let at = |Fault { entry, cause }| FileFault::Zone { spot: entry.and_then(spot), cause };
            Err(faults.into_iter().map(at).collect())
        }
    }
}

fn warn(file: &Path, spot: Option<Spot>, warning: &ZoneWarning) {
    tracing::warn!("{}{}: {warning}", file.display(), place(spot));
}

/// Registers what is known of the zones served; gives the counter of files read again.
pub(super) fn register(registry: &Registry, served: &Served) -> Counters<Outcome> {
    let gauge = |name, help, read: fn(&Zone) -> f64| {
        let served = Arc::clone(served);
        registry.sampled(name, help, Kind::Gauge, &["zone"], move |samples| {
            for zone in sorted(&served.load()) {
                samples.put(&[&zone.apex().to_string()], read(zone));
            }
        });
    };
    gauge("funicular_dns_zone_serial", "The serial number in the SOA record.", |zone| f64::from(zone.serial()));
    gauge("funicular_dns_zone_names", "Names that have records or lie above one that has.", |zone| zone.len() as f64);
    registry.counters("funicular_dns_zone_reloads_total", "Zone files read again, by outcome.")
}

/// The zones served, for people and programs.
pub(super) fn list(zones: &Zones) -> Value {
    let told = |zone: &Zone| json!({ "name": zone.apex().to_string(), "serial": zone.serial(), "names": zone.len() });
    sorted(zones).into_iter().map(told).collect()
}

fn sorted(zones: &Zones) -> Vec<&Zone> {
    let mut zones: Vec<&Zone> = zones.iter().collect();
    zones.sort_by_cached_key(|zone| zone.apex().to_lowercase().to_string());
    zones
}
