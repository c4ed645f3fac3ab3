//! Cutting text into entries of words.
//!
//! A quotation mark opens a string at the start of a word, or straight behind `=` (RFC 9460 §2.1); anywhere else it is a
//! fault, as programs disagree on what it would mean.

use super::word::{Form, Word};
use super::{Place, TextError, TextFault};

/// A logical line: words up to the end of a line outside parentheses.
#[derive(Debug, Default)]
pub(crate) struct Entry<'a> {
    pub(super) words: Vec<Word<'a>>,
    /// The line begins with a space, so its first word is no owner.
    pub(crate) indented: bool,
    pub(super) end: Place,
}

impl<'a> Entry<'a> {
    /// Adds the words of the entry that follows.
    pub(crate) fn append(&mut self, next: &mut Self) {
        self.words.append(&mut next.words);
        self.end = next.end;
    }
}

/// Cuts a text into entries, octet by octet: whatever means something here is one octet long in UTF-8.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    /// Where the line begins, and octets in it so far that only continue a character.
    line_at: usize,
    wide: usize,
    /// The open parentheses.
    open: Vec<Place>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, line_at: 0, wide: 0, open: Vec::new() }
    }

    /// Makes `entry` the next one that has words; or gives its first fault, behind which scanning goes on with the next
    /// line. None at the end.
    pub(crate) fn next_into(&mut self, entry: &mut Entry<'a>) -> Option<Result<(), TextError>> {
        loop {
            self.peek()?;
            match self.any_entry(entry) {
                Ok(()) if entry.words.is_empty() => {}
                Ok(()) => return Some(Ok(())),
                Err(error) => {
                    self.open.clear();
                    self.skip_line();
                    return Some(Err(error));
                }
            }
        }
    }

    fn any_entry(&mut self, entry: &mut Entry<'a>) -> Result<(), TextError> {
        entry.indented = self.peek().is_some_and(is_blank);
        entry.words.clear();
        loop {
            let Some(next) = self.peek() else {
                entry.end = self.place();
                let unclosed = |place| Err(TextError { place, fault: TextFault::UnclosedParenthesis });
                return self.open.pop().map_or(Ok(()), unclosed);
            };
            match next {
                b'\n' => {
                    entry.end = self.place();
                    self.bump();
                    if self.open.is_empty() {
                        return Ok(());
                    }
                }
                b';' => self.skip_line(),
                b'(' => {
                    self.open.push(self.place());
                    self.bump();
                }
                b')' => {
                    let place = self.place();
                    self.open.pop().ok_or(TextError { place, fault: TextFault::UnopenedParenthesis })?;
                    self.bump();
                }
                blank if is_blank(blank) => self.bump(),
                b'"' => entry.words.push(self.quoted()?),
                _ => entry.words.push(self.word()?),
            }
        }
    }

    fn quoted(&mut self) -> Result<Word<'a>, TextError> {
        let (place, start) = (self.place(), self.at + 1);
        let end = self.skip_string()?;
        Ok(Word { text: &self.text[start..end], form: Form::Quoted, place })
    }

    fn word(&mut self) -> Result<Word<'a>, TextError> {
        let (place, start) = (self.place(), self.at);
        let mut form = Form::Bare;
        self.skip_plain();
        let mut previous = self.text.as_bytes()[start..self.at].last().copied();
        while let Some(next) = self.peek().filter(|next| form == Form::Bare && !ends_word(*next)) {
            match next {
                b'"' if previous == Some(b'=') => {
                    self.skip_string()?;
                    form = Form::Keyed;
                }
                b'"' => return Err(TextError { place: self.place(), fault: TextFault::StrayQuote }),
                b'\\' => self.bump_escaped(),
                _ => self.bump(),
            }
            previous = Some(next);
        }
        Ok(Word { text: &self.text[start..self.at], form, place })
    }

    /// Skips from a quotation mark to behind the closing one, and gives the latter's offset.
    fn skip_string(&mut self) -> Result<usize, TextError> {
        let place = self.place();
        self.bump();
        while let Some(next) = self.peek().filter(|next| *next != b'\n') {
            if next != b'"' {
                self.bump_escaped();
                continue;
            }
            let end = self.at;
            self.bump();
            // `"a""b"` is common in long TXT records, and can only mean two strings.
            return match self.peek() {
                Some(next) if next != b'"' && !ends_word(next) => {
                    Err(TextError { place: self.place(), fault: TextFault::GluedToQuote })
                }
                _ => Ok(end),
            };
        }
        Err(TextError { place, fault: TextFault::UnclosedQuote })
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|next| next != b'\n') {
            self.bump();
        }
    }

    /// Goes over what means nothing, as nearly all of nearly every word does.
    #[inline]
    fn skip_plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|octet| KINDS[usize::from(*octet)] != PLAIN).unwrap_or(rest.len());
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn place(&self) -> Place {
        let column = self.at - self.line_at - self.wide + 1;
        Place { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }

    /// Goes over one octet, and over the one that it escapes.
    fn bump_escaped(&mut self) {
        let escapes = self.peek() == Some(b'\\');
        self.bump();
        if escapes && self.peek().is_some_and(|next| next != b'\n') {
            self.bump();
        }
    }

    #[inline]
    fn bump(&mut self) {
        let Some(passed) = self.peek() else { return };
        self.at += 1;
        if passed == b'\n' {
            (self.line, self.line_at, self.wide) = (self.line.saturating_add(1), self.at, 0);
        } else if passed & 0xC0 == 0x80 {
            self.wide += 1;
        }
    }
}

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r')
}

/// Whether no word goes on with the octet.
#[inline]
fn ends_word(octet: u8) -> bool {
    KINDS[usize::from(octet)] == END
}

/// An octet of a word that means nothing by itself.
const PLAIN: u8 = 0;
/// One that ends a word.
const END: u8 = 1;
/// One that is to be looked at: quotation marks, backslashes, and octets that only continue a character.
const SPECIAL: u8 = 2;

const KINDS: [u8; 256] = {
    let mut kinds = [PLAIN; 256];
    let mut octet = 0;
    while octet < kinds.len() {
        kinds[octet] = match octet as u8 {
            b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => END,
            b'"' | b'\\' | 0x80..=0xBF => SPECIAL,
            _ => PLAIN,
        };
        octet += 1;
    }
    kinds
};
