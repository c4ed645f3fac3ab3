//! Updates to a zone, and what they leave.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::zone::Seed;

const A: u16 = types::A;
const TXT: u16 = types::TXT;
const NS: u16 = types::NS;
const SOA: u16 = types::SOA;
const CNAME: u16 = types::CNAME;

fn owner(text: &str) -> Name {
    Name::parse(text, &"shop.peak.".parse().unwrap()).unwrap()
}

fn entry(at: &str, rtype: u16, rdata: impl AsRef<[u8]>) -> Entry {
    Entry { name: owner(at), rtype, ttl: 300, rdata: rdata.as_ref().into() }
}

fn a(at: &str, last: u8) -> Entry {
    entry(at, A, [192, 0, 2, last])
}

fn naming(at: &str, rtype: u16, target: &str) -> Entry {
    entry(at, rtype, owner(target).wire())
}

fn soa(serial: u32) -> Entry {
    let numbers = [serial, 3600, 600, 86400, 30].map(u32::to_be_bytes).concat();
    entry("@", SOA, [owner("ns1").wire(), owner("admin").wire(), &numbers].concat())
}

fn zone_with(serial: u32, more: &[Entry]) -> Zone {
    let base = [soa(serial), naming("@", NS, "ns1"), a("ns1", 1)];
    let entries: Vec<Entry> = base.into_iter().chain(more.iter().cloned()).collect();
    Zone::load(&owner("@"), Seed(7), &entries).unwrap().zone
}

fn zone() -> Zone {
    zone_with(7, &[a("www", 10), a("www", 11), entry("www", TXT, b"\x02hi"), naming("alias", CNAME, "www")])
}

fn changes(changes: impl IntoIterator<Item = Change>) -> Update {
    Update { prerequisites: Vec::new(), changes: changes.into_iter().collect() }
}

fn remove(entry: Entry) -> Change {
    Change::RemoveRecord { name: entry.name, rtype: entry.rtype, rdata: entry.rdata }
}

type Content = BTreeSet<(String, u16, u32, Vec<u8>)>;

fn content(zone: &Zone) -> Content {
    let row = |entry: Entry| {
        let rdata = rrset::canonical(entry.rtype, &entry.rdata).unwrap().into_owned();
        (entry.name.to_lowercase().to_string(), entry.rtype, entry.ttl, rdata)
    };
    zone.entries().chain(zone.soa()).map(row).collect()
}

fn updated(update: &Update) -> (Zone, Option<Delta>) {
    let Updated { zone, delta } = zone().update(update).unwrap();
    (zone, delta)
}

fn has(zone: &Zone, entry: &Entry) -> bool {
    let set = zone.node(&entry.name).and_then(|node| node.set(entry.rtype));
    set.is_some_and(|set| set.rdatas(zone.apex()).any(|rdata| rdata == *entry.rdata))
}

#[test]
fn an_added_record_is_there_with_the_next_serial_and_the_old_zone_is_as_it_was() {
    let old = zone();
    let Updated { zone, delta } = old.update(&changes([Change::Add(a("new", 1))])).unwrap();
    assert!(has(&zone, &a("new", 1)) && !has(&old, &a("new", 1)));
    assert_eq!((old.serial(), zone.serial()), (7, 8));
    let delta = delta.unwrap();
    assert_eq!((delta.from(), delta.to(), delta.removed.len(), &delta.added), (7, 8, 0, &vec![a("new", 1)]));
}

#[test]
fn what_changes_nothing_leaves_the_serial_and_no_delta() {
    let spelled = Entry { name: owner("WWW"), ..a("www", 10) };
    for update in [
        changes([]),
        changes([Change::Add(a("www", 10))]),
        changes([Change::Add(spelled)]),
        changes([Change::Add(naming("alias", CNAME, "WWW.Shop.PEAK."))]),
        changes([Change::Add(a("new", 1)), remove(a("new", 1))]),
        changes([remove(a("www", 10)), Change::Add(a("www", 10))]),
        changes([remove(a("nobody", 1)), Change::RemoveSet(owner("nobody"), A), Change::RemoveName(owner("nobody"))]),
    ] {
        let (zone, delta) = updated(&update);
        assert_eq!((zone.serial(), delta), (7, None), "{update:?}");
    }
}

#[test]
fn a_set_takes_the_ttl_of_the_record_added_last() {
    let (zone, delta) = updated(&changes([Change::Add(Entry { ttl: 60, ..a("www", 10) })]));
    assert_eq!(zone.node(&owner("www")).unwrap().set(A).unwrap().ttl(), 60);
    let delta = delta.unwrap();
    assert_eq!((delta.removed.len(), delta.added.len()), (2, 2));
    let (zone, _) = updated(&changes([Change::Add(Entry { ttl: 1 << 31, ..a("www", 12) })]));
    assert_eq!(zone.node(&owner("www")).unwrap().set(A).unwrap().ttl(), 0);
}

#[test]
fn an_alias_replaces_an_alias_and_nothing_else() {
    let (zone, _) = updated(&changes([
        Change::Add(naming("alias", CNAME, "ns1")),
        Change::Add(naming("www", CNAME, "ns1")),
        Change::Add(a("alias", 9)),
    ]));
    assert!(has(&zone, &naming("alias", CNAME, "ns1")) && !has(&zone, &naming("alias", CNAME, "www")));
    assert!(!has(&zone, &naming("www", CNAME, "ns1")) && !has(&zone, &a("alias", 9)));
}

#[test]
fn an_alias_and_a_record_change_places_in_one_update() {
    let (zone, _) = updated(&changes([
        Change::RemoveName(owner("www")),
        Change::Add(naming("www", CNAME, "ns1")),
        Change::RemoveSet(owner("alias"), CNAME),
        Change::Add(a("alias", 9)),
    ]));
    assert!(has(&zone, &naming("www", CNAME, "ns1")) && has(&zone, &a("alias", 9)));
}

#[test]
fn the_apex_keeps_its_soa_and_its_last_ns_whatever_is_asked() {
    let (zone, delta) = updated(&changes([
        Change::RemoveName(owner("@")),
        Change::RemoveSet(owner("@"), SOA),
        Change::RemoveSet(owner("@"), NS),
        remove(naming("@", NS, "ns1")),
        remove(soa(7)),
    ]));
    assert_eq!((content(&zone), delta), (content(&self::zone()), None));
    let (zone, _) = updated(&changes([Change::Add(naming("@", NS, "www")), remove(naming("@", NS, "ns1"))]));
    assert!(has(&zone, &naming("@", NS, "www")) && !has(&zone, &naming("@", NS, "ns1")));
}

#[test]
fn only_a_newer_soa_counts_and_then_its_serial_stands() {
    for (given, after) in [(8, 8), (1000, 1000), (7, 7), (6, 7), (0x8000_0007, 7), (0x8000_0006, 0x8000_0006)] {
        let (zone, _) = updated(&changes([Change::Add(soa(given))]));
        assert_eq!(zone.serial(), after, "SOA with serial {given}");
    }
    let (zone, delta) = updated(&changes([Change::Add(soa(1000)), Change::Add(a("new", 1))]));
    assert_eq!((zone.serial(), delta.unwrap().to()), (1000, 1000));
    let (zone, _) = updated(&changes([Change::Add(Entry { name: owner("www"), ..soa(1000) })]));
    assert_eq!(zone.serial(), 7);
}

#[test]
fn the_serial_after_the_greatest_is_1() {
    let Updated { zone, .. } = zone_with(u32::MAX, &[]).update(&changes([Change::Add(a("new", 1))])).unwrap();
    assert_eq!(zone.serial(), 1);
}

#[test]
fn prerequisites_hold_or_the_update_is_refused_with_the_one_that_does_not() {
    let www = || owner("www");
    let is = |rdatas: &[[u8; 4]]| Prerequisite::SetIs {
        name: www(),
        rtype: A,
        rdatas: rdatas.iter().map(|rdata| Box::from(&rdata[..])).collect(),
    };
    let zone = zone_with(7, &[a("www", 10), a("www", 11), a("deep.empty", 1)]);
    for (prerequisite, outcome) in [
        (Prerequisite::NameInUse(www()), Ok(())),
        (Prerequisite::NameInUse(owner("nobody")), Err(UpdateError::NameFree(owner("nobody")))),
        (Prerequisite::NameInUse(owner("empty")), Err(UpdateError::NameFree(owner("empty")))),
        (Prerequisite::NameFree(owner("nobody")), Ok(())),
        (Prerequisite::NameFree(owner("empty")), Ok(())),
        (Prerequisite::NameFree(www()), Err(UpdateError::NameInUse(www()))),
        (Prerequisite::SetExists(www(), A), Ok(())),
        (Prerequisite::SetExists(www(), TXT), Err(UpdateError::SetAbsent(www(), TXT))),
        (Prerequisite::SetAbsent(www(), TXT), Ok(())),
        (Prerequisite::SetAbsent(www(), A), Err(UpdateError::SetExists(www(), A))),
        (is(&[[192, 0, 2, 11], [192, 0, 2, 10]]), Ok(())),
        (is(&[[192, 0, 2, 11], [192, 0, 2, 10], [192, 0, 2, 10]]), Ok(())),
        (is(&[[192, 0, 2, 10]]), Err(UpdateError::SetDiffers(www(), A))),
        (is(&[[192, 0, 2, 10], [192, 0, 2, 11], [192, 0, 2, 12]]), Err(UpdateError::SetDiffers(www(), A))),
    ] {
        let update = Update { prerequisites: vec![prerequisite], changes: vec![Change::Add(a("new", 1))] };
        assert_eq!(zone.update(&update).map(|_| ()), outcome, "{update:?}");
    }
}

#[test]
fn one_change_that_cannot_be_made_leaves_none_of_the_others() {
    let outside = Entry { name: "elsewhere.".parse().unwrap(), ..a("www", 1) };
    let wildcard = naming("*", NS, "ns1");
    for (bad, reason) in [
        (Change::Add(outside.clone()), "out-of-zone"),
        (remove(outside), "out-of-zone"),
        (Change::Add(entry("www", A, [1, 2, 3])), "malformed"),
        (Change::Add(naming("www", types::DNAME, "ns1")), "dname"),
        (Change::Add(entry("www", types::ANY, [])), "not-data"),
        (Change::Add(wildcard), "wildcard-ns"),
    ] {
        let update = changes([Change::Add(a("new", 1)), bad]);
        assert_eq!(zone().update(&update).unwrap_err().reason(), reason);
    }
    let unknown = Zone::unknown(owner("@"), Seed(7));
    assert_eq!(unknown.update(&changes([])).unwrap_err().reason(), "zone-unknown");
}

#[test]
fn an_update_in_place_that_a_zone_refuses_at_last_leaves_it_as_it_was() {
    let mut zone = zone();
    let (before, names, serial) = (content(&zone), zone.len(), zone.serial());
    // A set that no message could carry is found when everything before it has its place already.
    let long = (0..300u16).map(|number| {
        let text: Vec<u8> = [250].into_iter().chain(number.to_be_bytes()).chain([b'x'; 248]).collect();
        Change::Add(entry("www", TXT, text))
    });
    let others = [Change::RemoveName(owner("alias")), Change::Add(a("deep.new", 1)), Change::Add(a("ns1", 2))];
    let refused = zone.make(&changes(others.into_iter().chain(long))).unwrap_err();
    assert_eq!(refused.reason(), "set-too-large");
    assert_eq!((content(&zone), zone.len(), zone.serial()), (before, names, serial));
}

#[test]
fn what_changes_in_place_does_not_change_for_those_who_share_it() {
    let mut zone = zone();
    for last in 20..24 {
        let (shared, before) = (zone.clone(), content(&zone));
        zone.make(&changes([Change::Add(a("www", last)), Change::Add(a(&format!("n{last}"), 1))])).unwrap();
        assert_eq!((content(&shared), shared.serial() + 1), (before, zone.serial()));
        assert_eq!(shared.negative().unwrap().soa_serial(), Some(shared.serial()));
    }
    assert_eq!((zone.serial(), zone.soa().unwrap().rdata), (11, soa(11).rdata));
}

#[test]
fn a_delta_that_does_not_fit_is_refused() {
    let (zone, delta) = updated(&changes([Change::Add(a("new", 1)), remove(a("www", 10))]));
    let delta = delta.unwrap();
    assert_eq!(content(&self::zone().apply(&delta).unwrap()), content(&zone));
    assert_eq!(zone.apply(&delta).unwrap_err(), DeltaError::Elsewhere { begins: 7, at: 8 });
    let doubled = Delta { added: vec![a("www", 11)], ..delta.clone() };
    assert_eq!(self::zone().apply(&doubled).unwrap_err().reason(), "delta-doubled");
    let missing = Delta { removed: vec![a("www", 99)], ..delta };
    assert_eq!(self::zone().apply(&missing).unwrap_err().reason(), "delta-missing");
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop::sample::select(vec!["@", "a", "b", "c.b", "*.b", "d.c.b"]);
    let rdata = prop_oneof![
        (0u8..4).prop_map(|last| (A, vec![192, 0, 2, last])),
        (0u8..3).prop_map(|text| (TXT, vec![1, text])),
        (0u8..3).prop_map(|to| (CNAME, owner(["ns1", "a", "B"][usize::from(to)]).wire().to_vec())),
        (0u8..3).prop_map(|to| (NS, owner(["ns1", "a", "NS1"][usize::from(to)]).wire().to_vec())),
        (5u32..12).prop_map(|serial| (SOA, soa(serial).rdata.to_vec())),
    ];
    (name, rdata, 0u32..3).prop_map(|(name, (rtype, rdata), ttl)| Entry { ttl: 60 + ttl, ..entry(name, rtype, rdata) })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_entry().prop_map(Change::Add),
        2 => any_entry().prop_map(remove),
        1 => any_entry().prop_map(|entry| Change::RemoveSet(entry.name, entry.rtype)),
        1 => any_entry().prop_map(|entry| Change::RemoveName(entry.name)),
    ]
}

proptest! {
    /// Every way to the same version leads to the same zone: the update, its delta, and loading the records anew.
    #[test]
    fn updates_deltas_and_loading_agree(
        updates in prop::collection::vec(prop::collection::vec(any_change(), 0..8), 0..12),
    ) {
        let first = zone();
        let (mut zone, mut in_place) = (first.clone(), first.clone());
        for update in updates {
            let update = changes(update);
            let made = in_place.make(&update);
            let Ok(updated) = zone.update(&update) else {
                prop_assert!(made.is_err());
                continue;
            };
            prop_assert_eq!(made.unwrap(), updated.delta.clone());
            prop_assert_eq!(content(&in_place), content(&updated.zone));
            prop_assert_eq!(in_place.len(), updated.zone.len());
            if let Some(delta) = &updated.delta {
                prop_assert!(serial::is_newer(updated.zone.serial(), zone.serial()));
                prop_assert_eq!(content(&zone.apply(delta).unwrap()), content(&updated.zone));
                let found = zone.difference(&updated.zone).unwrap();
                prop_assert_eq!(content(&zone.apply(&found).unwrap()), content(&updated.zone));
            } else {
                prop_assert_eq!(content(&zone), content(&updated.zone));
            }
            zone = updated.zone;
            prop_assert!(zone.soa().is_some() && zone.node(&owner("@")).unwrap().set(NS).is_some());
            let entries: Vec<Entry> = zone.entries().chain(zone.soa()).collect();
            let loaded = Zone::received(&owner("@"), Seed(7), &entries).unwrap().zone;
            prop_assert_eq!(content(&loaded), content(&zone));
            prop_assert_eq!(loaded.len(), zone.len());
        }
        let direct = first.difference(&zone).unwrap();
        prop_assert_eq!(content(&first.apply(&direct).unwrap()), content(&zone));
    }
}
