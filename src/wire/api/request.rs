//! The names that clients give their requests, so that asking again does not do it again.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// The longest name of a request, in octets.
pub const LONGEST_KEY: usize = 255;

/// A name that no request can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the Idempotency-Key is 1 to {LONGEST_KEY} visible ASCII characters")]
pub struct BadKey;

/// The number by which the registry knows the request that `caller` has named `key`. Two callers cannot take each
/// other's names.
///
/// # Errors
/// [`BadKey`].
pub fn request_number(caller: &str, key: &[u8]) -> Result<u128, BadKey> {
    if key.is_empty() || key.len() > LONGEST_KEY || !key.iter().all(u8::is_ascii_graphic) {
        return Err(BadKey);
    }
    // Among callers who may write, nobody gains by two names that meet: no secret is needed.
    let mut hasher = SipHasher24::new();
    hasher.write(&(caller.len() as u64).to_be_bytes());
    hasher.write(caller.as_bytes());
    hasher.write(key);
    Ok(hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_number_for_each_caller_and_name() {
        let numbers = [("a", "b"), ("a", "c"), ("ab", ""), ("", "ab"), ("ab", "c"), ("b", "b")];
        let numbers: std::collections::BTreeSet<_> =
            numbers.iter().filter_map(|(caller, key)| request_number(caller, key.as_bytes()).ok()).collect();
        assert_eq!(numbers.len(), 5);
        assert_eq!(request_number("a", b"b"), request_number("a", b"b"));
    }

    #[test]
    fn a_name_is_short_and_visible() {
        assert!(request_number("", &[b'x'; LONGEST_KEY]).is_ok());
        for key in [&[][..], &[b'x'; LONGEST_KEY + 1], b"a b", b"\xff"] {
            assert_eq!(request_number("", key), Err(BadKey), "{key:?}");
        }
    }
}
