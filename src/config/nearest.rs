//! Which known word a mistyped one was probably meant to be.

/// The known word that takes the fewest edits, when it takes few enough to be a slip: at most a third of the word.
pub(super) fn nearest<'w>(given: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // A given word far longer than any known one is no slip, and its distance is not worth computing.
    const LONGEST: usize = 64;
    if given.len() > LONGEST {
        return None;
    }
    known
        .map(|word| (edits(&given.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(edits, word)| *edits <= (word.len() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// How many characters must be put in, taken out, replaced or swapped with the next (optimal string alignment).
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, &from) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in other.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == other[j - 1] && one[i - 1] == to {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_as_people_slip() {
        for (one, other, expected) in [
            ("", "", 0),
            ("listen", "", 6),
            ("listen", "listen", 0),
            ("listn", "listen", 1),
            ("lisetn", "listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((edits(one, other), edits(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["listen", "policy", "services", "handshake_timeout"];
        let near = |given| nearest(given, known.into_iter());
        assert_eq!(near("listn"), Some("listen"));
        assert_eq!(near("Service"), Some("services"));
        assert_eq!(near("handshake-timeout"), Some("handshake_timeout"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }
}
