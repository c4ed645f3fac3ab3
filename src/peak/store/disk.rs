//! What the store wants of a disk, and the disk of this machine.
//!
//! The store writes through this door alone, so that a test can stand in for the disk: one that is full, that is slow,
//! or that loses what was not synced.
//!
//! A sync may take seconds where others write much. The thread that waits for it may be the one that hears the network and
//! the time for all, and signs of life would wait with it: what may wait for a disk while the node serves does so [`aside`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Does what waits for the disk, while another thread does what else there is.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    // Where there is one thread, as in a simulated life, nobody else is there.
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread { work() } else { block_in_place(work) }
}

/// A folder of files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The names of all files, in no meaningful order.
    ///
    /// # Errors
    /// The system's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file; none when it is not there and not to be made.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// Gives the file another name, in the place of what has it; durable when this returns.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes the file away; it may be back after a power failure.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of new files durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_names(&self) -> io::Result<()>;

    /// The file's place, for people.
    fn place(&self, name: &str) -> PathBuf;
}

/// An open file.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in octets.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> io::Result<u64>;

    /// Fills the buffer with what stands at `at`.
    ///
    /// # Errors
    /// The system's, and `UnexpectedEof`.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all octets at `at`; durable once synced.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, at: u64, octets: &[u8]) -> io::Result<()>;

    /// Waits until the disk has everything that was written.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of this machine.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Box<dyn DiskFile>>> {
        let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(self.place(name));
        match opened {
            Ok(file) => Ok(Some(Box::new(Real(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.place(from), self.place(to))?;
        self.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.place(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[derive(Debug)]
struct Real(File);

impl DiskFile for Real {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.0.write_all_at(octets, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Files in memory, for a node that has no folder: they end with the program. Clones are the same files.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, MemoryFile>>>);

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl Disk for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Box<dyn DiskFile>>> {
        let mut files = self.0.lock();
        let file = if create { Some(files.entry(name.to_owned()).or_default()) } else { files.get_mut(name) };
        Ok(file.map(|file| Box::new(file.clone()) as Box<dyn DiskFile>))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let (octets, at) = (self.0.lock(), at as usize);
        let from = octets.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let (mut held, at) = (self.0.lock(), at as usize);
        let end = at + octets.len();
        if held.len() < end {
            held.resize(end, 0);
        }
        held[at..end].copy_from_slice(octets);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
