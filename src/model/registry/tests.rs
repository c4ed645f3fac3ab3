//! What commands make of a registry, and what a snapshot keeps of it.

use proptest::prelude::*;

use super::*;
use crate::model::zone::{Change, Entry, Prerequisite, Update};

const APEX: &str = "shop.peak.";

fn name(text: &str) -> Name {
    Name::parse(text, &APEX.parse().unwrap()).unwrap()
}

fn entry(at: &str, rtype: u16, rdata: &[u8]) -> Entry {
    Entry { name: name(at), rtype, ttl: 60, rdata: rdata.into() }
}

fn a(at: &str, last: u8) -> Entry {
    entry(at, 1, &[192, 0, 2, last])
}

fn base(serial: u32) -> Vec<Entry> {
    let numbers = [serial, 3600, 600, 86400, 30].map(u32::to_be_bytes).concat();
    let soa = [name("ns1").wire(), name("admin").wire(), &numbers].concat();
    vec![entry("@", 6, &soa), entry("@", 2, name("ns1").wire()), a("ns1", 1)]
}

fn create() -> Op {
    Op::Create { apex: name("@"), reads: Reads::Available, entries: base(7) }
}

fn update(prerequisites: Vec<Prerequisite>, changes: Vec<Change>) -> Op {
    Op::Update(vec![ZoneUpdate { zone: name("@"), update: Update { prerequisites, changes } }])
}

fn add(at: &str, last: u8) -> Op {
    update(vec![], vec![Change::Add(a(at, last))])
}

/// Without a request's name.
fn plain(op: Op) -> Command {
    Command { request: None, op }
}

fn named(request: u128, op: Op) -> Command {
    Command { request: Some(RequestId(request)), op }
}

fn registry(commands: &[Command]) -> Registry {
    let mut registry = Registry::new(Seed(3));
    for (at, command) in commands.iter().enumerate() {
        registry.apply(UnixMillis(at as u64), command);
    }
    registry
}

fn octets(registry: &Registry) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let Ok::<(), std::convert::Infallible>(()) = registry.encode(|piece| {
        pieces.push(piece.to_vec());
        Ok(())
    });
    pieces
}

fn decoded(pieces: &[Vec<u8>], seed: Seed) -> Result<Registry, SnapshotError> {
    let mut decoder = Decoder::new(seed, SCHEMA);
    pieces.iter().try_for_each(|piece| decoder.piece(piece))?;
    decoder.finish()
}

fn step(serial: u32, changed: bool) -> Reply {
    Ok(Applied::Zones(vec![Step { serial, changed }]))
}

#[test]
fn adding_what_is_there_changes_nothing_and_says_so() {
    let mut registry = registry(&[plain(create())]);
    assert_eq!(registry.apply(UnixMillis(1), &plain(add("www", 1))).reply, step(8, true));
    let again = registry.apply(UnixMillis(2), &plain(add("WWW", 1)));
    assert_eq!(again.reply, step(8, false));
    assert!(again.effects.is_empty());
}

#[test]
fn a_request_made_twice_counts_once_and_has_the_reply_of_the_first_time() {
    let mut registry = registry(&[plain(create())]);
    let request = named(1, update(vec![Prerequisite::NameFree(name("www"))], vec![Change::Add(a("www", 1))]));
    let first = registry.apply(UnixMillis(1), &request).reply;
    let retry = registry.apply(UnixMillis(2), &request);
    assert_eq!((first, retry.effects.len()), (retry.reply, 0));
    let other = registry.apply(UnixMillis(3), &Command { request: Some(RequestId(2)), ..request });
    assert_eq!(other.reply.unwrap_err().reason(), "name-in-use");
}

#[test]
fn a_batch_is_made_as_a_whole_or_not_at_all() {
    let one = |changes| ZoneUpdate { zone: name("@"), update: Update { prerequisites: vec![], changes } };
    let mut registry = registry(&[plain(create())]);
    let before = octets(&registry);
    let outside = Change::Add(Entry { name: "www.other.peak.".parse().unwrap(), ..a("www", 1) });
    let half = Op::Update(vec![one(vec![Change::Add(a("www", 1))]), one(vec![outside])]);
    let refused = registry.apply(UnixMillis(0), &plain(half)).reply.unwrap_err();
    assert!(matches!(&refused, Refused::Update { index: 1, .. }), "{refused}");
    assert_eq!(octets(&registry), before);
    let whole = Op::Update(vec![one(vec![Change::Add(a("www", 1))]), one(vec![Change::Add(a("api", 2))])]);
    let steps = vec![Step { serial: 8, changed: true }, Step { serial: 9, changed: true }];
    let made = registry.apply(UnixMillis(0), &plain(whole));
    assert_eq!(made.reply, Ok(Applied::Zones(steps)));
    assert!(matches!(&made.effects[..], [Effect::Changed(_), Effect::Changed(_)]));
}

#[test]
fn zones_are_created_once_imported_and_removed() {
    let mut registry = Registry::new(Seed(3));
    let mut apply = |op| registry.apply(UnixMillis(1), &plain(op)).reply;
    let import = |serial, more: &[Entry]| Op::Import { apex: name("@"), entries: [&base(serial), more].concat() };
    assert_eq!(apply(import(7, &[])).unwrap_err().reason(), "registry-no-zone");
    assert_eq!(apply(create()), step(7, true));
    assert_eq!(apply(create()).unwrap_err().reason(), "registry-zone-exists");
    assert_eq!(apply(import(7, &[])), step(7, false));
    assert_eq!(apply(import(7, &[a("www", 1)])), step(8, true));
    assert_eq!(apply(import(20, &[a("www", 1)])), step(20, true));
    assert_eq!(apply(Op::Import { apex: name("@"), entries: vec![] }).unwrap_err().reason(), "registry-zone-faulty");
    assert_eq!(apply(Op::Reads { apex: name("@"), reads: Reads::Strict }), step(20, true));
    assert_eq!(apply(Op::Remove { apex: name("@") }), Ok(Applied::Removed));
    assert_eq!(apply(Op::Remove { apex: name("@") }).unwrap_err().reason(), "registry-no-zone");
}

#[test]
fn time_does_not_go_back() {
    let mut registry = registry(&[]);
    registry.apply(UnixMillis(9), &plain(create()));
    registry.apply(UnixMillis(4), &plain(add("www", 1)));
    assert_eq!(registry.now(), UnixMillis(9));
}

#[test]
fn the_spelling_of_a_name_does_not_depend_on_who_came_first() {
    let one = registry(&[plain(create()), plain(add("a.X", 1)), plain(add("x", 1))]);
    let gone = update(vec![], vec![Change::RemoveName(name("a.x"))]);
    let other = registry(&[plain(create()), plain(add("X", 1)), plain(add("A.x", 1)), plain(gone)]);
    let spelled = |registry: &Registry, at: &str| {
        registry.zone(&name("@")).unwrap().zone().node(&name(at)).unwrap().name().to_string()
    };
    assert_eq!(spelled(&one, "x"), spelled(&other, "X"));
}

#[test]
fn a_command_of_a_later_schema_is_told_from_a_damaged_one() {
    let mut octets = plain(create()).encode();
    assert_eq!(Command::decode(&octets, SCHEMA), Ok(plain(create())));
    octets[0] = SCHEMA + 1;
    assert_eq!(Command::decode(&octets, SCHEMA), Err(SchemaError::TooNew { schema: SCHEMA + 1, knows: SCHEMA }));
    assert_eq!(Command::decode(&octets[..1], SCHEMA), Err(SchemaError::TooNew { schema: SCHEMA + 1, knows: SCHEMA }));
    assert_eq!(Command::decode(&[SCHEMA, 99], SCHEMA), Err(SchemaError::Malformed));
    assert_eq!(Command::decode(&[], SCHEMA), Err(SchemaError::Malformed));
}

#[test]
fn who_knew_all_commands_knows_the_snapshot_and_nobody_else() {
    let leases = plain(Op::Leases(vec![]));
    let (old, new) = (registry(&[plain(create())]), registry(&[plain(create()), leases]));
    let read = |pieces: &[Vec<u8>], knows| {
        let mut decoder = Decoder::new(Seed(1), knows);
        pieces.iter().try_for_each(|piece| decoder.piece(piece))?;
        decoder.finish()
    };
    let (before, after) = (octets(&old), octets(&new));
    assert_eq!(read(&before, FIRST_SCHEMA).map(|read| octets(&read)), Ok(before.clone()));
    assert_eq!(read(&after, SCHEMA).map(|read| octets(&read)), Ok(after.clone()));
    let cause = SchemaError::TooNew { schema: 2, knows: FIRST_SCHEMA };
    assert_eq!(read(&after, FIRST_SCHEMA).unwrap_err(), SnapshotError::Piece { piece: 0, cause });
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused_with_its_place() {
    let pieces = octets(&registry(&[plain(create()), named(1, add("www", 1))]));
    assert_eq!(pieces.len(), 5);
    for cut in 0..pieces.len() {
        assert_eq!(decoded(&pieces[..cut], Seed(1)).unwrap_err(), SnapshotError::Cut(cut as u64));
    }
    for missing in 0..pieces.len() - 1 {
        let mut lacking = pieces.clone();
        lacking.remove(missing);
        assert!(decoded(&lacking, Seed(1)).is_err(), "without piece {missing}");
    }
}

/// Commands over a few names, some of them retries, some refused.
fn commands() -> impl Strategy<Value = Vec<Command>> {
    let at = prop::sample::select(vec!["www", "WWW", "a.www", "b.A.www", "api", "*.api", "@"]);
    let change = (at, 0..6_u8, 0..4_u8).prop_map(|(at, last, kind)| match kind {
        0 | 1 => Change::Add(a(at, last)),
        2 => Change::RemoveRecord { name: name(at), rtype: 1, rdata: [192, 0, 2, last].into() },
        _ => Change::RemoveName(name(at)),
    });
    let prerequisite = prop::option::of(Just(Prerequisite::NameFree(name("www"))));
    let update = (prerequisite, prop::collection::vec(change, 0..4))
        .prop_map(|(prerequisite, changes)| update(prerequisite.into_iter().collect(), changes));
    let import = (1..40_u32, 0..3_u8).prop_map(|(serial, last)| Op::Import {
        apex: name("@"),
        entries: [base(serial), vec![a("www", last)]].concat(),
    });
    let op = prop_oneof![
        20 => update,
        1 => import,
        1 => Just(Op::Remove { apex: name("@") }),
        2 => Just(create()),
        1 => Just(Op::Reads { apex: name("@"), reads: Reads::Strict }),
    ];
    let command =
        (prop::option::of(0..20_u128), op).prop_map(|(request, op)| Command { request: request.map(RequestId), op });
    prop::collection::vec(command, 0..40)
}

proptest! {
    #[test]
    fn the_same_commands_make_the_same_octets_whatever_the_seed(commands in commands(), half in 0..40_usize) {
        let commands: Vec<Command> = std::iter::once(plain(create())).chain(commands).collect();
        let half = half.min(commands.len());
        let mut straight = Registry::new(Seed(1));
        let mut resumed = Registry::new(Seed(2));
        for (at, command) in commands.iter().enumerate() {
            if at == half {
                // As a node does that was given a snapshot on the way.
                resumed = decoded(&octets(&resumed), Seed(5)).unwrap();
            }
            let (one, other) = (straight.apply(UnixMillis(at as u64), command), resumed.apply(UnixMillis(at as u64), command));
            prop_assert_eq!(one.reply, other.reply);
        }
        prop_assert_eq!(octets(&straight), octets(&resumed));
    }

    #[test]
    fn repeating_named_requests_changes_nothing(commands in commands()) {
        let mut once = registry(&[plain(create())]);
        let mut twice = once.clone();
        for (request, command) in commands.into_iter().enumerate() {
            let command = Command { request: Some(RequestId(request as u128)), ..command };
            let reply = once.apply(UnixMillis(5), &command).reply;
            prop_assert_eq!(&twice.apply(UnixMillis(5), &command).reply, &reply);
            prop_assert_eq!(&twice.apply(UnixMillis(5), &command).reply, &reply);
        }
        prop_assert_eq!(octets(&once), octets(&twice));
    }

    #[test]
    fn commands_are_read_as_they_were_written(commands in commands()) {
        for command in commands {
            prop_assert_eq!(Command::decode(&command.encode(), SCHEMA), Ok(command));
        }
    }

    #[test]
    fn no_octets_are_too_odd_to_be_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&octets, SCHEMA);
        let _ = Decoder::new(Seed(1), SCHEMA).piece(&octets);
    }
}
