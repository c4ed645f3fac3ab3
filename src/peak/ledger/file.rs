//! The file in which a zone's changes are kept: appended to before anybody is told, written anew when it has grown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::zone::{Delta, Seed, Zone};
use crate::model::{Name, UnixSeconds};
use crate::wire::dns::state::{self, State, StateError};

/// Octets of changes that are never too many.
const FEW: u64 = 1 << 20;

/// Why a zone's state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::peak) enum KeepError {
    /// The system refuses.
    #[error("{path}: {cause}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What is there is no state of this zone. A copy of the file should be kept; without it, the zone starts from its
    /// zone file or its primary.
    #[error("{path}: {cause}; restore it, or move it away to start from the zone file or the primary",
        path = .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: StateError,
    },
    /// The records do not make a zone, or a change does not fit.
    #[error("{path}: its records and changes make no zone; restore it, or move it away", path = .path.display())]
    Zone {
        /// The file.
        path: PathBuf,
    },
    /// An earlier failure has left the file in a state that nothing can be added to.
    #[error("{path}: writing has failed before; start anew once the disk is well", path = .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

/// A zone's state on disk.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    file: File,
    octets: u64,
    base_octets: u64,
    broken: bool,
    confirmed: Option<UnixSeconds>,
}

/// What a file says.
pub(super) struct Kept {
    pub(super) file: StateFile,
    pub(super) zone: Zone,
    pub(super) deltas: Vec<Delta>,
    pub(super) confirmed: Option<UnixSeconds>,
}

/// The file of the zone at `apex` in `folder`.
pub(super) fn path(folder: &Path, apex: &Name) -> PathBuf {
    let mut name = String::new();
    for label in apex.to_lowercase().labels() {
        for &octet in label {
            match octet {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(octet)),
                _ => name.push_str(&format!("%{octet:02x}")),
            }
        }
        name.push('.');
    }
    folder.join(if name.is_empty() { "%.zone".to_owned() } else { format!("{name}zone") })
}

impl StateFile {
    /// Reads what was kept of the zone; none when nothing was.
    pub(super) fn open(path: &Path, apex: &Name, seed: Seed) -> Result<Option<Kept>, KeepError> {
        let failed = |cause| KeepError::File { path: path.to_owned(), cause };
        let octets = match fs::read(path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let State { base, deltas, confirmed, whole } =
            state::read(&octets, apex).map_err(|cause| KeepError::State { path: path.to_owned(), cause })?;
        let no_zone = || KeepError::Zone { path: path.to_owned() };
        let mut zone = Zone::received(apex, seed, &base).map_err(|_| no_zone())?.zone;
        for delta in &deltas {
            zone = zone.apply(delta).map_err(|_| no_zone())?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        if whole < octets.len() {
            tracing::warn!(file = %path.display(), octets = octets.len() - whole, "an unfinished change is cut off");
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let octets = whole as u64;
        let file = Self { path: path.to_owned(), file, octets, base_octets: octets, broken: false, confirmed };
        Ok(Some(Kept { file, zone, deltas, confirmed }))
    }

    /// Writes the zone as it is, in the place of whatever was kept of it before.
    pub(super) fn create(path: &Path, zone: &Zone, confirmed: Option<UnixSeconds>) -> Result<Self, KeepError> {
        let failed = |cause| KeepError::File { path: path.to_owned(), cause };
        let mut octets = state::base(zone.apex(), zone.soa().into_iter().chain(zone.entries()));
        if let Some(at) = confirmed {
            state::append_confirmed(at, &mut octets);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = || -> io::Result<File> {
            fs::create_dir_all(folder)?;
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&octets)?;
            file.sync_all()?;
            let file = OpenOptions::new().append(true).open(&new)?;
            fs::rename(&new, path)?;
            Ok(file)
        };
        let file = written().map_err(failed)?;
        // From here on the old file is gone, or will be back after a power failure: nothing may be added to either.
        let named = File::open(folder).and_then(|folder| folder.sync_all());
        named.map_err(|_| KeepError::Broken { path: path.to_owned() })?;
        let octets = octets.len() as u64;
        Ok(Self { path: path.to_owned(), file, octets, base_octets: octets, broken: false, confirmed })
    }

    /// Refuses to be added to from now on: what would be added does not follow what it has.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
    }

    /// Adds pieces and waits until the disk has them. Either all of them are there afterwards, or none.
    pub(super) fn append(&mut self, pieces: &[u8]) -> Result<(), KeepError> {
        if self.broken {
            return Err(KeepError::Broken { path: self.path.clone() });
        }
        if let Err(cause) = self.file.write_all(pieces).and_then(|()| self.file.sync_data()) {
            // What was not acknowledged must not come back after a restart. After a failed sync nobody knows what the
            // disk has: then only a restart reads it.
            let undone = self.file.set_len(self.octets).and_then(|()| self.file.sync_all());
            self.broken = undone.is_err();
            return Err(KeepError::File { path: self.path.clone(), cause });
        }
        self.octets += pieces.len() as u64;
        Ok(())
    }

    /// Whether the changes take more than the zone did.
    pub(super) fn has_grown(&self) -> bool {
        self.octets - self.base_octets > self.base_octets.max(FEW)
    }

    /// Notes that the zone is what its primary has, and waits until the disk knows.
    pub(super) fn confirm(&mut self, now: UnixSeconds) -> Result<(), KeepError> {
        self.confirmed = Some(now);
        let mut piece = Vec::new();
        state::append_confirmed(now, &mut piece);
        self.append(&piece)
    }

    /// When the zone was last known to be what its primary has.
    pub(super) fn confirmed(&self) -> Option<UnixSeconds> {
        self.confirmed
    }

    /// From now on nothing can be written.
    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_s_file_has_its_name_whatever_that_holds() {
        let file = |name: &str| path(Path::new("/s"), &name.parse().unwrap());
        assert_eq!(file("Shop.peak."), Path::new("/s/shop.peak.zone"));
        assert_eq!(file(r"a\/b\.c.peak."), Path::new("/s/a%2fb%2ec.peak.zone"));
        assert_eq!(file("."), Path::new("/s/%.zone"));
        assert_eq!(file(r"\..\.\..peak"), Path::new("/s/%2e.%2e%2e.peak.zone"));
    }
}
