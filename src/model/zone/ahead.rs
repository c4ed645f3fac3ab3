//! Looking ahead: reading, for many questions at once, what their answers will be made of.
//!
//! A large zone does not fit in the cache, and finding an answer is a chain of reads, each of which says where the next
//! one goes: one question alone waits for memory five or six times in turn. The chains of different questions have
//! nothing to do with one another, so walking them side by side, a step of each in turn, lets the processor wait for
//! many at once. Answering afterwards finds everything at hand. Nothing depends on it but the time that it saves.

use std::hint::black_box;

use super::key::Key;
use super::node::Node;
use super::trie::Walk;
use super::{Rrset, Zones};

/// Questions walked side by side: more than a processor can wait for at once.
const ABREAST: usize = 64;

/// Branches on the way to a name, of 64 ways each: enough for more names than memory holds.
const BRANCHES: usize = 4;

impl Zones {
    /// Reads what the answers to questions for these names begin with. It changes nothing, and forgetting it costs
    /// nothing but time.
    pub fn look_ahead(&self, keys: &[Key]) {
        for keys in keys.chunks(ABREAST) {
            let mut walks = [None; ABREAST];
            for (walk, key) in walks.iter_mut().zip(keys) {
                *walk = self.find(key, 0).map(|zone| zone.nodes.walk(key.hash()));
            }
            look_ahead(&mut walks[..keys.len()]);
        }
    }
}

fn look_ahead(walks: &mut [Option<Walk<'_, Node>>]) {
    for _ in 0..BRANCHES {
        for walk in walks.iter_mut().flatten() {
            walk.step();
        }
    }
    let nodes = || walks.iter().flatten().filter_map(Walk::item);
    // Each loop reads where the one before has learned that something is.
    let mut read = 0;
    for node in nodes() {
        read ^= node.sets().len();
    }
    for node in nodes() {
        read ^= usize::from(node.name().wire()[0]) ^ node.sets().first().map_or(0, Rrset::octets);
    }
    for set in nodes().filter_map(|node| node.sets().first()) {
        read ^= set.touch();
    }
    black_box(read);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Name;
    use crate::model::zone::{Entry, Seed, Zone};

    #[test]
    fn looking_ahead_takes_any_names_and_any_number_of_them() {
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
        zones.look_ahead(&[Key::default()]);
        zones.insert(Arc::new(Zone::load(&apex, Seed(7), &entries).unwrap().zone));
        let names = (0..200).map(|number| format!("n{}.a.peak.", number * 7));
        let keys: Vec<Key> = names
            .chain([".", "peak.", "a.peak.", "elsewhere."].map(str::to_owned))
            .map(|name| {
                let mut key = Key::default();
                key.set(Seed(7), name.parse::<Name>().unwrap().wire());
                key
            })
            .collect();
        zones.look_ahead(&[]);
        zones.look_ahead(&keys);
    }
}
