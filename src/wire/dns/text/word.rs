//! Words, and what they can be read as: names, numbers, times, strings, parameters.

use std::fmt;
use std::str::FromStr;

use super::scanner::Entry;
use super::{Excerpt, Place, TextError, TextFault};
use crate::model::Name;

/// How a word is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// As it stands.
    Bare,
    /// Between quotation marks, which are not part of the text.
    Quoted,
    /// `key="value"`, quotation marks included.
    Keyed,
}

/// A word, its escapes still in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) form: Form,
    pub(crate) place: Place,
}

impl<'a> Word<'a> {
    fn is_bare(&self) -> bool {
        self.form == Form::Bare
    }

    /// The word itself, where it is bare and begins with `$`.
    pub(crate) fn directive(&self) -> Option<&'a str> {
        Some(self.text).filter(|text| self.is_bare() && text.starts_with('$'))
    }

    pub(crate) fn excerpt(&self) -> Excerpt {
        Excerpt::of(self.text)
    }

    pub(crate) fn error(&self, fault: TextFault) -> TextError {
        TextError { place: self.place, fault }
    }

    pub(crate) fn unexpected(&self, expected: &'static str) -> TextError {
        self.error(TextFault::Unexpected { found: self.excerpt(), expected })
    }

    /// The text of a bare word.
    pub(crate) fn bare(&self, expected: &'static str) -> Result<&'a str, TextError> {
        if self.is_bare() { Ok(self.text) } else { Err(self.error(TextFault::Quoted { expected })) }
    }

    /// A name, completed with `origin`.
    pub(crate) fn name(&self, origin: &Name, expected: &'static str) -> Result<Name, TextError> {
        let text = self.bare(expected)?;
        Name::parse(text, origin).map_err(|cause| self.error(TextFault::Name { found: self.excerpt(), cause }))
    }

    /// Whether an `@` that is not escaped stands beside other characters.
    pub(crate) fn has_bare_at(&self) -> bool {
        let mut escaped = false;
        let bare_at = |octet| {
            let bare = octet == b'@' && !escaped;
            escaped = octet == b'\\' && !escaped;
            bare
        };
        self.text.len() > 1 && self.text.bytes().any(bare_at)
    }

    /// The octets that a string, quoted or not, stands for.
    pub(crate) fn octets(&self) -> Result<Vec<u8>, TextError> {
        if self.form == Form::Keyed {
            return Err(self.error(TextFault::StrayQuote));
        }
        self.unescape(self.text)
    }

    /// The key and the value's octets of `key`, `key=value` or `key="value"` (RFC 9460 §2.1).
    pub(crate) fn key_and_value(&self, expected: &'static str) -> Result<(&'a str, Option<Vec<u8>>), TextError> {
        if self.form == Form::Quoted {
            return Err(self.error(TextFault::Quoted { expected }));
        }
        let Some((key, value)) = self.text.split_once('=') else { return Ok((self.text, None)) };
        let value = match self.form {
            Form::Bare | Form::Quoted => value,
            Form::Keyed => value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .ok_or_else(|| self.error(TextFault::StrayQuote))?,
        };
        Ok((key, Some(self.unescape(value)?)))
    }

    fn unescape(&self, text: &str) -> Result<Vec<u8>, TextError> {
        unescape(text).ok_or_else(|| self.error(TextFault::Escape { found: self.excerpt() }))
    }
}

/// The octets of a text in which `\DDD` and `\X` stand for one octet each (RFC 1035 §5.1).
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let first = rest.next()?;
        if first.is_ascii_digit() {
            let digits = [first, rest.next()?, rest.next()?];
            octets.push(std::str::from_utf8(&digits).ok()?.parse().ok()?);
        } else {
            octets.push(first);
        }
    }
    Some(octets)
}

/// Writes octets as a quoted string that reads back as them.
pub(crate) fn quote(octets: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('"')?;
    for &octet in octets {
        match octet {
            b'"' | b'\\' => write!(out, "\\{}", char::from(octet))?,
            b' '..=b'~' => out.write_char(char::from(octet))?,
            _ => write!(out, "\\{octet:03}")?,
        }
    }
    out.write_char('"')
}

/// The words of an entry still to be read.
#[derive(Clone, Debug)]
pub(crate) struct Words<'t, 'a> {
    rest: &'t [Word<'a>],
    end: Place,
}

impl<'t, 'a> Words<'t, 'a> {
    pub(crate) fn new(entry: &'t Entry<'a>) -> Self {
        Self { rest: &entry.words, end: entry.end }
    }

    pub(crate) fn peek(&self) -> Option<&'t Word<'a>> {
        self.rest.first()
    }

    pub(crate) fn next_if_any(&mut self) -> Option<&'t Word<'a>> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word)
    }

    pub(crate) fn next(&mut self, expected: &'static str) -> Result<&'t Word<'a>, TextError> {
        self.next_if_any().ok_or(TextError { place: self.end, fault: TextFault::Missing { expected } })
    }

    /// The place of the next word, or of the end.
    pub(crate) fn place(&self) -> Place {
        self.peek().map_or(self.end, |word| word.place)
    }

    /// A bare word that reads as a `T`.
    pub(crate) fn parse<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        let word = self.next(expected)?;
        word.bare(expected)?.parse().map_err(|_| word.unexpected(expected))
    }

    /// A decimal number without a sign.
    pub(crate) fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        let word = self.next(expected)?;
        decimal(word.bare(expected)?).ok_or_else(|| word.unexpected(expected))
    }

    pub(crate) fn name(&mut self, origin: &Name, expected: &'static str) -> Result<Name, TextError> {
        self.next(expected)?.name(origin, expected)
    }

    /// A time in seconds, or in units as in `1h30m`.
    pub(crate) fn time(&mut self, expected: &'static str) -> Result<u32, TextError> {
        let word = self.next(expected)?;
        match seconds(word.bare(expected)?) {
            Some(Ok(seconds)) => Ok(seconds),
            Some(Err(TooLong)) => Err(word.error(TextFault::TimeTooLong)),
            None => Err(word.unexpected(expected)),
        }
    }
}

/// A decimal number: ASCII digits alone, which `FromStr` does not insist on.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A time is above what 32 bits of seconds can say.
struct TooLong;

/// A time: a plain number of seconds, or numbers each with a unit of either case, `w d h m s`, as BIND reads them.
/// None where the text is neither.
fn seconds(text: &str) -> Option<Result<u32, TooLong>> {
    let mut total = 0_u64;
    let mut number = None::<u64>;
    let mut units = 0;
    for octet in text.bytes() {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                let value = number.unwrap_or(0).saturating_mul(10).saturating_add(u64::from(digit - b'0'));
                number = Some(value);
                continue;
            }
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.saturating_add(number.take()?.saturating_mul(unit));
        units += 1;
    }
    let seconds = match (number, units) {
        (Some(plain), 0) => plain,
        (None, 1..) => total,
        _ => return None,
    };
    Some(u32::try_from(seconds).map_err(|_| TooLong))
}
