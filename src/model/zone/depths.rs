//! How many things lie at which depth of the name tree, so that a search looks only where something can be.

/// Counts by number of labels, 0 to 127.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths {
    counts: Vec<u32>,
    /// Bit N is set exactly when the count at N labels is not zero.
    mask: u128,
}

impl Depths {
    pub(super) fn add(&mut self, labels: usize) {
        if self.counts.len() <= labels {
            self.counts.resize(labels + 1, 0);
        }
        self.counts[labels] += 1;
        self.mask |= 1 << labels;
    }

    pub(super) fn remove(&mut self, labels: usize) {
        if let Some(count) = self.counts.get_mut(labels).filter(|count| **count > 0) {
            *count -= 1;
            if *count == 0 {
                self.mask &= !(1 << labels);
            }
        }
    }

    /// Whether there is nothing at any depth.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// The depths from `first` up to and including `last` at which there is something, ascending.
    pub(super) fn between(&self, first: usize, last: usize) -> Between {
        Between(self.mask & from(first) & !from(last + 1))
    }

    /// The greatest depth not above `last` at which there is something.
    pub(super) fn deepest(&self, last: usize) -> Option<usize> {
        (self.mask & !from(last + 1)).checked_ilog2().map(|labels| labels as usize)
    }
}

/// The bits from `labels` upwards.
const fn from(labels: usize) -> u128 {
    if labels >= 128 { 0 } else { u128::MAX << labels }
}

/// Depths, ascending.
pub(super) struct Between(u128);

impl Iterator for Between {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let labels = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_depths_with_something_are_visited() {
        let mut depths = Depths::default();
        for labels in [0, 2, 2, 5, 127] {
            depths.add(labels);
        }
        assert_eq!(depths.between(0, 127).collect::<Vec<_>>(), [0, 2, 5, 127]);
        assert_eq!(depths.between(1, 5).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(depths.between(3, 4).count(), 0);
        assert_eq!(depths.deepest(126), Some(5));
    }

    #[test]
    fn a_depth_stays_until_its_last_thing_goes() {
        let mut depths = Depths::default();
        depths.add(2);
        depths.add(2);
        depths.remove(2);
        assert_eq!(depths.deepest(127), Some(2));
        depths.remove(2);
        assert_eq!(depths.deepest(127), None);
        depths.remove(2);
        assert_eq!(depths.deepest(127), None);
    }
}
