//! The service space: what an APL record set says (SSA.md §1).
//!
//! Invariant: the prefixes of a space are disjoint and sorted, so the one that holds an address is found by search;
//! every address of the space lies in one of them.

use std::cmp::Reverse;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use ipnet::Ipv6Net;

use super::bits::leading_ones;

/// One IPv6 item of an APL record: `[!]2:prefix/len` (RFC 3123 §5).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AplItem {
    /// `!`: the addresses are excluded.
    pub negated: bool,
    /// The addresses; bits past the length are zero.
    pub prefix: Ipv6Net,
}

impl AplItem {
    /// Reads items that white space separates, in presentation form. Those of other address families are left out.
    ///
    /// # Errors
    /// [`BadSpace::NotAnItem`] or [`BadSpace::BitsPastLength`] for the first item that is wrong.
    pub fn list(text: &str) -> Result<Vec<Self>, BadSpace> {
        let mut items = Vec::new();
        for item in text.split_ascii_whitespace() {
            match family(item) {
                Some(IPV6) => items.push(item.parse()?),
                // Whoever writes `2001:db8::/32` has forgotten the family and means none of number 2001.
                Some(_) if item.parse::<Ipv6Net>().is_err() => {}
                Some(_) | None => return Err(BadSpace::NotAnItem { text: item.into() }),
            }
        }
        Ok(items)
    }
}

/// IPv6 in the registry of address families that RFC 3123 §4 refers to.
const IPV6: u16 = 2;

/// The address family of an item in presentation form, when it begins like one.
fn family(item: &str) -> Option<u16> {
    let (family, _) = item.strip_prefix('!').unwrap_or(item).split_once(':')?;
    let digits = family.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| family.parse().ok()).flatten()
}

impl FromStr for AplItem {
    type Err = BadSpace;

    fn from_str(text: &str) -> Result<Self, BadSpace> {
        let not_an_item = || BadSpace::NotAnItem { text: text.into() };
        let (negated, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let prefix: Ipv6Net = rest.strip_prefix("2:").and_then(|prefix| prefix.parse().ok()).ok_or_else(not_an_item)?;
        if prefix.addr() != prefix.network() {
            return Err(BadSpace::BitsPastLength { prefix });
        }
        Ok(Self { negated, prefix })
    }
}

impl fmt::Display for AplItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}2:{}", if self.negated { "!" } else { "" }, self.prefix)
    }
}

/// Why APL items make no space. A name with such a record set is a legacy name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSpace {
    /// Not `[!]2:prefix/len`.
    #[error("{text:?} is no APL item of the form [!]2:prefix/len")]
    NotAnItem {
        /// What was given.
        text: Box<str>,
    },
    /// Bits past the prefix length are not zero.
    #[error("{prefix} has bits past its length, expected {}", .prefix.trunc())]
    BitsPastLength {
        /// The prefix as it was given.
        prefix: Ipv6Net,
    },
    /// No positive IPv6 item.
    #[error("no positive IPv6 item")]
    Empty,
}

impl BadSpace {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAnItem { .. } => "apl-item-malformed",
            Self::BitsPastLength { .. } => "apl-bits-past-length",
            Self::Empty => "apl-empty",
        }
    }
}

/// A prefix in the form that arithmetic needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Block {
    /// The first address.
    pub(super) first: u128,
    mask: u128,
    /// The prefix length.
    pub(super) length: u8,
}

impl Block {
    fn new(prefix: Ipv6Net) -> Self {
        let length = prefix.prefix_len();
        Self { first: prefix.network().to_bits(), mask: leading_ones(length), length }
    }

    #[inline]
    fn covers(&self, address: u128) -> bool {
        address & self.mask == self.first
    }
}

/// A service's whole address space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Space {
    prefixes: Box<[Ipv6Net]>,
    /// The same prefixes in the same order.
    blocks: Box<[Block]>,
    /// All items, the longest first, negated before positive where equally long: the first match decides. Empty
    /// without a negated item, where lying in a prefix is enough.
    matches: Box<[(Block, bool)]>,
}

impl Space {
    /// The space of all APL items of a name together.
    ///
    /// # Errors
    /// [`BadSpace::BitsPastLength`] for the first such item, [`BadSpace::Empty`] without a positive item.
    pub fn new(items: &[AplItem]) -> Result<Self, BadSpace> {
        if let Some(item) = items.iter().find(|item| item.prefix.addr() != item.prefix.network()) {
            return Err(BadSpace::BitsPastLength { prefix: item.prefix });
        }
        let prefixes = outermost(items);
        if prefixes.is_empty() {
            return Err(BadSpace::Empty);
        }
        let mut matches = Vec::new();
        if items.iter().any(|item| item.negated) {
            matches.extend(items.iter().map(|item| (Block::new(item.prefix), item.negated)));
            matches.sort_by_key(|&(block, negated)| (Reverse(block.length), Reverse(negated), block.first));
            matches.dedup();
        }
        let blocks = prefixes.iter().copied().map(Block::new).collect();
        Ok(Self { prefixes: prefixes.into(), blocks, matches: matches.into() })
    }

    /// Whether `address` is in the space: some item matches and none of its longest matches is negated.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        self.block_of(address.to_bits()).is_some()
    }

    /// The positive items that lie in no other, each once, by address, then length. Never empty.
    #[must_use]
    pub fn prefixes(&self) -> &[Ipv6Net] {
        &self.prefixes
    }

    /// The prefix of the space that holds `address`; none for an address outside the space, or cut out of the prefix
    /// by a negated item.
    #[must_use]
    pub fn prefix_of(&self, address: Ipv6Addr) -> Option<Ipv6Net> {
        self.block_of(address.to_bits()).map(|at| self.prefixes[at])
    }

    /// The prefix around `address`, whether or not a negated item cuts the address out.
    pub(super) fn prefix_around(&self, address: u128) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.first <= address);
        let at = after.checked_sub(1)?;
        self.blocks[at].covers(address).then_some(at)
    }

    /// Where in [`Space::blocks`] the prefix of an address of the space stands.
    #[inline]
    pub(super) fn block_of(&self, address: u128) -> Option<usize> {
        let at = self.prefix_around(address)?;
        (self.matches.is_empty() || self.longest_matches_are_positive(address)).then_some(at)
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn longest_matches_are_positive(&self, address: u128) -> bool {
        self.matches.iter().find(|(block, _)| block.covers(address)).is_some_and(|&(_, negated)| !negated)
    }
}

/// The positive items that lie in no different positive item, each once, by address, then length.
fn outermost(items: &[AplItem]) -> Vec<Ipv6Net> {
    let mut prefixes: Vec<Ipv6Net> = items.iter().filter(|item| !item.negated).map(|item| item.prefix).collect();
    prefixes.sort_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
    // What lies in another prefix now comes after it with nothing but its likes between them.
    prefixes.dedup_by(|later, kept| kept.contains(&*later));
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(items: &str) -> Space {
        Space::new(&AplItem::list(items).unwrap()).unwrap()
    }

    fn contains(space: &Space, address: &str) -> bool {
        space.contains(address.parse().unwrap())
    }

    fn prefixes(items: &str) -> Vec<String> {
        space(items).prefixes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_item_reads_as_it_is_written() {
        for text in ["2:2001:db8:5:1::/64", "!2:2001:db8:5:1:8000::/65", "2:::/0"] {
            assert_eq!(text.parse::<AplItem>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_item_is_refused_with_its_text() {
        for text in ["", "2001:db8::/64", "2:2001:db8::", "2:2001:db8::/129", "!!2:::/0", "2:10.0.0.0/8", "02:::/0"] {
            assert_eq!(text.parse::<AplItem>().unwrap_err(), BadSpace::NotAnItem { text: text.into() });
        }
    }

    #[test]
    fn an_item_with_bits_past_its_length_is_refused() {
        let prefix = "2001:db8::1/64".parse().unwrap();
        assert_eq!("2:2001:db8::1/64".parse::<AplItem>().unwrap_err(), BadSpace::BitsPastLength { prefix });
        let refused = Space::new(&[AplItem { negated: true, prefix }]).unwrap_err();
        assert_eq!(refused.to_string(), "2001:db8::1/64 has bits past its length, expected 2001:db8::/64");
    }

    #[test]
    fn other_families_are_left_out_of_a_list_and_nonsense_is_not() {
        let items = AplItem::list("1:192.0.2.0/24 2:2001:db8::/64  !1:0.0.0.0/0").unwrap();
        assert_eq!(items, ["2:2001:db8::/64".parse().unwrap()]);
        for (list, item) in [("65536:x", "65536:x"), ("1:10.0.0.0/8 x:y", "x:y"), (":", ":"), ("word", "word")] {
            assert_eq!(AplItem::list(list).unwrap_err(), BadSpace::NotAnItem { text: item.into() });
        }
    }

    #[test]
    fn a_prefix_without_its_family_is_refused_though_its_first_group_could_be_one() {
        let text = "2001:db8::/32";
        assert_eq!(AplItem::list(text).unwrap_err(), BadSpace::NotAnItem { text: text.into() });
    }

    #[test]
    fn without_a_positive_item_there_is_no_space() {
        let negated = "!2:2001:db8::/64".parse().unwrap();
        assert_eq!(Space::new(&[]).unwrap_err(), BadSpace::Empty);
        assert_eq!(Space::new(&[negated]).unwrap_err(), BadSpace::Empty);
    }

    #[test]
    fn the_longest_match_decides() {
        let cut = space("2:2001:db8::/64 !2:2001:db8:0:0:8000::/65 2:2001:db8:0:0:8800::/72");
        assert!(contains(&cut, "2001:db8::1"));
        assert!(!contains(&cut, "2001:db8:0:0:8000::1"));
        assert!(contains(&cut, "2001:db8:0:0:8800::1"));
        assert!(!contains(&cut, "2001:db8:0:1::1"));
    }

    #[test]
    fn of_equally_long_matches_one_negated_is_enough_in_any_order() {
        for items in ["2:2001:db8::/64 !2:2001:db8::/64", "!2:2001:db8::/64 2:2001:db8::/64"] {
            assert!(!contains(&space(items), "2001:db8::1"));
        }
    }

    #[test]
    fn a_positive_item_inside_a_negated_one_is_in_the_space_and_is_a_prefix() {
        let island = space("!2:2001:db8::/32 2:2001:db8:5:1::/64");
        assert!(contains(&island, "2001:db8:5:1::1"));
        assert!(!contains(&island, "2001:db8:5:2::1"));
        assert_eq!(prefixes("!2:2001:db8::/32 2:2001:db8:5:1::/64"), ["2001:db8:5:1::/64"]);
    }

    #[test]
    fn prefixes_are_the_outermost_each_once_in_order() {
        assert_eq!(
            prefixes("2:2001:db8:9::/64 2:2001:db8:5::/64 2:2001:db8:5::/48 2:2001:db8:5:1::/64 2:2001:db8:9::/64"),
            ["2001:db8:5::/48", "2001:db8:9::/64"],
        );
    }

    #[test]
    fn a_negated_item_between_two_positive_ones_does_not_make_the_inner_a_prefix() {
        assert_eq!(prefixes("2:2001:db8::/56 !2:2001:db8:0:a0::/59 2:2001:db8:0:a0::/62"), ["2001:db8::/56"],);
    }

    #[test]
    fn the_prefix_of_an_address_is_the_one_that_holds_it() {
        let two = space("2:2001:db8:5::/64 2:2001:db8:9::/64 !2:2001:db8:9:0:8000::/65");
        let prefix_of = |address: &str| two.prefix_of(address.parse().unwrap()).map(|prefix| prefix.to_string());
        assert_eq!(prefix_of("2001:db8:5:0:ffff:ffff:ffff:ffff").as_deref(), Some("2001:db8:5::/64"));
        assert_eq!(prefix_of("2001:db8:9::").as_deref(), Some("2001:db8:9::/64"));
        assert_eq!(prefix_of("2001:db8:9:0:8000::"), None);
        assert_eq!(prefix_of("2001:db8:7::"), None);
        assert_eq!(prefix_of("::"), None);
    }

    #[test]
    fn the_whole_of_ipv6_may_be_a_space() {
        assert!(contains(&space("2:::/0"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    }
}
