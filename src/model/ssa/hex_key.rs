//! Content keys that are themselves numbers, for the `content` field (SSA.md §2, "The content key").

/// The key read as hexadecimal digits, as the first bits of a number, zeros after them; none when an octet is no
/// digit or there is no octet. Digits past the 32nd are looked at and make no difference.
pub(super) fn first_bits(key: &[u8]) -> Option<u128> {
    if key.is_empty() {
        return None;
    }
    let mut number = 0;
    for (at, &octet) in key.iter().enumerate() {
        let digit = char::from(octet).to_digit(16)?;
        if at < 32 {
            number |= u128::from(digit) << (124 - 4 * at);
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_fill_from_the_left() {
        assert_eq!(first_bits(b"aB3"), Some(0xab3 << 116));
        assert_eq!(first_bits(b"0"), Some(0));
    }

    #[test]
    fn digits_past_the_thirty_second_make_no_difference_but_must_be_digits() {
        let key = b"0123456789abcdef0123456789abcdef";
        let number = first_bits(key);
        assert_eq!(number, Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        assert_eq!(first_bits(&[key.as_slice(), b"f"].concat()), number);
        assert_eq!(first_bits(&[key.as_slice(), b"g"].concat()), None);
    }

    #[test]
    fn the_empty_key_and_other_octets_are_no_number() {
        for key in [b"".as_slice(), b"g", b"0x1", b" 1", b"1\n", b"\xb2"] {
            assert_eq!(first_bits(key), None, "{key:?}");
        }
    }
}
