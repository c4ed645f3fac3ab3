//! The store as openraft wants it, and as a disk leaves it.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use openraft::storage::RaftLogStorage as _;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::folder;
use crate::peak::store::log::Log;
use crate::peak::store::machine::{Kept, Machine};
use crate::peak::store::types::{LogId, StorageError, TypeConfig, Vote};
use crate::peak::store::*;

fn machine(disk: Arc<dyn Disk>) -> Machine {
    Machine::open(disk, (Seed(1), SCHEMA), Arc::default(), Box::new(|_, _| {})).unwrap()
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let scratch = tempfile::tempdir().unwrap();
        let disk = folder(scratch.path());
        Ok((scratch, Log::open(Arc::clone(&disk)).unwrap(), machine(disk)))
    }
}

#[test]
fn the_store_does_all_that_openraft_asks_of_one() {
    Suite::test_all(Builder).unwrap();
}

fn vote(term: u64) -> Vote {
    Vote::new(term, 1)
}

/// The one file of the log in the folder.
fn log_file(path: &Path) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-")).unwrap()
}

/// A log in which these terms were voted for, one after another; where each frame begins and the last ends.
async fn voted(path: &Path, terms: std::ops::RangeInclusive<u64>) -> Vec<usize> {
    let mut log = Log::open(folder(path)).unwrap();
    let mut ends = vec![log.octets() as usize];
    for term in terms {
        log.save_vote(&vote(term)).await.unwrap();
        ends.push(log.octets().max(end_of(path) as u64) as usize);
    }
    ends
}

/// Where the zeros begin.
fn end_of(path: &Path) -> usize {
    let octets = std::fs::read(log_file(path)).unwrap();
    octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn a_frame_that_was_being_written_is_cut_off_and_the_log_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let ends = voted(scratch.path(), 1..=3).await;
    let whole = std::fs::read(log_file(scratch.path())).unwrap();
    // Every way in which the last frame can be half there.
    for torn in ends[2] + 1..ends[3] {
        let mut octets = whole.clone();
        octets[torn..].fill(0);
        if octets == whole {
            // The frame ends in zeros, and nothing is missing.
            break;
        }
        std::fs::write(log_file(scratch.path()), &octets).unwrap();
        let mut log = Log::open(folder(scratch.path())).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(2)), "torn at {torn}");
        log.save_vote(&vote(9)).await.unwrap();
        let mut again = Log::open(folder(scratch.path())).unwrap();
        assert_eq!(again.read_vote().await.unwrap(), Some(vote(9)), "torn at {torn}");
    }
    for length in [ends[3] - 1, ends[2] + 1, ends[2]] {
        std::fs::write(log_file(scratch.path()), &whole[..length]).unwrap();
        let mut log = Log::open(folder(scratch.path())).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(2)), "cut at {length}");
    }
}

#[tokio::test]
async fn damage_before_a_good_frame_is_refused_with_its_place() {
    let scratch = tempfile::tempdir().unwrap();
    let ends = voted(scratch.path(), 1..=3).await;
    let whole = std::fs::read(log_file(scratch.path())).unwrap();
    for at in ends[1]..ends[2] {
        let mut octets = whole.clone();
        octets[at] ^= 0x10;
        std::fs::write(log_file(scratch.path()), &octets).unwrap();
        let fault = Log::open(folder(scratch.path())).unwrap_err();
        let damaged = matches!(fault, LogFault::Damaged { at: place, .. } if place == ends[1] as u64);
        assert!(damaged, "octet {at}: {fault}");
    }
}

#[tokio::test]
async fn the_log_lets_nothing_go_that_no_snapshot_on_disk_has() {
    let scratch = tempfile::tempdir().unwrap();
    let entry = |index| LogId::new(openraft::CommittedLeaderId::new(1, 1), index);
    let (told, kept) = watch::channel(Kept { last: Some(entry(4)), failed: false });
    let mut log = Log::open(folder(scratch.path())).unwrap();
    log.purge_only(kept);
    log.purge(entry(4)).await.unwrap();
    {
        let mut purged = std::pin::pin!(log.purge(entry(5)));
        assert!(purged.as_mut().now_or_never().is_none());
        told.send_replace(Kept { last: Some(entry(5)), failed: false });
        purged.await.unwrap();
    }
    told.send_replace(Kept { last: Some(entry(5)), failed: true });
    assert!(log.purge(entry(6)).await.is_err());
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(entry(5)));
}

#[tokio::test]
async fn a_snapshot_that_was_changed_or_cut_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = folder(scratch.path());
    let (head, registry) = machine(Arc::clone(&disk)).frozen();
    snapshot::write(&*disk, snapshot::CURRENT, &head, &registry).unwrap();
    let path = scratch.path().join(snapshot::CURRENT);
    let whole = std::fs::read(&path).unwrap();
    let opened = || Machine::open(folder(scratch.path()), (Seed(1), SCHEMA), Arc::default(), Box::new(|_, _| {}));
    assert!(opened().is_ok());
    for at in 0..whole.len() {
        let mut octets = whole.clone();
        octets[at] ^= 1;
        std::fs::write(&path, &octets).unwrap();
        assert!(opened().is_err(), "octet {at} was changed");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(opened().is_err(), "cut at {at}");
    }
}
