//! A name made ready for looking up: folded to lower case, split at its labels, and hashed once for every suffix.
//!
//! The hash runs from the root to the left, so one pass over a name gives the hash of the name and of each of its
//! ancestors: zone, cuts, closest encloser and wildcard are all found without touching the octets again.

/// Octets a key has room for: a name's 255, and a whole word from each of them on.
const ROOM: usize = 264;

/// What makes hashes unpredictable to who chooses names (drawn once a process).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seed(pub u64);

/// A name ready for looking up. Made once a thread and set anew for each question: setting allocates nothing.
pub struct Key {
    length: usize,
    labels: usize,
    /// The name in lower case; behind it stands anything.
    octets: [u8; ROOM],
    /// Where each label begins, leftmost first.
    starts: [u8; 128],
    /// The hash of the suffix of so many labels.
    hashes: [u64; 128],
}

impl Default for Key {
    fn default() -> Self {
        Self { length: 1, labels: 0, octets: [0; ROOM], starts: [0; 128], hashes: [0; 128] }
    }
}

impl Key {
    /// Takes `name`, the uncompressed wire form of a domain name as `model::Name` holds it.
    #[inline]
    pub fn set(&mut self, seed: Seed, name: &[u8]) {
        let read = self.read(seed, name);
        debug_assert!(read == Some(name.len()), "a name has 1 to 255 octets");
    }

    /// Takes the name whose uncompressed wire form these octets begin with; gives how many are its own. None, and the key is
    /// the root's, when they begin with none.
    #[inline]
    pub fn read(&mut self, seed: Seed, octets: &[u8]) -> Option<usize> {
        let mut hash = seed.0;
        self.hashes[0] = hash;
        let Some((name, labels)) = self.split(octets) else {
            (self.length, self.labels, self.octets[0]) = (1, 0, 0);
            return None;
        };
        (self.length, self.labels) = (name.len(), labels);
        fold(name, &mut self.octets);
        for (start, into) in self.starts[..labels].iter().rev().zip(&mut self.hashes[1..]) {
            hash = hash_label(&self.octets, hash, *start);
            *into = hash;
        }
        Some(name.len())
    }

    /// The name that the octets begin with, and how many labels it has. Notes where they begin.
    #[inline]
    fn split<'o>(&mut self, octets: &'o [u8]) -> Option<(&'o [u8], usize)> {
        let (mut at, mut labels) = (0_usize, 0);
        loop {
            let length = usize::from(*octets.get(at)?);
            if length == 0 {
                break;
            }
            // A pointer, or a name that is too long.
            if length > 63 || at > 253 {
                return None;
            }
            *self.starts.get_mut(labels)? = at as u8;
            labels += 1;
            at += length + 1;
        }
        let name = octets.get(..=at).filter(|name| name.len() <= 255)?;
        Some((name, labels))
    }

    /// The number of labels, the root's not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The name in lower case.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// The hash of the whole name: the same for the same name and seed, and for no other name but by accident.
    #[must_use]
    #[inline]
    pub fn hash(&self) -> u64 {
        self.hashes[self.labels]
    }

    /// Hash and octets of the ancestor with so many labels, which are no more than the name has.
    #[must_use]
    pub(super) fn suffix(&self, labels: usize) -> (u64, &[u8]) {
        let start = if labels == self.labels { 0 } else { self.start_of_suffix(labels) };
        (self.hashes[labels], &self.octets[start..self.length])
    }

    fn start_of_suffix(&self, labels: usize) -> usize {
        if labels == 0 { self.length - 1 } else { usize::from(self.starts[self.labels - labels]) }
    }

    /// The hash of the wildcard right below the ancestor with so many labels (RFC 4592 §2.1.1).
    #[must_use]
    pub(super) fn wildcard_hash(&self, labels: usize) -> u64 {
        mix(self.hashes[labels] ^ u64::from_le_bytes([1, b'*', 0, 0, 0, 0, 0, 0]))
    }
}

/// Copies the name in lower case (RFC 4343 §3). Length octets are below 64 and no letters, so they stay.
#[inline]
fn fold(name: &[u8], into: &mut [u8; ROOM]) {
    // What whole blocks leave over is folded in a block that ends with the name, some octets of it a second time.
    if let (Some(first), Some(last)) = (name.first_chunk::<BLOCK>(), name.last_chunk::<BLOCK>()) {
        into[..BLOCK].copy_from_slice(&folded(*first));
        if name.len() > 2 * BLOCK {
            for (into, block) in into.as_chunks_mut::<BLOCK>().0.iter_mut().zip(name.as_chunks::<BLOCK>().0) {
                *into = folded(*block);
            }
        }
        put(into, name.len() - BLOCK, folded(*last));
    } else if let (Some(first), Some(last)) = (name.first_chunk::<WORD>(), name.last_chunk::<WORD>()) {
        into[..WORD].copy_from_slice(&folded_word(*first));
        put(into, name.len() - WORD, folded_word(*last));
    } else {
        let mut word = [0; WORD];
        word[..name.len()].copy_from_slice(name);
        into[..WORD].copy_from_slice(&folded_word(word));
    }
}

/// Puts octets of a name at their place, which is in the room.
#[inline]
fn put<const N: usize>(into: &mut [u8; ROOM], at: usize, octets: [u8; N]) {
    if let Some(into) = into.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) {
        *into = octets;
    }
}

/// Adds the label that begins at `start` to the hash of what stands to its right.
#[inline]
fn hash_label(octets: &[u8; ROOM], mut hash: u64, start: u8) -> u64 {
    let mut at = usize::from(start);
    let mut left = usize::from(octets[at]) + 1;
    while left > 8 {
        hash = mix(hash ^ word(octets, at));
        at += 8;
        left -= 8;
    }
    mix(hash ^ (word(octets, at) & (u64::MAX >> (64 - 8 * left))))
}

/// The eight octets from `at` on, which is in a name.
#[inline]
fn word(octets: &[u8; ROOM], at: usize) -> u64 {
    octets[at & 255..][..8].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Octets that are folded and compared at once.
const BLOCK: usize = 16;
/// The same for names that are shorter than a block.
const WORD: usize = 8;

/// Whether two names in wire form are the same but for case. Length octets are below 64 and no letters.
#[inline]
pub(super) fn same_name(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // Nearly all names are in lower case on both sides.
    match (one.last_chunk::<BLOCK>(), other.last_chunk::<BLOCK>()) {
        (Some(last), Some(other_last)) => {
            let (blocks, others) = (one.as_chunks::<BLOCK>().0, other.as_chunks::<BLOCK>().0);
            // The last block holds what is left, and some that is compared twice.
            same(last, other_last) && blocks.iter().zip(others).all(|(one, other)| same(one, other))
        }
        _ => match (one.first_chunk::<8>(), one.last_chunk::<8>(), other.first_chunk::<8>(), other.last_chunk::<8>()) {
            (Some(first), Some(last), Some(other_first), Some(other_last)) => {
                same(first, other_first) && same(last, other_last)
            }
            _ => one.eq_ignore_ascii_case(other),
        },
    }
}

#[inline]
fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    #[cold]
    fn but_for_case<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
        one.eq_ignore_ascii_case(other)
    }
    one == other || but_for_case(one, other)
}

/// The octets with ASCII capitals made small, all at once and without a branch.
#[inline]
fn folded<const N: usize>(mut octets: [u8; N]) -> [u8; N] {
    for octet in &mut octets {
        *octet |= u8::from(octet.is_ascii_uppercase()) << 5;
    }
    octets
}

/// The same for a word: a register holds it, so sums that carry into no neighbour find the capitals.
#[inline]
const fn folded_word(octets: [u8; WORD]) -> [u8; WORD] {
    const EACH: u64 = u64::from_le_bytes([1; WORD]);
    const TOP: u64 = EACH << 7;
    let word = u64::from_le_bytes(octets);
    let low = word & !TOP;
    let (from_a, past_z) = (low + EACH * (0x80 - b'A' as u64), low + EACH * (0x7f - b'Z' as u64));
    let capitals = (from_a ^ past_z) & !word & TOP;
    (word | capitals >> 2).to_le_bytes()
}

/// Multiplies into 128 bits and folds the halves: every bit of the result depends on every bit of the word.
#[inline]
const fn mix(word: u64) -> u64 {
    let product = (word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn key(text: &str) -> Key {
        let mut key = Key::default();
        key.set(Seed(7), text.parse::<Name>().unwrap().wire());
        key
    }

    #[test]
    fn the_hash_of_a_suffix_is_the_hash_of_the_ancestor() {
        let (deep, apex, root) = (key("a.long-label-of-some-length.Shop.peak."), key("shop.PEAK."), key("."));
        assert_eq!(deep.suffix(2), (apex.hash(), apex.octets()));
        assert_eq!(deep.suffix(0), (root.hash(), root.octets()));
        assert_eq!(deep.suffix(4), (deep.hash(), deep.octets()));
    }

    #[test]
    fn a_wildcards_hash_is_that_of_the_name_with_an_asterisk() {
        assert_eq!(key("x.y.shop.peak.").wildcard_hash(2), key("*.shop.peak.").hash());
    }

    #[test]
    fn every_octet_folds_as_ascii_does() {
        for octet in 0..=255u8 {
            assert_eq!(folded([octet; BLOCK]), [octet.to_ascii_lowercase(); BLOCK], "octet {octet}");
            for other in [0, b'@', b'Q', b'[', 0x7f, 0xff] {
                let word = [octet, other, octet, octet, other, other, octet, octet];
                assert_eq!(folded_word(word), word.map(|octet| octet.to_ascii_lowercase()), "{word:?}");
            }
        }
        for length in 1..=255 {
            let (name, mut room) = (vec![b'Q'; length], [0; ROOM]);
            fold(&name, &mut room);
            assert_eq!(room[..length], vec![b'q'; length]);
        }
    }

    #[test]
    fn a_key_forgets_the_name_it_held_before() {
        let fresh = key("b.peak.");
        let mut key = key("a-rather-long-first-label.another.shop.peak.");
        key.set(Seed(7), "b.peak.".parse::<Name>().unwrap().wire());
        assert_eq!((key.labels(), key.octets()), (2, b"\x01b\x04peak\0".as_slice()));
        assert_eq!(key.hash(), fresh.hash());
    }

    #[test]
    fn octets_that_begin_with_no_name_leave_the_key_of_the_root() {
        let root = key(".");
        let long = [&[63; 64][..]; 5].concat();
        for octets in [&b""[..], b"\x04pea", b"\x01b\x04peak", b"\x04peak\xc0\x0c", b"\x40", &long] {
            let mut key = key("a-rather-long-first-label.another.shop.peak.");
            assert_eq!(key.read(Seed(7), octets), None, "{octets:?}");
            assert_eq!((key.labels(), key.octets(), key.hash()), (0, root.octets(), root.hash()), "{octets:?}");
        }
        assert_eq!(Key::default().read(Seed(7), b"\x01b\x04peak\0\0\x01"), Some(8));
    }

    #[test]
    fn names_are_the_same_but_for_case_whatever_their_length() {
        for length in 1..40 {
            let (small, capital) = (vec![b'z'; length], vec![b'Z'; length]);
            assert!(same_name(&small, &capital), "{length}");
            assert!(!same_name(&small, &capital[1..]), "{length}");
            for place in 0..length {
                let mut other = capital.clone();
                other[place] = b'[';
                assert!(!same_name(&small, &other), "octet {place} of {length}");
            }
        }
    }

    #[test]
    fn a_label_boundary_is_part_of_the_hash() {
        assert_ne!(key("ab.c.").hash(), key("a.bc.").hash());
        assert_ne!(key("abc.").hash(), key("ab.c.").hash());
    }

    #[test]
    fn the_longest_name_and_the_most_labels_fit() {
        let most = "a.".repeat(127);
        assert_eq!(key(&most).labels(), 127);
        let label = "b".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.", "c".repeat(61));
        assert_eq!(key(&longest).octets().len(), 255);
    }
}
