//! A persistent map from names to values: a hash trie of 64-way branches, each shared until it is changed.
//!
//! Cloning copies one branch pointer. Changing a clone copies the branches on the way to the change, a few hundred
//! octets each, whatever the size of the map; where nobody shares them they are changed in place. One hop per
//! branch: a branch's bitmap stands with its parent's pointer to it.
//!
//! Invariants: a slot's index among its branch's slots is the number of lower bits set in the bitmap; no branch holds a
//! single leaf and nothing else; equal names have equal hashes; branches past the hash's last bit are lists.

use std::fmt;
use std::sync::Arc;

use super::key::same_name;

/// Bits of the hash that one branch decides.
const STEP: u32 = 6;
const BITS: u32 = u64::BITS;

/// What a trie holds has a name.
pub(super) trait Named {
    /// The name's hash.
    fn hash(&self) -> u64;
    /// The name's uncompressed wire form.
    fn wire(&self) -> &[u8];
}

/// The map. Names compare without case.
pub(super) struct Trie<T: ?Sized> {
    root: Option<Slot<T>>,
    len: usize,
}

struct Branch<T: ?Sized> {
    /// The slots that there are; none of them in a list of names with equal hashes.
    bitmap: u64,
    slots: Arc<[Slot<T>]>,
}

enum Slot<T: ?Sized> {
    Leaf(Arc<T>),
    Branch(Branch<T>),
}

impl<T: ?Sized> Clone for Trie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T: ?Sized> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self { bitmap: self.bitmap, slots: Arc::clone(&self.slots) }
    }
}

impl<T: ?Sized> Clone for Slot<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(item) => Self::Leaf(Arc::clone(item)),
            Self::Branch(branch) => Self::Branch(branch.clone()),
        }
    }
}

impl<T: ?Sized> Default for Trie<T> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Trie<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: ?Sized> Trie<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values as they are shared, in no meaningful order.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Arc<T>> {
        Shared { stack: vec![self.root.as_slice().iter()] }
    }

    /// All values, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shared().map(AsRef::as_ref)
    }

    /// The beginning of the way to the name with this hash.
    #[inline]
    pub(super) fn walk(&self, hash: u64) -> Walk<'_, T> {
        Walk { rest: hash, at: self.root.as_ref() }
    }
}

/// The way to one name, a step at a time; the name itself is not compared.
pub(super) struct Walk<'t, T: ?Sized> {
    /// The bits of the hash that are still to be looked at.
    rest: u64,
    at: Option<&'t Slot<T>>,
}

impl<T: ?Sized> Clone for Walk<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Walk<'_, T> {}

impl<'t, T: ?Sized> Walk<'t, T> {
    /// A way that leads to nothing.
    pub(super) const fn ended() -> Self {
        Self { rest: 0, at: None }
    }

    /// Goes on over full branches: the upper ones of a large trie are, and all questions find them in the cache.
    #[inline]
    pub(super) fn hurry(&mut self) {
        while let Some(Slot::Branch(branch)) = self.at
            && branch.bitmap == u64::MAX
        {
            self.at = branch.slots.get((self.rest & 63) as usize);
            self.rest >>= STEP;
        }
    }

    /// Goes on by one branch; false when the way had ended before.
    #[inline]
    pub(super) fn step(&mut self) -> bool {
        let Some(Slot::Branch(branch)) = self.at else { return false };
        if branch.bitmap == 0 {
            return false;
        }
        self.at = branch.slot(self.rest);
        self.rest >>= STEP;
        true
    }

    /// Goes to the end, and gives what stands there if that is its name.
    #[inline]
    pub(super) fn finish(&mut self, octets: &[u8]) -> Option<&'t Arc<T>>
    where
        T: Named,
    {
        while self.step() {}
        match self.at? {
            Slot::Leaf(item) => is_named(item.as_ref(), octets).then_some(item),
            Slot::Branch(list) => list.leaves().find(|item| is_named(item.as_ref(), octets)),
        }
    }

    /// What stands at the end, once it is reached; it may have another name.
    #[inline]
    pub(super) fn item(&self) -> Option<&'t Arc<T>> {
        match self.at? {
            Slot::Leaf(item) => Some(item),
            Slot::Branch(_) => None,
        }
    }
}

impl<T: ?Sized + Named> Trie<T> {
    /// A map of all these at once, which have different names and come in the order of their hashes with the bits the other
    /// way round: so branches, which look at the low bits first, are made one after another and once each.
    pub(super) fn of(items: Vec<Arc<T>>) -> Self {
        let hashes: Vec<u64> = items.iter().map(|item| item.hash()).collect();
        debug_assert!(hashes.is_sorted_by_key(|hash| hash.reverse_bits()), "branches are made once each");
        let len = items.len();
        let root = (len > 0).then(|| Slot::of(&hashes, &mut items.into_iter(), 0)).flatten();
        Self { root, len }
    }

    /// The value at the name with this hash and these octets, which may be of either case.
    #[inline]
    pub(super) fn get(&self, hash: u64, octets: &[u8]) -> Option<&Arc<T>> {
        let mut walk = self.walk(hash);
        walk.hurry();
        walk.finish(octets)
    }

    /// The place of the value at the name with this hash and these octets, for putting another there of the same name; what
    /// others share of the way is copied first.
    pub(super) fn get_mut(&mut self, hash: u64, octets: &[u8]) -> Option<&mut Arc<T>> {
        // Asked first, so that a miss copies nothing.
        self.get(hash, octets)?;
        let mut slot = self.root.as_mut()?;
        let mut shift = 0;
        loop {
            let branch = match slot {
                Slot::Leaf(item) => return Some(item),
                Slot::Branch(branch) => branch,
            };
            let index = branch.find(hash, shift, octets)?;
            slot = &mut Arc::make_mut(&mut branch.slots)[index];
            shift += STEP;
        }
    }

    /// Puts `item` at its name; gives what stood there.
    pub(super) fn insert(&mut self, item: Arc<T>) -> Option<Arc<T>> {
        let replaced = match &mut self.root {
            Some(root) => root.insert(0, item),
            None => {
                self.root = Some(Slot::Leaf(item));
                None
            }
        };
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes away the value at the name with this hash and these octets.
    pub(super) fn remove(&mut self, hash: u64, octets: &[u8]) -> Option<Arc<T>> {
        let found = Arc::clone(self.get(hash, octets)?);
        self.len -= 1;
        match &mut self.root {
            Some(Slot::Branch(root)) => root.remove(0, hash, octets),
            Some(Slot::Leaf(_)) | None => self.root = None,
        }
        if let Some(Slot::Branch(root)) = &self.root
            && let [only] = root.slots.as_ref()
            && let Slot::Leaf(_) = only
        {
            self.root = Some(only.clone());
        }
        Some(found)
    }
}

#[inline]
fn is_named<T: ?Sized + Named>(item: &T, octets: &[u8]) -> bool {
    same_name(item.wire(), octets)
}

impl<T: ?Sized> Branch<T> {
    /// The slot for the hash whose lowest bits are `rest`.
    #[inline]
    fn slot(&self, rest: u64) -> Option<&Slot<T>> {
        let digit = rest & 63;
        if self.bitmap >> digit & 1 == 0 {
            return None;
        }
        self.slots.get(self.index(digit))
    }

    /// How many slots stand before this one.
    #[inline]
    fn index(&self, digit: u64) -> usize {
        (self.bitmap & ((1 << digit) - 1)).count_ones() as usize
    }

    fn leaves(&self) -> impl Iterator<Item = &Arc<T>> + use<'_, T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Leaf(item) => Some(item),
            Slot::Branch(_) => None,
        })
    }

    fn put(&mut self, index: usize, slot: Slot<T>) {
        let (before, after) = self.slots.split_at(index);
        self.slots = before.iter().cloned().chain(std::iter::once(slot)).chain(after.iter().cloned()).collect();
    }

    fn take(&mut self, index: usize) {
        let (before, after) = self.slots.split_at(index);
        self.slots = before.iter().chain(&after[1..]).cloned().collect();
    }
}

impl<T: ?Sized + Named> Slot<T> {
    /// Takes as many items as there are hashes, all of which are equal below `shift`.
    fn of(hashes: &[u64], items: &mut impl Iterator<Item = Arc<T>>, shift: u32) -> Option<Self> {
        if hashes.len() == 1 {
            return items.next().map(Self::Leaf);
        }
        if shift >= BITS {
            let slots = items.take(hashes.len()).map(Self::Leaf).collect();
            return Some(Self::Branch(Branch { bitmap: 0, slots }));
        }
        let groups = hashes.chunk_by(|one, other| digit(*one, shift) == digit(*other, shift));
        let mut slots: Vec<(u64, Self)> =
            groups.filter_map(|group| Some((digit(group[0], shift), Self::of(group, items, shift + STEP)?))).collect();
        slots.sort_unstable_by_key(|(digit, _)| *digit);
        let bitmap = slots.iter().fold(0, |bitmap, (digit, _)| bitmap | 1 << digit);
        Some(Self::Branch(Branch { bitmap, slots: slots.into_iter().map(|(_, slot)| slot).collect() }))
    }

    fn insert(&mut self, shift: u32, item: Arc<T>) -> Option<Arc<T>> {
        match self {
            Self::Leaf(held) if is_named(held.as_ref(), item.wire()) => Some(std::mem::replace(held, item)),
            Self::Leaf(held) => {
                *self = Self::Branch(Branch::of_two(shift, Arc::clone(held), item));
                None
            }
            Self::Branch(branch) => branch.insert(shift, item),
        }
    }
}

impl<T: ?Sized + Named> Branch<T> {
    fn of_two(shift: u32, one: Arc<T>, other: Arc<T>) -> Self {
        if shift >= BITS {
            return Self { bitmap: 0, slots: [one, other].map(Slot::Leaf).into() };
        }
        let (at, other_at) = (digit(one.hash(), shift), digit(other.hash(), shift));
        let bitmap = 1 << at | 1 << other_at;
        let slots = if at == other_at {
            Arc::from([Slot::Branch(Self::of_two(shift + STEP, one, other))])
        } else {
            Arc::from(if at < other_at { [one, other] } else { [other, one] }.map(Slot::Leaf))
        };
        Self { bitmap, slots }
    }

    /// Where the slot is that leads to the name.
    fn find(&self, hash: u64, shift: u32, octets: &[u8]) -> Option<usize> {
        if shift >= BITS {
            return self.leaves().position(|item| is_named(item.as_ref(), octets));
        }
        let digit = digit(hash, shift);
        (self.bitmap >> digit & 1 == 1).then(|| self.index(digit))
    }

    fn insert(&mut self, shift: u32, item: Arc<T>) -> Option<Arc<T>> {
        if let Some(index) = self.find(item.hash(), shift, item.wire()) {
            return Arc::make_mut(&mut self.slots)[index].insert(shift + STEP, item);
        }
        if shift >= BITS {
            self.put(self.slots.len(), Slot::Leaf(item));
        } else {
            let digit = digit(item.hash(), shift);
            self.put(self.index(digit), Slot::Leaf(item));
            self.bitmap |= 1 << digit;
        }
        None
    }

    /// Takes away the name, which is there.
    fn remove(&mut self, shift: u32, hash: u64, octets: &[u8]) {
        let Some(index) = self.find(hash, shift, octets) else { return };
        match &mut Arc::make_mut(&mut self.slots)[index] {
            Slot::Leaf(_) => {
                if shift < BITS {
                    self.bitmap &= !(1 << digit(hash, shift));
                }
                self.take(index);
            }
            slot @ Slot::Branch(_) => {
                let Slot::Branch(below) = slot else { return };
                below.remove(shift + STEP, hash, octets);
                if let [only @ Slot::Leaf(_)] = below.slots.as_ref() {
                    *slot = only.clone();
                }
            }
        }
    }
}

#[inline]
const fn digit(hash: u64, shift: u32) -> u64 {
    (hash >> shift) & 63
}

/// The values of a trie.
struct Shared<'t, T: ?Sized> {
    stack: Vec<std::slice::Iter<'t, Slot<T>>>,
}

impl<'t, T: ?Sized> Iterator for Shared<'t, T> {
    type Item = &'t Arc<T>;

    fn next(&mut self) -> Option<&'t Arc<T>> {
        while let Some(level) = self.stack.last_mut() {
            match level.next() {
                Some(Slot::Leaf(item)) => return Some(item),
                Some(Slot::Branch(below)) => self.stack.push(below.slots.iter()),
                None => {
                    self.stack.pop();
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Name;

    #[derive(Clone, Debug)]
    struct Item {
        name: Name,
        hash: u64,
        value: u32,
    }

    impl Named for Item {
        fn hash(&self) -> u64 {
            self.hash
        }

        fn wire(&self) -> &[u8] {
            self.name.wire()
        }
    }

    fn item(number: u32, hash: u64, value: u32) -> Arc<Item> {
        Arc::new(Item { name: format!("n{number}.peak.").parse().unwrap(), hash, value })
    }

    fn change(place: &mut Arc<Item>, value: u32) {
        *place = Arc::new(Item { value, ..Item::clone(place) });
    }

    /// A hash with few different values and few different bits, so that splits, lists and collapses all happen.
    fn poor_hash(number: u32) -> u64 {
        u64::from(number % 7).rotate_right(6 * (number % 3)) | u64::from(number & 1) << 60
    }

    fn octets(number: u32) -> Vec<u8> {
        format!("N{number}.peak.").parse::<Name>().unwrap().wire().to_vec()
    }

    fn good_hash(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_clone_keeps_its_values_when_the_original_changes() {
        let mut trie = Trie::default();
        for number in 0..1000 {
            trie.insert(item(number, good_hash(number), 0));
        }
        let old = trie.clone();
        change(trie.get_mut(good_hash(7), &octets(7)).unwrap(), 1);
        trie.remove(0, &octets(0)).unwrap();
        assert_eq!(old.get(good_hash(7), &octets(7)).unwrap().value, 0);
        assert_eq!(trie.get(good_hash(7), &octets(7)).unwrap().value, 1);
        assert_eq!((old.len(), trie.len(), old.iter().count(), trie.iter().count()), (1000, 999, 1000, 999));
    }

    #[test]
    fn a_trie_made_at_once_holds_what_one_made_step_by_step_does() {
        for (hash, count) in [(good_hash as fn(u32) -> u64, 5_000), (poor_hash, 40), (|_| 7, 3), (good_hash, 1)] {
            let mut items: Vec<_> = (0..count).map(|number| item(number, hash(number), number)).collect();
            items.sort_by_key(|item| item.hash.reverse_bits());
            let mut trie = Trie::of(items);
            assert_eq!((trie.len(), trie.iter().count()), (count as usize, count as usize));
            for number in 0..count {
                assert_eq!(trie.get(hash(number), &octets(number)).unwrap().value, number);
                assert_eq!(trie.remove(hash(number), &octets(number)).unwrap().value, number);
            }
            assert_eq!((trie.len(), trie.iter().count()), (0, 0));
        }
        assert_eq!(Trie::<Item>::of(Vec::new()).iter().count(), 0);
    }

    proptest! {
        #[test]
        fn a_trie_holds_what_a_plain_map_holds(steps in prop::collection::vec((0u32..40, 0u32..3), 0..200)) {
            let (mut trie, mut plain) = (Trie::<Item>::default(), BTreeMap::new());
            for (step, (number, what)) in steps.into_iter().enumerate() {
                let value = step as u32;
                match what {
                    0 => {
                        let removed = trie.remove(poor_hash(number), &octets(number)).map(|held| held.value);
                        prop_assert_eq!(removed, plain.remove(&number));
                    }
                    1 => {
                        let replaced = trie.insert(item(number, poor_hash(number), value)).map(|held| held.value);
                        prop_assert_eq!(replaced, plain.insert(number, value));
                    }
                    _ => {
                        let changed = trie.get_mut(poor_hash(number), &octets(number)).map(|held| change(held, value));
                        prop_assert_eq!(changed, plain.get_mut(&number).map(|held| *held = value));
                    }
                }
                prop_assert_eq!(trie.len(), plain.len());
            }
            for number in 0..40 {
                let held = trie.get(poor_hash(number), &octets(number)).map(|held| held.value);
                prop_assert_eq!(held, plain.get(&number).copied());
                let walked = trie.walk(poor_hash(number)).finish(&octets(number)).map(|held| held.value);
                prop_assert_eq!(walked, held);
            }
            let mut values: Vec<u32> = trie.iter().map(|held| held.value).collect();
            let mut expected: Vec<u32> = plain.into_values().collect();
            values.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(values, expected);
        }
    }
}
