//! H, the keyed hash of SSA.md §2, and the five messages it is applied to, told apart by their first octet.
//!
//! Each result is given as the first 64 bits of a 128-bit number, ready to be cut to a field.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::Secret;
use super::bits::leading_ones;
use super::space::Block;

/// The public key of a rule's hashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Salt(pub(super) [u8; 16]);

impl Salt {
    #[inline]
    fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }
}

/// `source-hash`: the first `source_bits` bits of the source.
#[inline]
pub(super) fn source(salt: &Salt, source: u128, source_bits: u8) -> u128 {
    let mut hasher = salt.hasher();
    write_source(&mut hasher, source, source_bits);
    first_bits(&hasher)
}

/// `content-hash`.
pub(super) fn content(salt: &Salt, replica: u8, key: &[u8]) -> u128 {
    let mut hasher = salt.hasher();
    write_content(&mut hasher, replica, key);
    first_bits(&hasher)
}

/// `hop`.
#[inline]
pub(super) fn hop(secret: &Secret, epoch: u64, source: u128) -> u128 {
    let mut hasher = SipHasher24::new_with_key(secret.octets());
    hasher.write_u8(HOP);
    hasher.write_u64(epoch.to_be());
    write_address(&mut hasher, source & leading_ones(64));
    first_bits(&hasher)
}

/// What a prefix scores for a source, when a `source` or `source-hash` field decides.
pub(super) fn prefix_for_source(salt: &Salt, prefix: &Block, source: u128, source_bits: u8) -> u64 {
    let mut hasher = prefix_hasher(salt, prefix);
    write_source(&mut hasher, source, source_bits);
    hasher.finish()
}

/// What a prefix scores for a content key, when a `content` or `content-hash` field decides.
pub(super) fn prefix_for_content(salt: &Salt, prefix: &Block, replica: u8, key: &[u8]) -> u64 {
    let mut hasher = prefix_hasher(salt, prefix);
    write_content(&mut hasher, replica, key);
    hasher.finish()
}

/// The hash of `work`, for one source and epoch and many destinations.
pub(super) struct WorkHash {
    /// Has read what comes before the destination.
    begun: SipHasher24,
    epoch: u64,
}

impl WorkHash {
    #[inline]
    pub(super) fn new(salt: &Salt, source: u128, epoch: u64) -> Self {
        let mut begun = salt.hasher();
        begun.write_u8(WORK);
        write_address(&mut begun, source);
        Self { begun, epoch }
    }

    /// Whether the first `zero_bits` bits for this destination are zero.
    #[inline]
    pub(super) fn begins_with_zeros(&self, destination: u128, zero_bits: u8) -> bool {
        let mut hasher = self.begun;
        write_address(&mut hasher, destination);
        hasher.write_u64(self.epoch.to_be());
        hasher.finish().leading_zeros() >= u32::from(zero_bits)
    }
}

// The first octet of each message.
const SOURCE: u8 = 1;
const CONTENT: u8 = 2;
const HOP: u8 = 3;
const WORK: u8 = 4;
const PREFIX: u8 = 5;

#[inline]
fn write_source(hasher: &mut SipHasher24, source: u128, source_bits: u8) {
    hasher.write_u8(SOURCE);
    write_address(hasher, source & leading_ones(source_bits));
}

#[inline]
fn write_content(hasher: &mut SipHasher24, replica: u8, key: &[u8]) {
    hasher.write_u8(CONTENT);
    hasher.write_u8(replica);
    hasher.write(key);
}

#[inline]
fn prefix_hasher(salt: &Salt, prefix: &Block) -> SipHasher24 {
    let mut hasher = salt.hasher();
    hasher.write_u8(PREFIX);
    write_address(&mut hasher, prefix.first);
    hasher.write_u8(prefix.length);
    hasher
}

/// Writes 16 octets as two numbers, which stay in registers; put into an array after an odd number of octets they
/// would cost half as much again. A hasher takes a number in the machine's own order of octets, hence `to_be`.
#[inline]
fn write_address(hasher: &mut SipHasher24, address: u128) {
    hasher.write_u64(((address >> 64) as u64).to_be());
    hasher.write_u64((address as u64).to_be());
}

#[inline]
fn first_bits(hasher: &SipHasher24) -> u128 {
    u128::from(hasher.finish()) << 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h_is_siphash_2_4_as_its_authors_define_it() {
        // Appendix A of "SipHash: a fast short-input PRF": key 00..0f, message 00..0e.
        let key: [u8; 16] = std::array::from_fn(|at| at as u8);
        let message: [u8; 15] = std::array::from_fn(|at| at as u8);
        assert_eq!(Salt(key).hasher().hash(&message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn the_hash_of_work_reads_source_destination_and_epoch_in_that_order() {
        let (salt, source, destination, epoch) = (Salt([7; 16]), 0x0102_u128 << 3, u128::MAX / 5, 0x0a0b_0c0d_u64);
        let mut message = vec![4];
        message.extend(source.to_be_bytes());
        message.extend(destination.to_be_bytes());
        message.extend(epoch.to_be_bytes());
        let zeros = salt.hasher().hash(&message).leading_zeros() as u8;
        let work = WorkHash::new(&salt, source, epoch);
        assert!(work.begins_with_zeros(destination, zeros));
        assert!(!work.begins_with_zeros(destination, zeros + 1));
    }

    #[test]
    fn bits_of_the_source_past_the_first_p_do_not_count() {
        let salt = Salt([0; 16]);
        assert_eq!(source(&salt, 0xffff << 64, 64), source(&salt, (0xffff << 64) | 0xffff, 64));
        assert_ne!(source(&salt, 0xffff << 64, 128), source(&salt, (0xffff << 64) | 0xffff, 128));
    }
}
