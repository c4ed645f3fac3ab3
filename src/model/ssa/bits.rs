//! Bit blocks of 128-bit numbers, most significant bit first, as SSA.md counts them.

/// A number whose first `count` bits are ones and whose other bits are zeros; all ones from 128 on.
pub(super) const fn leading_ones(count: u8) -> u128 {
    if count >= 128 { u128::MAX } else { !(u128::MAX >> count) }
}

/// `number` moved `by` bits towards the least significant end; zero from 128 on.
pub(super) const fn down(number: u128, by: u8) -> u128 {
    if by >= 128 { 0 } else { number >> by }
}

/// `number` moved `by` bits towards the most significant end; zero from 128 on.
pub(super) const fn up(number: u128, by: u8) -> u128 {
    if by >= 128 { 0 } else { number << by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_lose_no_bit_and_never_wrap() {
        assert_eq!(leading_ones(0), 0);
        assert_eq!(leading_ones(1), 1 << 127);
        assert_eq!(leading_ones(127), u128::MAX - 1);
        assert_eq!(leading_ones(128), u128::MAX);
        assert_eq!((down(u128::MAX, 127), down(u128::MAX, 128)), (1, 0));
        assert_eq!((up(1, 127), up(1, 128)), (1 << 127, 0));
    }
}
