//! CRC-32C (Castagnoli), as RFC 3720 appendix B.4 has it.

use std::ops::Range;

/// The reversed polynomial 0x1EDC6F41.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let mut remainder = octet as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (POLYNOMIAL & (remainder & 1).wrapping_neg());
            bit += 1;
        }
        table[octet] = remainder;
        octet += 1;
    }
    table
}

/// The checksum of `octets` with those in `zeroed` taken as zero.
pub(in crate::wire) fn with_zeros(octets: &[u8], zeroed: Range<usize>) -> u32 {
    let (before, rest) = octets.split_at(zeroed.start);
    let (hole, after) = rest.split_at(zeroed.len());
    let taken = before.iter().copied().chain(hole.iter().map(|_| 0)).chain(after.iter().copied());
    !taken.fold(u32::MAX, |sum, octet| TABLE[usize::from(sum as u8 ^ octet)] ^ (sum >> 8))
}

/// The checksum of `octets`.
pub(crate) fn of(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |sum, octet| TABLE[usize::from(sum as u8 ^ octet)] ^ (sum >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_of_rfc_3720_come_out() {
        assert_eq!(with_zeros(&[0; 32], 0..0), 0x8A91_36AA);
        assert_eq!(with_zeros(&[0xFF; 32], 0..0), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(with_zeros(&rising, 0..0), 0x46DD_794E);
    }

    #[test]
    fn a_zeroed_range_counts_as_zeros() {
        let mut octets = [0_u8; 32];
        octets[7..11].fill(9);
        assert_eq!(with_zeros(&octets, 7..11), 0x8A91_36AA);
    }
}
