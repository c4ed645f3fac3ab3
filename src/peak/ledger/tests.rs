//! The zones' writer: what is kept, what is shown, what survives.

use std::fs;
use std::path::Path;

use arc_swap::ArcSwap;

use super::*;
use crate::model::zone::{Change as ZoneChange, Entry, Prerequisite, Seed};
use crate::wire::dns::zonefile;

const SEED: Seed = Seed(11);

fn apex() -> Name {
    "shop.peak.".parse().unwrap()
}

fn zone(serial: u32) -> Arc<Zone> {
    let text = format!("$TTL 60\n@ SOA ns1 admin {serial} 60 60 60 60\n@ NS ns1\nns1 A 192.0.2.1\n");
    let records = zonefile::parse(&text, &apex()).unwrap();
    let entries: Vec<Entry> = records
        .into_iter()
        .map(|it| Entry { name: it.name, rtype: it.rtype.0, ttl: it.ttl, rdata: it.rdata })
        .collect();
    Arc::new(Zone::load(&apex(), SEED, &entries).unwrap().zone)
}

fn served(zone: Option<Arc<Zone>>) -> Served {
    let mut zones = Zones::new(SEED);
    zone.into_iter().for_each(|zone| drop(zones.insert(zone)));
    Arc::new(ArcSwap::from_pointee(zones))
}

fn open(folder: &Path, loaded: Option<Arc<Zone>>, holding: Holding) -> Ledger {
    Ledger::open(&served(loaded), &[(apex(), holding)], Some(folder.to_owned())).unwrap().0
}

fn owner(number: u32) -> Name {
    Name::parse(&format!("n{number}"), &apex()).unwrap()
}

fn add(number: u32) -> (Name, Update) {
    let entry = Entry { name: owner(number), rtype: 1, ttl: 60, rdata: [192, 0, 2, 9].into() };
    (apex(), Update { prerequisites: Vec::new(), changes: vec![ZoneChange::Add(entry)] })
}

fn serial_of(ledger: &Ledger) -> u32 {
    ledger.zone(&apex()).unwrap().serial()
}

#[test]
fn updates_made_together_each_see_the_ones_before_and_fail_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    let unmet = Update { prerequisites: vec![Prerequisite::NameFree(owner(1))], ..add(2).1 };
    let outcomes = ledger.update(&[add(1), (apex(), unmet), add(1), add(3)]);
    assert!(matches!(
        outcomes[..],
        [Ok(Change::Made(8)), Err(Unmade::Refused(UpdateError::NameInUse(_))), Ok(Change::None), Ok(Change::Made(9))]
    ));
    let zone = ledger.zone(&apex()).unwrap();
    let has = |number| zone.node(&owner(number)).is_some();
    assert_eq!((zone.serial(), has(1), has(2), has(3)), (9, true, false, true));
}

#[test]
fn what_was_updated_is_there_after_a_restart_and_so_are_the_differences() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), Some(zone(7)), Holding::Updated);
    (1..=3).for_each(|number| assert!(first.update(&[add(number)])[0].is_ok()));
    drop(first);
    let again = open(folder.path(), Some(zone(7)), Holding::Updated);
    assert_eq!(serial_of(&again), 10);
    assert_eq!(again.version(&apex(), Some(8)).unwrap().deltas.unwrap().len(), 2);
}

#[test]
fn a_zone_file_wins_exactly_when_its_serial_is_newer() {
    for (file_serial, wins) in [(8, false), (9, false), (10, true)] {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), Some(zone(7)), Holding::Updated);
        assert_eq!(first.update(&[add(1), add(2)]).iter().filter(|outcome| outcome.is_ok()).count(), 2);
        drop(first);
        let again = open(folder.path(), Some(zone(file_serial)), Holding::Updated);
        assert_eq!(serial_of(&again) == file_serial && again.zone(&apex()).unwrap().node(&owner(1)).is_none(), wins);
        assert!(!again.reload(zone(9)), "read again while running");
        assert!(again.reload(zone(100)));
        drop(again);
        assert_eq!(serial_of(&open(folder.path(), Some(zone(7)), Holding::Updated)), 100);
    }
}

#[test]
fn damage_is_refused_with_the_file_named_and_an_unfinished_change_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = file::path(folder.path(), &apex());
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    assert!(ledger.update(&[add(1)])[0].is_ok());
    drop(ledger);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[0, 0, 1, 0, 7]].concat()).unwrap();
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    assert_eq!((serial_of(&ledger), fs::read(&path).unwrap()), (8, whole.clone()));
    assert!(ledger.update(&[add(2)])[0].is_ok());
    drop(ledger);
    let mut damaged = fs::read(&path).unwrap();
    damaged[60] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = Ledger::open(&served(Some(zone(7))), &[(apex(), Holding::Updated)], Some(folder.path().to_owned()));
    assert!(error.unwrap_err().to_string().contains(path.to_str().unwrap()));
}

#[test]
fn a_file_that_has_grown_is_written_anew_with_the_same_zone() {
    let folder = tempfile::tempdir().unwrap();
    let path = file::path(folder.path(), &apex());
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    let rdata: Box<[u8]> = [vec![255], vec![b'x'; 255]].concat().repeat(100).into();
    let big = |number| Entry { name: owner(number), rtype: 16, ttl: 60, rdata: rdata.clone() };
    for number in 0..60 {
        let changes = vec![ZoneChange::RemoveName(owner(0)), ZoneChange::Add(Entry { ttl: number, ..big(0) })];
        assert!(ledger.update(&[(apex(), Update { prerequisites: Vec::new(), changes })])[0].is_ok());
    }
    let before = fs::metadata(&path).unwrap().len();
    ledger.tidy();
    let after = fs::metadata(&path).unwrap().len();
    assert!(before > 1 << 20 && after < 100_000, "{before} to {after}");
    assert!(ledger.update(&[add(5)])[0].is_ok());
    let serial = serial_of(&ledger);
    drop(ledger);
    assert_eq!(serial_of(&open(folder.path(), Some(zone(7)), Holding::Updated)), serial);
}

#[test]
fn an_update_that_the_disk_does_not_take_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    // A device that is always full stands in for the disk.
    ledger.files.lock().get_mut(&apex()).unwrap().fill_up();
    assert!(matches!(ledger.update(&[add(1), add(2)])[..], [Err(Unmade::Unkept), Err(Unmade::Unkept)]));
    assert_eq!(serial_of(&ledger), 7);
    assert!(ledger.version(&apex(), Some(7)).unwrap().deltas.is_none());
}

#[test]
fn a_transferred_zone_is_unknown_until_it_comes_and_after_it_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), None, Holding::Transferred);
    assert!(!ledger.zone(&apex()).unwrap().is_known());
    ledger.replace(zone(7), Some(UnixSeconds(1000)));
    let delta = zone(7).update(&add(1).1).unwrap().delta.unwrap();
    assert_eq!(ledger.extend(&apex(), vec![delta.clone()], UnixSeconds(2000)).unwrap().serial(), 8);
    assert!(ledger.extend(&apex(), vec![delta], UnixSeconds(3000)).is_err());
    ledger.expire(&apex());
    assert!(!ledger.zone(&apex()).unwrap().is_known());
    drop(ledger);
    let (again, confirmed) =
        Ledger::open(&served(None), &[(apex(), Holding::Transferred)], Some(folder.path().to_owned())).unwrap();
    assert_eq!((serial_of(&again), confirmed.get("shop.peak.")), (8, Some(&UnixSeconds(2000))));
}

#[test]
fn reading_the_same_zone_file_again_forgets_no_differences() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), Some(zone(7)), Holding::File);
    assert!(ledger.reload(zone(8)) && ledger.reload(zone(8)));
    let version = ledger.version(&apex(), Some(7)).unwrap();
    assert_eq!((version.zone.serial(), version.deltas.unwrap().len()), (8, 1));
    assert!(ledger.reload(zone(5)), "whoever writes the file decides");
    assert!(ledger.version(&apex(), Some(7)).unwrap().deltas.is_none());
}

#[test]
fn a_secondary_whose_disk_is_full_serves_on_and_starts_again_from_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), None, Holding::Transferred);
    ledger.replace(zone(7), Some(UnixSeconds(1000)));
    ledger.files.lock().get_mut(&apex()).unwrap().fill_up();
    let first = zone(7).update(&add(1).1).unwrap();
    let second = first.zone.update(&add(2).1).unwrap();
    for (updated, serial) in [(first, 8), (second, 9)] {
        let extended = ledger.extend(&apex(), vec![updated.delta.unwrap()], UnixSeconds(2000)).unwrap();
        assert_eq!(extended.serial(), serial);
    }
    drop(ledger);
    assert_eq!(serial_of(&open(folder.path(), None, Holding::Transferred)), 7);
}

#[test]
fn whoever_waits_for_news_hears_of_the_latest_serial() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), Some(zone(7)), Holding::Updated);
    let mut news = ledger.news(&apex()).unwrap();
    assert_eq!(*news.borrow_and_update(), 7);
    ledger.update(&[add(1), add(2)]);
    assert!(news.has_changed().unwrap());
    assert_eq!(*news.borrow_and_update(), 9);
    ledger.update(&[add(2)]);
    assert!(!news.has_changed().unwrap());
}
