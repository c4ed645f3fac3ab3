//! A disk that forgets what was not synced when its machine stops, tears what was being written, breaks in the middle
//! of a write, and fills up.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use funicular::peak::store::{Disk, DiskFile};
use parking_lot::Mutex;

use super::random::{below, chance};

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Contents {
    fn put(into: &mut Vec<u8>, at: usize, octets: &[u8]) {
        if into.len() < at + octets.len() {
            // Without optimisation this is many times faster than filling up what is there.
            let mut longer = vec![0; at + octets.len()];
            longer[..into.len()].copy_from_slice(into);
            *into = longer;
        }
        into[at..at + octets.len()].copy_from_slice(octets);
    }

    fn sync(&mut self) {
        for (at, octets) in self.pending.drain(..) {
            Self::put(&mut self.synced, at, &octets);
        }
    }

    /// Of what was not synced each sector is there, or not.
    fn lose_power(&mut self) {
        for (at, octets) in self.pending.drain(..) {
            let mut begin = 0;
            while begin < octets.len() {
                let end = octets.len().min(begin + SECTOR - (at + begin) % SECTOR);
                if chance(500) {
                    Self::put(&mut self.synced, at + begin, &octets[begin..end]);
                }
                begin = end;
            }
        }
        self.now.clone_from(&self.synced);
    }
}

/// When a machine stops by itself.
#[derive(Clone, Copy, Debug)]
struct Fuse {
    /// Writes and syncs until then.
    left: u64,
    /// Whether a sync that it stops at has still happened.
    after: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Who mounted the disk in an earlier life can do nothing with it.
    life: u64,
    broken: bool,
    full: bool,
    fuse: Option<Fuse>,
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    made: u64,
}

impl Inner {
    /// Whether the machine stops here; and if so, whether what it was about to do is done.
    fn burn(&mut self) -> Option<bool> {
        let fuse = self.fuse.as_mut()?;
        if fuse.left > 0 {
            fuse.left -= 1;
            return None;
        }
        self.broken = true;
        Some(fuse.after)
    }
}

fn off() -> io::Error {
    io::Error::other("the machine is off")
}

/// The disk of one machine; what it holds outlives the machine's lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Platter(Arc<Mutex<Inner>>);

impl Platter {
    /// The disk for this life of the machine.
    pub(super) fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(Mounted { platter: self.clone(), life: self.0.lock().life })
    }

    /// The machine will stop in the middle of one of its next writes.
    pub(super) fn light_fuse(&self) {
        self.0.lock().fuse = Some(Fuse { left: below(12), after: chance(500) });
    }

    /// Whether it has.
    pub(super) fn has_stopped(&self) -> bool {
        self.0.lock().broken
    }

    /// Whether nothing can be written.
    pub(super) fn is_full(&self) -> bool {
        self.0.lock().full
    }

    /// Nothing can be written, until something can.
    pub(super) fn fill(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// The machine stops, at once.
    pub(super) fn lose_power(&self) {
        let mut inner = self.0.lock();
        inner.life += 1;
        (inner.broken, inner.full, inner.fuse) = (false, false, None);
        if chance(500) {
            inner.names = inner.synced_names.clone();
        }
        inner.synced_names = inner.names.clone();
        let named: Vec<u64> = inner.names.values().copied().collect();
        inner.files.retain(|file, _| named.contains(file));
        inner.files.values_mut().for_each(Contents::lose_power);
    }
}

#[derive(Debug)]
struct Mounted {
    platter: Platter,
    life: u64,
}

impl Mounted {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.platter.0.lock();
        if inner.life != self.life || inner.broken { Err(off()) } else { act(&mut inner) }
    }
}

impl Disk for Mounted {
    fn names(&self) -> io::Result<Vec<String>> {
        self.with(|inner| Ok(inner.names.keys().cloned().collect()))
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Box<dyn DiskFile>>> {
        self.with(|inner| {
            let file = match inner.names.get(name) {
                Some(file) => *file,
                None if !create => return Ok(None),
                None => {
                    inner.made += 1;
                    inner.names.insert(name.to_owned(), inner.made);
                    inner.files.insert(inner.made, Contents::default());
                    inner.made
                }
            };
            let mounted = Self { platter: self.platter.clone(), life: self.life };
            Ok(Some(Box::new(Opened { mounted, file }) as Box<dyn DiskFile>))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|inner| {
            let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.names.insert(to.to_owned(), file);
            inner.synced_names = inner.names.clone();
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|inner| inner.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.with(|inner| {
            inner.synced_names = inner.names.clone();
            Ok(())
        })
    }

    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }
}

#[derive(Debug)]
struct Opened {
    mounted: Mounted,
    file: u64,
}

impl Opened {
    fn with<T>(&self, act: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        // A file whose name is gone can still be read and written by who has it open.
        self.mounted.with(|inner| act(inner.files.entry(self.file).or_default()))
    }
}

impl DiskFile for Opened {
    fn len(&self) -> io::Result<u64> {
        self.with(|contents| Ok(contents.now.len() as u64))
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(|contents| {
            let at = at as usize;
            let there = contents.now.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(there);
            Ok(())
        })
    }

    fn write(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let stops = self.mounted.with(|inner| {
            if inner.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let stops = inner.burn();
            let contents = inner.files.entry(self.file).or_default();
            Contents::put(&mut contents.now, at as usize, octets);
            contents.pending.push((at as usize, octets.to_vec()));
            Ok(stops)
        })?;
        if stops.is_some() { Err(off()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let stops = self.mounted.with(|inner| {
            let stops = inner.burn();
            if stops != Some(false) {
                inner.files.entry(self.file).or_default().sync();
            }
            Ok(stops)
        })?;
        if stops.is_some() { Err(off()) } else { Ok(()) }
    }
}
