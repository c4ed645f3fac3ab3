//! Questions in, sections out.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const SEED: Seed = Seed(0x5eed);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// `text` below the test's apex; `@` is the apex itself.
fn owner(text: &str) -> Name {
    Name::parse(text, &name("shop.peak.")).unwrap()
}

fn entry(at: &str, rtype: u16, rdata: impl AsRef<[u8]>) -> Entry {
    Entry { name: owner(at), rtype, ttl: 3600, rdata: rdata.as_ref().into() }
}

fn a(at: &str, last: u8) -> Entry {
    entry(at, types::A, [192, 0, 2, last])
}

fn naming(at: &str, rtype: u16, fixed: &[u8], target: &str) -> Entry {
    entry(at, rtype, [fixed, owner(target).wire()].concat())
}

fn cname(at: &str, target: &str) -> Entry {
    naming(at, types::CNAME, &[], target)
}

fn ns(at: &str, target: &str) -> Entry {
    naming(at, types::NS, &[], target)
}

fn soa(minimum: u32) -> Entry {
    let numbers = [7u32, 3600, 600, 86400, minimum].map(u32::to_be_bytes).concat();
    entry("@", types::SOA, [owner("ns1").wire(), owner("admin").wire(), &numbers].concat())
}

fn base() -> Vec<Entry> {
    vec![soa(30), ns("@", "ns1"), a("ns1", 1)]
}

fn with(more: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    base().into_iter().chain(more).collect()
}

fn load(entries: &[Entry]) -> Result<Zone, Vec<ZoneFault>> {
    let loaded = Zone::load(&name("shop.peak."), SEED, entries);
    loaded.map(|loaded| loaded.zone).map_err(|faults| faults.into_iter().map(|fault| fault.cause).collect())
}

fn key(at: &Name) -> Key {
    let mut key = Key::default();
    key.set(SEED, at.wire());
    key
}

/// The answer in words: aliases by their targets, then how it ends.
fn told(zone: &Zone, at: &str, qtype: u16) -> String {
    let mut aliases = Aliases::default();
    let answer = zone.answer(&key(&owner(at)), qtype, &mut aliases);
    let mut words: Vec<String> = aliases
        .iter()
        .map(|alias| format!("-> {}", alias.targets().first().map_or("out".into(), |target| target.name().to_string())))
        .collect();
    words.push(match answer.end {
        End::Data(set) => format!("{} x {}{}", set.count(), set.rtype(), if answer.synthesized { " *" } else { "" }),
        End::NoData => "nodata".into(),
        End::NoName => "no name".into(),
        End::Referral { cut, servers } => format!("ask {} x {}", servers.count(), cut.name()),
        End::Elsewhere => "elsewhere".into(),
    });
    words.join(" ")
}

#[test]
fn each_question_has_its_answer() {
    let zone = load(&with([
        a("orders", 1),
        a("orders", 2),
        entry("orders", types::TXT, b"\x01x"),
        a("deep.below.here", 3),
        cname("www", "orders"),
        cname("chain", "www"),
        cname("loop1", "loop2"),
        cname("loop2", "loop1"),
        cname("dead", "nothing"),
        cname("out", "www.example."),
        cname("to-cluster", "x.cluster"),
        entry("*.wild", types::TXT, b"\x01w"),
        a("own.wild", 4),
        a("x.y.wild", 4),
        cname("*.alias", "orders"),
        entry("*.*.odd", types::TXT, b"\x01o"),
        ns("cluster", "ns1.cluster"),
        ns("cluster", "ns1"),
        a("ns1.cluster", 53),
        entry("cluster", types::DS, b"\0\0\0\0"),
        ns("lower.cluster", "ns1"),
    ]))
    .unwrap();
    let (a, txt, any, aaaa) = (types::A, types::TXT, types::ANY, types::AAAA);
    for (at, qtype, expected) in [
        ("orders", a, "2 x 1"),
        ("ORDERS", a, "2 x 1"),
        ("orders", aaaa, "nodata"),
        ("orders", any, "2 x 1"),
        ("@", types::SOA, "1 x 6"),
        ("@", types::NS, "1 x 2"),
        ("@", a, "nodata"),
        ("nothing", a, "no name"),
        ("x.orders", a, "no name"),
        // Empty non-terminals exist (RFC 8020), their other children do not.
        ("below.here", a, "nodata"),
        ("here", any, "nodata"),
        ("else.here", a, "no name"),
        // Aliases.
        ("www", a, "-> orders.shop.peak. 2 x 1"),
        ("www", types::CNAME, "1 x 5"),
        ("www", any, "1 x 5"),
        ("www", aaaa, "-> orders.shop.peak. nodata"),
        ("chain", a, "-> www.shop.peak. -> orders.shop.peak. 2 x 1"),
        ("loop1", a, "-> loop2.shop.peak. -> loop1.shop.peak. elsewhere"),
        ("dead", a, "-> nothing.shop.peak. no name"),
        ("out", a, "-> out elsewhere"),
        ("to-cluster", a, "-> x.cluster.shop.peak. ask 2 x cluster.shop.peak."),
        // RFC 4592: a wildcard speaks for names below its parent that do not exist, at any depth.
        ("x.wild", txt, "1 x 16 *"),
        ("a.b.c.wild", txt, "1 x 16 *"),
        ("x.wild", a, "nodata"),
        ("*.wild", txt, "1 x 16"),
        ("own.wild", txt, "nodata"),
        ("y.wild", txt, "nodata"),
        ("z.y.wild", txt, "no name"),
        ("z.own.wild", txt, "no name"),
        ("x.*.wild", txt, "no name"),
        ("wild", txt, "nodata"),
        ("x.alias", a, "-> orders.shop.peak. 2 x 1"),
        ("x.odd", txt, "nodata"),
        ("x.*.odd", txt, "1 x 16 *"),
        // Zone cuts hide whatever is below, other cuts included.
        ("cluster", a, "ask 2 x cluster.shop.peak."),
        ("cluster", types::NS, "ask 2 x cluster.shop.peak."),
        ("ns1.cluster", a, "ask 2 x cluster.shop.peak."),
        ("x.y.lower.cluster", a, "ask 2 x cluster.shop.peak."),
        ("cluster", types::DS, "1 x 43"),
        ("x.cluster", types::DS, "ask 2 x cluster.shop.peak."),
    ] {
        assert_eq!(told(&zone, at, qtype), expected, "{at} type {qtype}");
    }
}

#[test]
fn an_alias_to_another_zone_ends_elsewhere() {
    let zone = load(&with([cname("out", "www.example."), cname("in", "out")])).unwrap();
    assert_eq!(told(&zone, "out", types::A), "-> out elsewhere");
    assert_eq!(told(&zone, "in", types::A), "-> out.shop.peak. -> out elsewhere");
}

#[test]
fn a_chain_of_16_aliases_is_followed_and_one_of_17_is_not() {
    let chain = |links: usize| -> Vec<Entry> {
        let aliases = (0..links).map(|link| cname(&format!("c{link}"), &format!("c{}", link + 1)));
        with(aliases.chain([a(&format!("c{links}"), 1)]))
    };
    let end = |links| told(&load(&chain(links)).unwrap(), "c0", types::A);
    // The last link that an answer carries is not looked behind.
    assert!(end(MAX_ALIASES - 1).ends_with("1 x 1"), "{}", end(MAX_ALIASES - 1));
    assert!(end(MAX_ALIASES).ends_with("elsewhere"));
}

#[test]
fn the_negative_ttl_is_the_lesser_of_the_soa_s_own_and_its_minimum() {
    for (minimum, expected) in [(30, 30), (3600, 3600), (7200, 3600)] {
        let zone = load(&[soa(minimum), ns("@", "ns1"), a("ns1", 1)]).unwrap();
        assert_eq!(zone.negative().unwrap().ttl(), expected);
    }
}

#[test]
fn every_fault_of_a_zone_is_told_with_its_entry() {
    let entries = with([
        a("orders", 1),
        cname("orders", "www"),
        Entry { name: name("example.net."), ..a("x", 1) },
        entry("odd", types::A, [1, 2, 3]),
        Entry { name: owner("lower"), ..soa(1) },
        entry("sub", types::DNAME, owner("x").wire()),
        entry("meta", 250, []),
        cname("two", "a"),
        cname("two", "b"),
    ]);
    let faults = Zone::load(&name("shop.peak."), SEED, &entries).unwrap_err();
    let told: Vec<(usize, String)> =
        faults.iter().map(|fault| (fault.entry.unwrap(), fault.cause.to_string())).collect();
    let expected = [
        (4, "orders.shop.peak. has a CNAME record, beside which no other may stand"),
        (5, "example.net. is not in the zone shop.peak."),
        (6, "odd.shop.peak.: the data of a record is not what its type requires"),
        (7, "lower.shop.peak. is not the apex, and only the apex has an SOA record"),
        (8, "sub.shop.peak. has a DNAME record, which is not served: write the aliases out as CNAME records"),
        (9, "meta.shop.peak. has a record of type 250, which is no data type"),
        (10, "two.shop.peak.: a name has only one record of this type"),
    ];
    assert_eq!(told, expected.map(|(entry, text)| (entry, text.to_owned())));
}

#[test]
fn a_zone_needs_its_soa_its_servers_and_their_addresses() {
    assert_eq!(
        load(&[a("x", 1)]).unwrap_err(),
        [ZoneFault::NoSoa(name("shop.peak.")), ZoneFault::NoNs(name("shop.peak."))]
    );
    let faults = load(&with([
        ns("@", "ns9"),
        ns("cluster", "ns1.cluster"),
        ns("beside", "ns1.other"),
        ns("fine", "ns1.cluster"),
        cname("alias", "ns1"),
        ns("cut", "alias"),
        ns("*.all", "ns1"),
    ]))
    .unwrap_err();
    let expected = [
        ZoneFault::ServerWithoutAddress { owner: owner("@"), server: owner("ns9") },
        ZoneFault::NoGlue { cut: owner("cluster"), server: owner("ns1.cluster") },
        ZoneFault::ServerWithoutAddress { owner: owner("beside"), server: owner("ns1.other") },
        ZoneFault::ServerIsAlias { owner: owner("cut"), server: owner("alias") },
        ZoneFault::WildcardNs(owner("*.all")),
    ];
    assert_eq!(faults, expected);
}

#[test]
fn equal_records_count_once_and_the_lowest_ttl_holds() {
    let mut entries = with([a("x", 1), a("x", 1), cname("y", "NS1"), cname("y", "ns1")]);
    entries.push(Entry { ttl: 60, ..a("x", 2) });
    let Loaded { zone, warnings } = Zone::load(&name("shop.peak."), SEED, &entries).unwrap();
    let set = zone.node(&owner("x")).unwrap().set(types::A).unwrap();
    assert_eq!((set.count(), set.ttl()), (2, 60));
    assert_eq!(
        warnings,
        [
            (3, ZoneWarning::DifferentTtls { name: owner("x"), rtype: 1, ttl: 60 }),
            (3, ZoneWarning::Duplicates { name: owner("x"), rtype: 1, extra: 1 }),
            (5, ZoneWarning::Duplicates { name: owner("y"), rtype: 5, extra: 1 }),
        ]
    );
}

#[test]
fn a_change_shows_in_the_changed_zone_alone() {
    let old = load(&with([a("x", 1)])).unwrap();
    let mut new = old.clone();
    new.replace(&owner("x"), types::A, 60, [[192, 0, 2, 9].as_slice(), &[192, 0, 2, 10]]).unwrap();
    new.replace(&owner("a.b.c"), types::TXT, 60, [b"\x01t".as_slice()]).unwrap();
    assert_eq!((told(&old, "x", types::A), told(&new, "x", types::A)), ("1 x 1".into(), "2 x 1".into()));
    assert_eq!((told(&old, "b.c", types::A), told(&new, "b.c", types::A)), ("no name".into(), "nodata".into()));
    assert!(new.remove(&owner("a.b.c"), types::TXT).unwrap());
    assert!(!new.remove(&owner("a.b.c"), types::TXT).unwrap());
    assert_eq!((told(&new, "c", types::A), new.len()), ("no name".into(), old.len()));
}

#[test]
fn a_cut_that_is_added_hides_and_one_that_is_removed_shows_again() {
    let mut zone = load(&with([a("x.cluster", 1)])).unwrap();
    zone.replace(&owner("cluster"), types::NS, 60, [owner("ns1").wire()]).unwrap();
    assert_eq!(told(&zone, "x.cluster", types::A), "ask 1 x cluster.shop.peak.");
    zone.remove(&owner("cluster"), types::NS).unwrap();
    assert_eq!(told(&zone, "x.cluster", types::A), "1 x 1");
}

#[test]
fn a_refused_change_leaves_the_zone_as_it_was() {
    let mut zone = load(&with([a("x", 1), cname("www", "x")])).unwrap();
    let text = [b"\x01t".as_slice()];
    let refused = [
        zone.replace(&owner("www"), types::TXT, 60, text),
        zone.replace(&owner("x"), types::CNAME, 60, [owner("www").wire()]),
        zone.replace(&name("example."), types::TXT, 60, text),
        zone.replace(&owner("x"), types::A, 60, []),
        zone.remove(&owner("@"), types::SOA).map(drop),
        zone.remove(&owner("@"), types::NS).map(drop),
    ];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    assert_eq!((told(&zone, "x", types::A), told(&zone, "www", types::CNAME)), ("1 x 1".into(), "1 x 5".into()));
}

#[test]
fn a_new_serial_and_minimum_show_in_negative_answers_at_once() {
    let mut zone = load(&base()).unwrap();
    let mut rdata = soa(5).rdata;
    let serial_at = rdata.len() - 20;
    rdata[serial_at..serial_at + 4].copy_from_slice(&8u32.to_be_bytes());
    zone.replace(&owner("@"), types::SOA, 3600, [rdata.as_ref()]).unwrap();
    assert_eq!((zone.serial(), zone.negative().unwrap().ttl()), (8, 5));
}

#[test]
fn data_come_out_of_a_set_as_they_went_in() {
    let entries = with([
        naming("@", types::MX, &[0, 10], "Mail"),
        naming("@", types::MX, &[0, 20], "@"),
        entry("@", types::MX, [&[0, 30], name("mx.example.net.").wire()].concat()),
        naming("_x", types::SRV, &[0; 6], "orders"),
        entry("_x", types::SVCB, [&[0, 1], Name::root().wire()].concat()),
    ]);
    let zone = load(&entries).unwrap();
    for wanted in entries {
        let set = zone.node(&wanted.name).unwrap().set(wanted.rtype).unwrap();
        let apex = zone.apex().clone();
        assert!(set.rdatas(&apex).any(|rdata| rdata.eq_ignore_ascii_case(&wanted.rdata)), "{wanted:?}");
    }
}

#[test]
fn a_set_begins_with_each_of_its_records_equally_often() {
    let zone = load(&with((1..=3).map(|last| a("x", last)))).unwrap();
    let set = zone.node(&owner("x")).unwrap().set(types::A).unwrap();
    let mut firsts = BTreeMap::new();
    for turn in (0..3000u32).map(|step| step * (u32::MAX / 3000)) {
        let mut out = vec![0; set.octets()];
        set.write(&mut out, 0xC00C, owner("x").wire().len(), turn);
        *firsts.entry(out[15]).or_insert(0) += 1;
    }
    assert!(firsts.len() == 3 && firsts.values().all(|times| (999..=1001).contains(times)), "{firsts:?}");
}

#[test]
fn the_zone_with_the_longest_apex_answers_and_ds_is_the_parents() {
    let zone_at = |apex: &str| {
        let apex = name(apex);
        let numbers = [1u32, 2, 3, 4, 5].map(u32::to_be_bytes).concat();
        let rdata = [Name::root().wire(), Name::root().wire(), &numbers].concat();
        let record = |rtype, rdata: &[u8]| Entry { name: apex.clone(), rtype, ttl: 1, rdata: rdata.into() };
        let entries = [record(types::SOA, &rdata), record(types::NS, apex.wire()), record(types::A, &[192, 0, 2, 1])];
        Arc::new(Zone::load(&apex, SEED, &entries).unwrap().zone)
    };
    let mut zones = Zones::new(SEED);
    for apex in ["peak.", "cluster.shop.peak."] {
        assert!(zones.insert(zone_at(apex)).is_none());
    }
    let found = |zones: &Zones, at: &str, qtype| zones.find(&key(&name(at)), qtype).map(|zone| zone.apex().to_string());
    assert_eq!(found(&zones, "x.cluster.shop.PEAK.", types::A).as_deref(), Some("cluster.shop.peak."));
    assert_eq!(found(&zones, "cluster.shop.peak.", types::A).as_deref(), Some("cluster.shop.peak."));
    assert_eq!(found(&zones, "cluster.shop.peak.", types::DS).as_deref(), Some("peak."));
    assert_eq!(found(&zones, "peak.", types::DS).as_deref(), Some("peak."));
    assert_eq!(found(&zones, "shop.peak.", types::A).as_deref(), Some("peak."));
    assert_eq!(found(&zones, "example.", types::A), None);
    zones.insert(zone_at("."));
    assert_eq!(found(&zones, "example.", types::A).as_deref(), Some("."));
    assert!(zones.remove(&name("peak.")).is_some());
    assert_eq!(found(&zones, "shop.peak.", types::A).as_deref(), Some("."));
}

const LABELS: [&str; 5] = ["a", "b", "*", "cut", "n"];

fn any_name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&LABELS[..]), 1..4).prop_map(|labels| labels.join("."))
}

proptest! {
    /// What a zone says depends on what it holds, not on how it came to hold it.
    #[test]
    fn a_changed_zone_answers_as_one_loaded_afresh(
        steps in prop::collection::vec((any_name(), 0u8..4, any::<bool>()), 0..40),
        asked in prop::collection::vec((any_name(), 0u8..4), 1..40),
    ) {
        let kinds = [types::A, types::TXT, types::NS, types::CNAME];
        let mut zone = load(&base()).unwrap();
        let mut held: BTreeMap<(String, u16), Entry> = BTreeMap::new();
        for (at, kind, add) in steps {
            let rtype = kinds[usize::from(kind)];
            let entry = match rtype {
                types::A => a(&at, 1),
                types::TXT => entry(&at, types::TXT, b"\x01t"),
                types::NS if at.starts_with('*') => continue,
                types::NS => ns(&at, "ns1"),
                _ => cname(&at, "a.b"),
            };
            let done = if add {
                zone.replace(&entry.name, rtype, 3600, [entry.rdata.as_ref()]).is_ok()
            } else {
                zone.remove(&entry.name, rtype).is_ok()
            };
            match (done, add) {
                (true, true) => drop(held.insert((at, rtype), entry)),
                (true, false) => drop(held.remove(&(at, rtype))),
                (false, _) => {}
            }
        }
        let fresh = load(&with(held.into_values())).unwrap();
        prop_assert_eq!(zone.len(), fresh.len());
        for (at, kind) in asked {
            let rtype = kinds[usize::from(kind)];
            prop_assert_eq!(told(&zone, &at, rtype), told(&fresh, &at, rtype), "{} type {}", at, rtype);
        }
    }
}
