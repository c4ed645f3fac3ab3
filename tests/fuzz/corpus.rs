//! The kept corpus: `tests/corpus/TARGET.txt`, inputs worth keeping, written so that people can read them.
//!
//! A line that begins with `#` says why the next input is kept. An input is one line: octets in hexadecimal, and text
//! in double quotes with `\n`, `\\` and `\"`, in any order, apart by spaces. An empty line between inputs means nothing;
//! `empty` is the input without octets.

use std::path::Path;

/// The inputs kept for a target.
///
/// # Panics
/// When there are none, or a line is none.
pub(crate) fn kept(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(format!("{target}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inputs: Vec<Vec<u8>> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            input(line).unwrap_or_else(|| panic!("{}:{}: no input: {line}", path.display(), number + 1))
        })
        .collect();
    assert!(!inputs.is_empty(), "{}: nothing is kept", path.display());
    inputs
}

fn input(line: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut rest = line.trim();
    if rest == "empty" {
        return Some(octets);
    }
    while let Some(first) = rest.chars().next() {
        rest = if first == '"' {
            text(&rest[1..], &mut octets)?
        } else {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            hexadecimal(word, &mut octets)?;
            after
        };
        rest = rest.trim_start();
    }
    Some(octets)
}

/// Reads up to the closing quote; gives what follows it.
fn text<'a>(from: &'a str, octets: &mut Vec<u8>) -> Option<&'a str> {
    let mut characters = from.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(&from[at + 1..]),
            '\\' => octets.push(match characters.next()?.1 {
                'n' => b'\n',
                same @ ('\\' | '"') => same as u8,
                _ => return None,
            }),
            other => octets.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

fn hexadecimal(word: &str, octets: &mut Vec<u8>) -> Option<()> {
    if !word.len().is_multiple_of(2) || !word.is_ascii() {
        return None;
    }
    for pair in word.as_bytes().chunks(2) {
        octets.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
    }
    Some(())
}

/// An input as a line of the corpus.
pub(crate) fn line(octets: &[u8]) -> String {
    if octets.is_empty() {
        return "empty".to_owned();
    }
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn an_input_is_octets_and_text_in_any_order() {
    assert_eq!(input(r#"002a "a \"b\"\n\\" ff"#).unwrap(), b"\x00\x2aa \"b\"\n\\\xff");
    assert_eq!(input("empty").unwrap(), b"");
    for wrong in ["0", "0g", "\"open", r#""\x""#] {
        assert_eq!(input(wrong), None, "{wrong}");
    }
    assert_eq!(input(&line(b"\x00\xff a")).unwrap(), b"\x00\xff a");
    assert_eq!(input(&line(b"")).unwrap(), b"");
}
