//! A persistent map from names to values: a hash trie of 64-way branches, each shared until it is changed.
//!
//! Cloning copies one branch pointer. Changing a clone copies the branches on the way to the change, a few hundred
//! octets each, whatever the size of the map; where nobody shares them they are changed in place. One hop per
//! branch: a branch's bitmap stands with its parent's pointer to it.
//!
//! Invariants: a slot's index among its branch's slots is the number of lower bits set in the bitmap; below the
//! root no branch holds a single leaf; equal names have equal hashes; branches past the hash's last bit are lists.

use std::fmt;
use std::sync::Arc;

use super::key::same_name;
use crate::model::Name;

/// Bits of the hash that one branch decides.
const STEP: u32 = 6;
const BITS: u32 = u64::BITS;

/// What a trie holds has a name.
pub(super) trait Named {
    fn name(&self) -> &Name;
}

/// The map. Names compare without case.
pub(super) struct Trie<T> {
    root: Branch<T>,
    len: usize,
}

struct Branch<T> {
    bitmap: u64,
    slots: Arc<[Slot<T>]>,
}

enum Slot<T> {
    Leaf { hash: u64, item: Arc<T> },
    Branch(Branch<T>),
}

impl<T> Clone for Trie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self { bitmap: self.bitmap, slots: Arc::clone(&self.slots) }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf { hash, item } => Self::Leaf { hash: *hash, item: Arc::clone(item) },
            Self::Branch(branch) => Self::Branch(branch.clone()),
        }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Branch::default(), len: 0 }
    }
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Self { bitmap: 0, slots: Arc::new([]) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Trie<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T> Trie<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values as they are shared, in no meaningful order.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Arc<T>> {
        Shared { stack: vec![self.root.slots.iter()] }
    }

    /// All values, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shared().map(AsRef::as_ref)
    }
}

impl<T> Trie<T> {
    /// The beginning of the way to the name with this hash.
    #[inline]
    pub(super) fn walk(&self, hash: u64) -> Walk<'_, T> {
        Walk { hash, shift: 0, at: At::Branch(&self.root) }
    }
}

/// The way to one name, a step at a time; the name itself is not compared.
#[derive(Debug)]
pub(super) struct Walk<'t, T> {
    hash: u64,
    shift: u32,
    at: At<'t, T>,
}

enum At<'t, T> {
    Branch(&'t Branch<T>),
    End(Option<&'t Arc<T>>),
}

impl<T> Clone for Walk<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Walk<'_, T> {}

impl<T> Clone for At<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<'_, T> {}

impl<T> fmt::Debug for At<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Branch(_)) { "Branch" } else { "End" })
    }
}

impl<'t, T> Walk<'t, T> {
    /// Goes on by one branch; false when the way had ended before.
    #[inline]
    pub(super) fn step(&mut self) -> bool {
        let At::Branch(branch) = self.at else { return false };
        if self.shift >= BITS {
            // A list of names with equal hashes.
            return false;
        }
        let slot = branch.index(self.hash, self.shift).ok();
        self.shift += STEP;
        self.at = match slot.map(|index| &branch.slots[index]) {
            Some(Slot::Branch(below)) => At::Branch(below),
            Some(Slot::Leaf { hash, item }) => At::End((*hash == self.hash).then_some(item)),
            None => At::End(None),
        };
        true
    }

    /// A way that leads to nothing.
    pub(super) const fn ended() -> Self {
        Self { hash: 0, shift: 0, at: At::End(None) }
    }

    /// Goes to the end, and gives what stands there if that is its name.
    #[inline]
    pub(super) fn finish(&mut self, octets: &[u8]) -> Option<&'t Arc<T>>
    where
        T: Named,
    {
        while self.shift < BITS && self.step() {}
        match self.at {
            At::End(item) => item.filter(|item| is_named(item.as_ref(), octets)),
            At::Branch(list) => list.leaves().find(|item| is_named(item.as_ref(), octets)),
        }
    }

    /// What stands at the end, once it is reached and there is something with the hash.
    #[inline]
    pub(super) fn item(&self) -> Option<&'t Arc<T>> {
        match self.at {
            At::End(item) => item,
            At::Branch(_) => None,
        }
    }
}

impl<T: Named> Trie<T> {
    /// The value at the name with this hash and these octets, which may be of either case.
    #[inline]
    pub(super) fn get(&self, hash: u64, octets: &[u8]) -> Option<&Arc<T>> {
        let mut branch = &self.root;
        let mut shift = 0;
        while shift < BITS {
            match &branch.slots[branch.index(hash, shift).ok()?] {
                Slot::Leaf { hash: at, item } => {
                    return (*at == hash && is_named(item.as_ref(), octets)).then_some(item);
                }
                Slot::Branch(below) => branch = below,
            }
            shift += STEP;
        }
        branch.leaves().find(|item| is_named(item.as_ref(), octets))
    }

    /// The value at the name with this hash and these octets, for changing it; what others share is copied first.
    pub(super) fn get_mut(&mut self, hash: u64, octets: &[u8]) -> Option<&mut T>
    where
        T: Clone,
    {
        // Asked first, so that a miss copies nothing.
        self.get(hash, octets)?;
        let mut branch = &mut self.root;
        let mut shift = 0;
        while shift < BITS {
            let index = branch.index(hash, shift).ok()?;
            match &mut Arc::make_mut(&mut branch.slots)[index] {
                Slot::Leaf { item, .. } => return Some(Arc::make_mut(item)),
                Slot::Branch(below) => branch = below,
            }
            shift += STEP;
        }
        Arc::make_mut(&mut branch.slots).iter_mut().find_map(|slot| match slot {
            Slot::Leaf { item, .. } if is_named(item.as_ref(), octets) => Some(Arc::make_mut(item)),
            Slot::Leaf { .. } | Slot::Branch(_) => None,
        })
    }

    /// Puts `item` at its name; gives what stood there.
    pub(super) fn insert(&mut self, hash: u64, item: Arc<T>) -> Option<Arc<T>> {
        let replaced = self.root.insert(0, hash, item);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes away the value at the name with this hash and these octets.
    pub(super) fn remove(&mut self, hash: u64, octets: &[u8]) -> Option<Arc<T>> {
        self.get(hash, octets)?;
        let removed = self.root.remove(0, hash, octets)?;
        self.len -= 1;
        Some(removed)
    }
}

#[inline]
fn is_named<T: Named>(item: &T, octets: &[u8]) -> bool {
    same_name(item.name().wire(), octets)
}

impl<T> Branch<T> {
    /// Where the slot for `hash` is, or where it would be.
    #[inline]
    fn index(&self, hash: u64, shift: u32) -> Result<usize, usize> {
        let bit = bit(hash, shift);
        let index = (self.bitmap & (bit - 1)).count_ones() as usize;
        if self.bitmap & bit == 0 { Err(index) } else { Ok(index) }
    }

    fn leaves(&self) -> impl Iterator<Item = &Arc<T>> + use<'_, T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Leaf { item, .. } => Some(item),
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

impl<T: Named> Branch<T> {
    fn insert(&mut self, shift: u32, hash: u64, item: Arc<T>) -> Option<Arc<T>> {
        if shift >= BITS {
            return self.insert_in_list(hash, item);
        }
        let index = match self.index(hash, shift) {
            Ok(index) => index,
            Err(index) => {
                self.bitmap |= bit(hash, shift);
                self.put(index, Slot::Leaf { hash, item });
                return None;
            }
        };
        let slot = &mut Arc::make_mut(&mut self.slots)[index];
        match slot {
            Slot::Branch(below) => below.insert(shift + STEP, hash, item),
            Slot::Leaf { hash: at, item: held } if *at == hash && is_named(held.as_ref(), item.name().wire()) => {
                Some(std::mem::replace(held, item))
            }
            Slot::Leaf { hash: at, item: held } => {
                let mut below = Self::default();
                below.insert(shift + STEP, *at, Arc::clone(held));
                below.insert(shift + STEP, hash, item);
                *slot = Slot::Branch(below);
                None
            }
        }
    }

    fn insert_in_list(&mut self, hash: u64, item: Arc<T>) -> Option<Arc<T>> {
        for slot in Arc::make_mut(&mut self.slots) {
            if let Slot::Leaf { item: held, .. } = slot
                && is_named(held.as_ref(), item.name().wire())
            {
                return Some(std::mem::replace(held, item));
            }
        }
        self.put(self.slots.len(), Slot::Leaf { hash, item });
        None
    }

    fn remove(&mut self, shift: u32, hash: u64, octets: &[u8]) -> Option<Arc<T>> {
        let index = if shift >= BITS {
            self.leaves().position(|item| is_named(item.as_ref(), octets))?
        } else {
            self.index(hash, shift).ok()?
        };
        let slot = &mut Arc::make_mut(&mut self.slots)[index];
        match slot {
            Slot::Leaf { item, .. } => {
                let item = Arc::clone(item);
                if shift < BITS {
                    self.bitmap &= !bit(hash, shift);
                }
                self.take(index);
                Some(item)
            }
            Slot::Branch(below) => {
                let item = below.remove(shift + STEP, hash, octets);
                if let [only @ Slot::Leaf { .. }] = below.slots.as_ref() {
                    *slot = only.clone();
                }
                item
            }
        }
    }
}

#[inline]
const fn bit(hash: u64, shift: u32) -> u64 {
    1 << ((hash >> shift) & 63)
}

/// The values of a trie.
struct Shared<'t, T> {
    stack: Vec<std::slice::Iter<'t, Slot<T>>>,
}

impl<'t, T> Iterator for Shared<'t, T> {
    type Item = &'t Arc<T>;

    fn next(&mut self) -> Option<&'t Arc<T>> {
        while let Some(level) = self.stack.last_mut() {
            match level.next() {
                Some(Slot::Leaf { item, .. }) => return Some(item),
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

    #[derive(Clone, Debug)]
    struct Item(Name, u32);

    impl Named for Item {
        fn name(&self) -> &Name {
            &self.0
        }
    }

    fn item(number: u32, value: u32) -> Arc<Item> {
        Arc::new(Item(format!("n{number}.peak.").parse().unwrap(), value))
    }

    /// A hash with few different values and few different bits, so that splits, lists and collapses all happen.
    fn poor_hash(number: u32) -> u64 {
        u64::from(number % 7).rotate_right(6 * (number % 3)) | u64::from(number & 1) << 60
    }

    fn octets(number: u32) -> Vec<u8> {
        format!("N{number}.peak.").parse::<Name>().unwrap().wire().to_vec()
    }

    #[test]
    fn a_clone_keeps_its_values_when_the_original_changes() {
        let mut trie = Trie::default();
        for number in 0..1000 {
            trie.insert(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15), item(number, 0));
        }
        let old = trie.clone();
        let hash = 7u64.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        trie.get_mut(hash, &octets(7)).unwrap().1 = 1;
        trie.remove(0, &octets(0)).unwrap();
        assert_eq!(old.get(hash, &octets(7)).unwrap().1, 0);
        assert_eq!(trie.get(hash, &octets(7)).unwrap().1, 1);
        assert_eq!((old.len(), trie.len(), old.iter().count(), trie.iter().count()), (1000, 999, 1000, 999));
    }

    proptest! {
        #[test]
        fn a_trie_holds_what_a_plain_map_holds(steps in prop::collection::vec((0u32..40, 0u32..3), 0..200)) {
            let (mut trie, mut plain) = (Trie::<Item>::default(), BTreeMap::new());
            for (step, (number, what)) in steps.into_iter().enumerate() {
                let value = step as u32;
                match what {
                    0 => {
                        let removed = trie.remove(poor_hash(number), &octets(number)).map(|held| held.1);
                        prop_assert_eq!(removed, plain.remove(&number));
                    }
                    1 => {
                        let replaced = trie.insert(poor_hash(number), item(number, value)).map(|held| held.1);
                        prop_assert_eq!(replaced, plain.insert(number, value));
                    }
                    _ => {
                        let changed = trie.get_mut(poor_hash(number), &octets(number)).map(|held| held.1 = value);
                        prop_assert_eq!(changed, plain.get_mut(&number).map(|held| *held = value));
                    }
                }
                prop_assert_eq!(trie.len(), plain.len());
            }
            for number in 0..40 {
                let held = trie.get(poor_hash(number), &octets(number)).map(|held| held.1);
                prop_assert_eq!(held, plain.get(&number).copied());
                let walked = trie.walk(poor_hash(number)).finish(&octets(number)).map(|held| held.1);
                prop_assert_eq!(walked, held);
            }
            let mut values: Vec<u32> = trie.iter().map(|held| held.1).collect();
            let mut expected: Vec<u32> = plain.into_values().collect();
            values.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(values, expected);
        }
    }
}
