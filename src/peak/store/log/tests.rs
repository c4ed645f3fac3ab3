//! A disk that lets the log wait.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftLogStorage as _;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::Log;
use crate::peak::store::disk::{Disk, DiskFile, Memory};
use crate::peak::store::types::Vote;

/// A folder whose files are synced when the test lets them.
#[derive(Debug)]
struct Slow(Arc<dyn Disk>, Arc<Mutex<()>>);

/// A file of such a folder.
#[derive(Debug)]
struct SlowFile(Box<dyn DiskFile>, Arc<Mutex<()>>);

impl Disk for Slow {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Box<dyn DiskFile>>> {
        let slow = |file| Box::new(SlowFile(file, Arc::clone(&self.1))) as Box<dyn DiskFile>;
        Ok(self.0.open(name, create)?.map(slow))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.place(name)
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(at, into)
    }

    fn write(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.0.write(at, octets)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.1.lock());
        self.0.sync()
    }
}

#[test]
fn time_goes_on_for_everybody_else_while_the_log_waits_for_its_disk() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let disk = Slow(Arc::new(Memory::default()), Arc::clone(&gate));
    let mut log = Log::open(Arc::new(disk)).unwrap();
    let (beat, beats) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        while beat.send(()).is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    let shut = gate.lock();
    let voted = runtime.spawn(async move { log.save_vote(&Vote::new(1, 1)).await.unwrap() });
    // More than can have been said before the one thread there is came to the vote.
    for _ in 0..300 {
        beats.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    assert!(!voted.is_finished());
    drop(shut);
    runtime.block_on(voted).unwrap();
}
