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
    fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }
}

/// `source-hash`: the first `source_bits` bits of the source.
#[inline]
pub(super) fn source(salt: &Salt, source: u128, source_bits: u8) -> u128 {
    first_bits(salt.hasher().hash(&source_message(source, source_bits)))
}

/// `content-hash`.
pub(super) fn content(salt: &Salt, replica: u8, key: &[u8]) -> u128 {
    let mut hasher = salt.hasher();
    hasher.write(&[CONTENT, replica]);
    hasher.write(key);
    first_bits(hasher.finish())
}

/// `hop`.
pub(super) fn hop(secret: &Secret, epoch: u64, source: u128) -> u128 {
    let mut message = [0; 25];
    message[0] = HOP;
    message[1..9].copy_from_slice(&epoch.to_be_bytes());
    message[9..].copy_from_slice(&(source & leading_ones(64)).to_be_bytes());
    first_bits(SipHasher24::new_with_key(secret.octets()).hash(&message))
}

/// What a prefix scores for a source, when a `source` or `source-hash` field decides.
pub(super) fn prefix_for_source(salt: &Salt, prefix: &Block, source: u128, source_bits: u8) -> u64 {
    let mut hasher = prefix_hasher(salt, prefix);
    hasher.write(&source_message(source, source_bits));
    hasher.finish()
}

/// What a prefix scores for a content key, when a `content` or `content-hash` field decides.
pub(super) fn prefix_for_content(salt: &Salt, prefix: &Block, replica: u8, key: &[u8]) -> u64 {
    let mut hasher = prefix_hasher(salt, prefix);
    hasher.write(&[CONTENT, replica]);
    hasher.write(key);
    hasher.finish()
}

/// The hash of `work`, for one source and epoch and many destinations.
pub(super) struct WorkHash {
    /// Has read the octet 04 and all of the source but its last octet: two whole words.
    begun: SipHasher24,
    /// The source's last octet, the destination, the epoch.
    rest: [u8; 25],
}

impl WorkHash {
    pub(super) fn new(salt: &Salt, source: u128, epoch: u64) -> Self {
        let mut head = [WORK; 16];
        let source = source.to_be_bytes();
        head[1..].copy_from_slice(&source[..15]);
        let mut begun = salt.hasher();
        begun.write(&head);
        let mut rest = [0; 25];
        rest[0] = source[15];
        rest[17..].copy_from_slice(&epoch.to_be_bytes());
        Self { begun, rest }
    }

    /// Whether the first `zero_bits` bits for this destination are zero.
    #[inline]
    pub(super) fn begins_with_zeros(&mut self, destination: u128, zero_bits: u8) -> bool {
        self.rest[1..17].copy_from_slice(&destination.to_be_bytes());
        self.begun.hash(&self.rest).leading_zeros() >= u32::from(zero_bits)
    }
}

const SOURCE: u8 = 1;
const CONTENT: u8 = 2;
const HOP: u8 = 3;
const WORK: u8 = 4;
const PREFIX: u8 = 5;

#[inline]
fn source_message(source: u128, source_bits: u8) -> [u8; 17] {
    let mut message = [SOURCE; 17];
    message[1..].copy_from_slice(&(source & leading_ones(source_bits)).to_be_bytes());
    message
}

fn prefix_hasher(salt: &Salt, prefix: &Block) -> SipHasher24 {
    let mut head = [PREFIX; 18];
    head[1..17].copy_from_slice(&prefix.first.to_be_bytes());
    head[17] = prefix.length;
    let mut hasher = salt.hasher();
    hasher.write(&head);
    hasher
}

#[inline]
fn first_bits(hash: u64) -> u128 {
    u128::from(hash) << 64
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
        let mut work = WorkHash::new(&salt, source, epoch);
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
