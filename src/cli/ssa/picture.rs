//! An address drawn with a mark under every digit that says whose it is.

use std::net::Ipv6Addr;
use std::ops::Range;

/// The mark of the prefix.
pub(super) const PREFIX: char = 'p';

/// Under a digit that several fields share.
pub(super) const SHARED: char = '*';

/// The mark of the field at `index` of a layout. There are more fields than letters only in layouts of 51 fields and
/// more, whose last ones share a dot.
pub(super) fn mark(index: usize) -> char {
    ('a'..='z').chain('A'..='Z').filter(|&letter| letter != PREFIX).nth(index).unwrap_or('.')
}

/// Two lines of 39 columns: the address with all its digits, and the marks. Each range of bits has its mark; a digit
/// that lies in no range has none.
pub(super) fn draw(address: Ipv6Addr, ranges: &[(Range<u8>, char)]) -> [String; 2] {
    let (mut digits, mut marks) = (String::new(), String::new());
    for (group, number) in address.segments().into_iter().enumerate() {
        if group > 0 {
            digits.push(':');
            marks.push(' ');
        }
        digits.push_str(&format!("{number:04x}"));
        let first = group as u8 * 16;
        marks.extend((first..first + 16).step_by(4).map(|bit| mark_of_digit(bit, ranges)));
    }
    [digits, marks.trim_end().into()]
}

fn mark_of_digit(first_bit: u8, ranges: &[(Range<u8>, char)]) -> char {
    let owners = ranges.iter().filter(|(bits, _)| bits.start < first_bit + 4 && first_bit < bits.end);
    let mut marks = owners.map(|&(_, mark)| mark);
    match (marks.next(), marks.next()) {
        (None, _) => ' ',
        (Some(mark), None) => mark,
        (Some(_), Some(_)) => SHARED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_has_the_mark_of_its_field_and_shared_ones_a_star() {
        let ranges = [(0..64, PREFIX), (64..78, mark(0)), (78..128, mark(1))];
        let [digits, marks] = draw("2001:db8:5:1:ad3f::1".parse().unwrap(), &ranges);
        assert_eq!(digits, "2001:0db8:0005:0001:ad3f:0000:0000:0001");
        assert_eq!(marks, "pppp pppp pppp pppp aaa* bbbb bbbb bbbb");
    }

    #[test]
    fn a_digit_without_a_field_has_no_mark() {
        let [_, marks] = draw(Ipv6Addr::UNSPECIFIED, &[(0..32, PREFIX)]);
        assert_eq!(marks, "pppp pppp");
    }

    #[test]
    fn no_field_has_the_mark_of_the_prefix() {
        assert!((0..128).all(|index| mark(index) != PREFIX));
        assert_eq!((mark(14), mark(15), mark(50), mark(51)), ('o', 'q', 'Z', '.'));
    }
}
