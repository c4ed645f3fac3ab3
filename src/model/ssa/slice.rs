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
