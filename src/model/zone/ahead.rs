//! Looking ahead: reading, for many questions at once, what their answers will be made of.
//!
//! A large zone does not fit in the cache, and finding an answer is a chain of reads, each of which says where the next
//! one goes: one question alone waits for memory five or six times in turn. The chains of different questions have
//! nothing to do with one another, so walking them side by side, a step of each in turn, lets the processor wait for
//! many at once. Answering afterwards finds everything at hand.

use std::hint::black_box;
use std::sync::Arc;

use super::key::Key;
use super::node::Node;
use super::trie::Walk;
use super::{Aliases, Answer, Zone, Zones, types};

/// Questions looked up side by side: more than a processor can wait for at once.
pub const ABREAST: usize = 32;

/// Branches on the way to a name, of 64 ways each, that are walked side by side; the rest of a longer way is walked alone.
const BRANCHES: usize = 6;

/// Where the answer to a question for one name is to be found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'z> {
    zones: &'z Zones,
    zone: Option<&'z Arc<Zone>>,
    /// The node at exactly the name.
    node: Option<&'z Arc<Node>>,
}

impl<'z> Found<'z> {
    /// The zone that answers a question of this type for the name that was looked up, whose key `key` still is.
    #[must_use]
    #[inline]
    pub fn zone(&self, key: &Key, qtype: u16) -> Option<&'z Arc<Zone>> {
        // DS is not always of the zone that answers other questions for the name.
        if qtype == types::DS { self.zones.find(key, qtype) } else { self.zone }
    }

    /// The answer of [`Found::zone`].
    #[must_use]
    #[inline]
    pub fn answer(&self, zone: &'z Zone, key: &Key, qtype: u16, aliases: &mut Aliases<'z>) -> Answer<'z> {
        if qtype == types::DS {
            zone.answer(key, qtype, aliases)
        } else {
            zone.answer_at(key, qtype, self.node, aliases)
        }
    }
}

impl Zones {
    /// Looks up all of these names, at most [`ABREAST`] of them, and reads what their answers begin with.
    #[must_use]
    #[inline]
    pub fn look_up<'z, 'k>(&'z self, keys: impl Iterator<Item = &'k Key> + Clone) -> [Found<'z>; ABREAST] {
        let mut found = [Found { zones: self, zone: None, node: None }; ABREAST];
        let mut walks = [const { Walk::ended() }; ABREAST];
        let mut count = 0;
        for ((found, walk), key) in found.iter_mut().zip(&mut walks).zip(keys.clone()) {
            count += 1;
            found.zone = self.find(key, 0);
            if let Some(zone) = found.zone {
                *walk = zone.nodes.walk(key.hash());
                walk.hurry();
            }
        }
        let walks = &mut walks[..count];
        go(walks);
        for ((found, walk), key) in found.iter_mut().zip(walks).zip(keys) {
            found.node = walk.finish(key.octets());
        }
        go_on(&found);
        found
    }

    /// Looks up one name.
    #[must_use]
    #[inline]
    pub fn look_up_one(&self, key: &Key) -> Found<'_> {
        let zone = self.find(key, 0);
        Found { zones: self, zone, node: zone.and_then(|zone| zone.nodes.get(key.hash(), key.octets())) }
    }
}

/// Goes all these ways side by side, and reads what stands at their ends.
#[inline]
fn go(walks: &mut [Walk<'_, Node>]) {
    for _ in 0..BRANCHES {
        let mut moved = false;
        for walk in &mut *walks {
            moved |= walk.step();
        }
        if !moved {
            break;
        }
    }
    let nodes = walks.iter().filter_map(Walk::item);
    black_box(nodes.fold(0, |read, node| read ^ node.touch()));
}

/// Does the same for the names that the answers bring records for.
#[inline]
fn go_on(found: &[Found<'_>]) {
    let naming = |found: &&Found<'_>| found.node.is_some_and(|node| node.names_others());
    if found.iter().any(|found| naming(&found)) {
        go_to_targets(found.iter().filter(naming));
    }
}

#[cold]
fn go_to_targets<'f, 'z: 'f>(found: impl Iterator<Item = &'f Found<'z>>) {
    let mut walks = [const { Walk::ended() }; ABREAST];
    let targets = found.flat_map(|found| {
        let sets = found.node.into_iter().flat_map(|node| node.sets());
        let zone = found.zone;
        sets.flat_map(|set| set.targets()).filter_map(move |target| Some((zone?, target)))
    });
    let mut count = 0;
    for (walk, (zone, target)) in walks.iter_mut().zip(targets) {
        *walk = zone.nodes.walk(target.hash());
        walk.hurry();
        count += 1;
    }
    go(&mut walks[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::model::zone::{End, Entry, Seed};

    fn key(name: &str) -> Key {
        let mut key = Key::default();
        key.set(Seed(7), name.parse::<Name>().unwrap().wire());
        key
    }

    fn zones() -> Zones {
        let apex: Name = "peak.".parse().unwrap();
        let entry = |name: &str, rtype, rdata: &[u8]| Entry {
            name: name.parse().unwrap(),
            rtype,
            ttl: 30,
            rdata: rdata.into(),
        };
        let soa: Vec<u8> = [&[0, 0][..], &[0; 20]].concat();
        let mut entries = vec![entry("peak.", 6, &soa), entry("peak.", 2, b"\x02ns\x02de\0")];
        entries.extend((0..1000).map(|number| entry(&format!("n{number}.a.peak."), 1, &[192, 0, 2, 1])));
        let mut zones = Zones::new(Seed(7));
        zones.insert(Arc::new(Zone::load(&apex, Seed(7), &entries).unwrap().zone));
        zones
    }

    fn answer<'z>(found: &Found<'z>, key: &Key, qtype: u16) -> Option<Answer<'z>> {
        found.zone(key, qtype).map(|zone| found.answer(zone, key, qtype, &mut Aliases::default()))
    }

    #[test]
    fn names_looked_up_together_are_answered_like_each_alone() {
        let zones = zones();
        let names = (0..28).map(|number| format!("N{}.a.peak.", number * 40));
        let keys: Vec<Key> =
            names.chain([".", "peak.", "a.peak.", "elsewhere."].map(str::to_owned)).map(|name| key(&name)).collect();
        let found = zones.look_up(keys.iter());
        for (found, key) in found.iter().zip(&keys) {
            for qtype in [types::A, types::NS, types::DS] {
                let end = |answer: Option<Answer<'_>>| answer.map(|answer| format!("{:?}", answer.end));
                let alone = zones.find(key, qtype).map(|zone| zone.answer(key, qtype, &mut Aliases::default()));
                assert_eq!(end(answer(found, key, qtype)), end(alone));
                let one = zones.look_up_one(key);
                assert_eq!(end(answer(&one, key, qtype)), end(answer(found, key, qtype)));
            }
        }
        assert!(matches!(answer(&found[1], &keys[1], types::A).unwrap().end, End::Data(_)));
        assert!(answer(&found[28], &keys[28], types::A).is_none());
    }

    #[test]
    fn no_names_and_no_zones_are_nothing_found() {
        let name = key("peak.");
        assert!(zones().look_up([].iter())[0].zone(&name, types::A).is_none());
        assert!(Zones::new(Seed(7)).look_up([key("peak.")].iter())[0].zone(&name, types::A).is_none());
    }
}
