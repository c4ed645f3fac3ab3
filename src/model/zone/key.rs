//! A name made ready for looking up: folded to lower case, split at its labels, and hashed once for every suffix.
//!
//! The hash runs from the root to the left, so one pass over a name gives the hash of the name and of each of its
//! ancestors: zone, cuts, closest encloser and wildcard are all found without touching the octets again.

/// Octets a key has room for: a name's 255, and whole words beyond them.
const ROOM: usize = 264;

/// What makes hashes unpredictable to who chooses names (drawn once a process).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seed(pub u64);

/// A name ready for looking up. Made once a thread and set anew for each question: setting allocates nothing.
pub struct Key {
    /// The name in lower case, zeros after it.
    octets: [u8; ROOM],
    length: usize,
    labels: usize,
    /// Where each label begins, leftmost first.
    starts: [u8; 128],
    /// The hash of the suffix of so many labels.
    hashes: [u64; 128],
}

impl Default for Key {
    fn default() -> Self {
        Self { octets: [0; ROOM], length: 1, labels: 0, starts: [0; 128], hashes: [0; 128] }
    }
}

impl Key {
    /// Takes `name`, the uncompressed wire form of a domain name as `model::Name` or a checked question holds it.
    pub fn set(&mut self, seed: Seed, name: &[u8]) {
        debug_assert!(!name.is_empty() && name.len() <= 255, "a name has 1 to 255 octets");
        self.fold(name);
        self.split();
        let mut hash = seed.0;
        self.hashes[0] = hash;
        for labels in 1..=self.labels {
            hash = self.hash_label(hash, usize::from(self.starts[self.labels - labels]));
            self.hashes[labels] = hash;
        }
    }

    /// Copies the name in lower case (RFC 4343 §3). Length octets are below 64 and no letters, so they stay.
    fn fold(&mut self, name: &[u8]) {
        let (words, rest) = name.as_chunks::<8>();
        let (room, _) = self.octets.as_chunks_mut::<8>();
        for (into, word) in room.iter_mut().zip(words) {
            *into = fold_word(u64::from_le_bytes(*word)).to_le_bytes();
        }
        let mut last = 0;
        for (place, octet) in rest.iter().enumerate() {
            last |= u64::from(*octet) << (8 * place);
        }
        room[words.len()] = fold_word(last).to_le_bytes();
        self.length = name.len();
    }

    fn split(&mut self) {
        let mut at = 0;
        let mut labels = 0;
        while at < self.length && self.octets[at] != 0 && labels < 127 {
            self.starts[labels] = at as u8;
            labels += 1;
            at += usize::from(self.octets[at]) + 1;
        }
        self.labels = labels;
    }

    /// Adds the label that begins at `start` to the hash of what stands to its right.
    #[inline]
    fn hash_label(&self, mut hash: u64, start: usize) -> u64 {
        let mut at = start;
        let mut left = usize::from(self.octets[start]) + 1;
        while left > 8 {
            hash = mix(hash ^ self.word(at));
            at += 8;
            left -= 8;
        }
        mix(hash ^ (self.word(at) & (u64::MAX >> (64 - 8 * left))))
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.octets.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
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

/// Whether two names in wire form are the same but for case. Length octets are below 64 and no letters.
#[inline]
pub(super) fn same_name(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let differ = |(one, other): (&[u8; 8], &[u8; 8])| {
        let (one, other) = (u64::from_le_bytes(*one), u64::from_le_bytes(*other));
        // Nearly all names are in lower case on both sides.
        one != other && fold_word(one) != fold_word(other)
    };
    if words.iter().zip(other_words).any(differ) {
        return false;
    }
    match (one.last_chunk(), other.last_chunk()) {
        // The last eight octets hold what is left, and some that were compared before.
        (Some(one), Some(other)) => !differ((one, other)),
        _ => rest.eq_ignore_ascii_case(other_rest),
    }
}

/// Folds the ASCII capitals among eight octets, without a branch.
#[inline]
const fn fold_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * (0x80 - 0x41);
    let after_z = low + ONES * (0x7f - 0x5a);
    let capitals = (from_a ^ after_z) & !word & (ONES * 0x80);
    word | (capitals >> 2)
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
            let word = u64::from_le_bytes([octet; 8]);
            assert_eq!(fold_word(word).to_le_bytes(), [octet.to_ascii_lowercase(); 8], "octet {octet}");
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
