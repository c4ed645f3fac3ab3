//! Slices: the equal blocks a prefix is divided into, and sets of them written as prefixes (SSA.md §4).

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::bits::leading_ones;
use super::{Rule, Space};

impl Rule {
    /// The slice that `address` lies in, as a prefix; none for an address outside the space. Addresses of one slice
    /// reach one endpoint, so a client may send them through one transport.
    #[must_use]
    pub fn slice_of(&self, space: &Space, address: Ipv6Addr) -> Option<Ipv6Net> {
        let length = space.prefix_of(address)?.prefix_len();
        net(address.to_bits(), length + self.slice_bits.min(128 - length))
    }
}

/// The prefixes of the slices `[first, first + count)` of 2^`slice_bits` in `prefix`, as few as possible, in order.
///
/// `slice_bits` is cut to the host part; slices past the last one do not exist and add nothing.
#[must_use]
pub fn slice_prefixes(prefix: Ipv6Net, slice_bits: u8, first: u128, count: u128) -> Vec<Ipv6Net> {
    let slice_bits = slice_bits.min(128 - prefix.prefix_len());
    let length = prefix.prefix_len() + slice_bits;
    let last_of_all = u128::MAX.checked_shr(128 - u32::from(slice_bits)).unwrap_or(0);
    let mut prefixes = Vec::new();
    if count == 0 || first > last_of_all {
        return prefixes;
    }
    let last = first.saturating_add(count - 1).min(last_of_all);
    let mut at = first;
    loop {
        let doublings = doublings(at, last, slice_bits);
        let address = prefix.network().to_bits() | at.checked_shl(128 - u32::from(length)).unwrap_or(0);
        prefixes.extend(net(address, length - doublings));
        // The block ends at `at` with its `doublings` low bits set; 2^128 slices would overflow as a count.
        let end = at | !leading_ones(128 - doublings);
        if end == last {
            return prefixes;
        }
        at = end + 1;
    }
}

/// How often a block that begins at slice `at` can double and still be aligned and not reach past `last`.
fn doublings(at: u128, last: u128, slice_bits: u8) -> u8 {
    let aligned = at.trailing_zeros().min(slice_bits.into());
    // The largest power of two in `last - at + 1`, which itself may not fit.
    let room = (last - at).checked_add(1).map_or(128, u128::ilog2);
    aligned.min(room) as u8
}

/// The prefix of `length` around an address; `length` is at most 128.
fn net(address: u128, length: u8) -> Option<Ipv6Net> {
    Ipv6Net::new(Ipv6Addr::from_bits(address & leading_ones(length)), length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::AplItem;
    use super::*;

    fn prefixes(prefix: &str, slice_bits: u8, first: u128, count: u128) -> Vec<String> {
        let prefixes = slice_prefixes(prefix.parse().unwrap(), slice_bits, first, count);
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_run_of_slices_is_written_as_the_fewest_prefixes_in_order() {
        assert_eq!(prefixes("2001:db8::/64", 14, 0, 1 << 14), ["2001:db8::/64"]);
        assert_eq!(prefixes("2001:db8::/64", 14, 1, 1), ["2001:db8:0:0:4::/78"]);
        assert_eq!(
            prefixes("2001:db8::/64", 4, 3, 7),
            ["2001:db8:0:0:3000::/68", "2001:db8:0:0:4000::/66", "2001:db8:0:0:8000::/67"],
        );
    }

    #[test]
    fn no_slice_takes_no_prefix() {
        assert!(prefixes("2001:db8::/64", 14, 5, 0).is_empty());
    }

    #[test]
    fn slices_past_the_last_do_not_exist() {
        assert_eq!(prefixes("2001:db8::/64", 2, 3, 9), ["2001:db8:0:0:c000::/66"]);
        assert!(prefixes("2001:db8::/64", 2, 4, 1).is_empty());
        assert_eq!(prefixes("::/0", 128, 1 << 127, u128::MAX), ["8000::/1"]);
    }

    #[test]
    fn slice_bits_are_cut_to_the_host_part() {
        assert_eq!(prefixes("2001:db8::/126", 14, 1, 2), ["2001:db8::1/128", "2001:db8::2/128"]);
        assert_eq!(prefixes("2001:db8::1/128", 14, 0, 1), ["2001:db8::1/128"]);
        assert_eq!(prefixes("::/0", 0, 0, 1), ["::/0"]);
    }

    #[test]
    fn the_slice_of_an_address_is_its_first_host_bits() {
        let space = Space::new(&AplItem::list("2:2001:db8::/64 2:2001:db9::/120").unwrap()).unwrap();
        let rule = Rule::parse("v=ssa1 slices=14", &space).unwrap();
        let slice_of = |address: &str| rule.slice_of(&space, address.parse().unwrap()).map(|slice| slice.to_string());
        assert_eq!(slice_of("2001:db8::ffff:0:0:1").as_deref(), Some("2001:db8:0:0:fffc::/78"));
        assert_eq!(slice_of("2001:db9::7").as_deref(), Some("2001:db9::7/128"));
        assert_eq!(slice_of("2001:dba::"), None);
    }

    /// The fewest aligned blocks that cover `first..end` of the block `at..at + size`, by trying the whole tree.
    fn fewest(at: u128, size: u128, first: u128, end: u128) -> usize {
        if end <= at || at + size <= first {
            0
        } else if first <= at && at + size <= end {
            1
        } else {
            fewest(at, size / 2, first, end) + fewest(at + size / 2, size / 2, first, end)
        }
    }

    proptest! {
        #[test]
        fn slice_prefixes_cover_exactly_with_the_fewest_in_order(
            address: u128, length in 0_u8..=120, bits in 0_u8..=8, first in 0_u128..300, count in 0_u128..300,
        ) {
            let prefix = net(address, length).unwrap();
            let step = 128 - length - bits;
            let end = (first + count).min(1 << bits);
            let covered = slice_prefixes(prefix, bits, first, count);
            let mut slices = Vec::new();
            for part in &covered {
                prop_assert!(prefix.contains(part) && part.prefix_len() <= length + bits);
                let at = (part.network().to_bits() & !leading_ones(length)).checked_shr(step.into()).unwrap_or(0);
                slices.extend(at..at + (1 << (length + bits - part.prefix_len())));
            }
            prop_assert_eq!(slices, (first..end).collect::<Vec<_>>());
            prop_assert_eq!(covered.len(), fewest(0, 1 << bits, first, end.max(first)));
        }

        #[test]
        fn no_arguments_make_slice_prefixes_panic_or_leave_the_prefix(
            address: u128, length in 0_u8..=128, bits: u8, first: u128, count: u128,
        ) {
            let prefix = net(address, length).unwrap();
            for part in slice_prefixes(prefix, bits, first, count) {
                prop_assert!(prefix.contains(&part));
            }
        }
    }
}
