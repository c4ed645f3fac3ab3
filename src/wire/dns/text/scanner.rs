//! Cutting text into entries of words.
//!
//! A quotation mark opens a string at the start of a word, or straight behind `=` (RFC 9460 §2.1); anywhere else it is a
//! fault, as programs disagree on what it would mean.

use std::iter::Peekable;
use std::str::CharIndices;

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
    pub(crate) fn append(&mut self, next: Self) {
        self.words.extend(next.words);
        self.end = next.end;
    }
}

/// Cuts a text into entries.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    place: Place,
    /// The open parentheses.
    open: Vec<Place>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, chars: text.char_indices().peekable(), place: Place::START, open: Vec::new() }
    }

    /// The next entry that has words, or its first fault, behind which scanning goes on with the next line. None at
    /// the end.
    pub(crate) fn entry(&mut self) -> Option<Result<Entry<'a>, TextError>> {
        loop {
            self.peek()?;
            match self.any_entry() {
                Ok(entry) if entry.words.is_empty() => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(error) => {
                    self.open.clear();
                    self.skip_line();
                    return Some(Err(error));
                }
            }
        }
    }

    fn any_entry(&mut self) -> Result<Entry<'a>, TextError> {
        let indented = self.peek().is_some_and(is_blank);
        let mut words = Vec::new();
        loop {
            let place = self.place;
            match self.peek() {
                None => match self.open.pop() {
                    Some(place) => return Err(TextError { place, fault: TextFault::UnclosedParenthesis }),
                    None => return Ok(Entry { words, indented, end: place }),
                },
                Some('\n') => {
                    self.bump();
                    if self.open.is_empty() {
                        return Ok(Entry { words, indented, end: place });
                    }
                }
                Some(';') => self.skip_line(),
                Some('(') => {
                    self.open.push(place);
                    self.bump();
                }
                Some(')') => {
                    self.open.pop().ok_or(TextError { place, fault: TextFault::UnopenedParenthesis })?;
                    self.bump();
                }
                Some(blank) if is_blank(blank) => self.bump(),
                Some('"') => words.push(self.quoted(place)?),
                Some(_) => words.push(self.word(place)?),
            }
        }
    }

    fn quoted(&mut self, place: Place) -> Result<Word<'a>, TextError> {
        let start = self.offset() + 1;
        let end = self.skip_string()?;
        Ok(Word { text: &self.text[start..end], form: Form::Quoted, place })
    }

    fn word(&mut self, place: Place) -> Result<Word<'a>, TextError> {
        let start = self.offset();
        let mut form = Form::Bare;
        let mut previous = None;
        while let Some(next) = self.peek().filter(|next| form == Form::Bare && !ends_word(*next)) {
            match next {
                '"' if previous == Some('=') => {
                    self.skip_string()?;
                    form = Form::Keyed;
                }
                '"' => return Err(TextError { place: self.place, fault: TextFault::StrayQuote }),
                _ => self.bump_escaped(),
            }
            previous = Some(next);
        }
        Ok(Word { text: &self.text[start..self.offset()], form, place })
    }

    /// Skips from a quotation mark to behind the closing one, and gives the latter's offset.
    fn skip_string(&mut self) -> Result<usize, TextError> {
        let place = self.place;
        self.bump();
        while let Some(next) = self.peek().filter(|next| *next != '\n') {
            if next != '"' {
                self.bump_escaped();
                continue;
            }
            let end = self.offset();
            self.bump();
            // `"a""b"` is common in long TXT records, and can only mean two strings.
            return match self.peek() {
                Some(next) if next != '"' && !ends_word(next) => {
                    Err(TextError { place: self.place, fault: TextFault::GluedToQuote })
                }
                _ => Ok(end),
            };
        }
        Err(TextError { place, fault: TextFault::UnclosedQuote })
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|next| next != '\n') {
            self.bump();
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, next)| *next)
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }

    /// Goes over one character, and over the one that it escapes.
    fn bump_escaped(&mut self) {
        let escapes = self.peek() == Some('\\');
        self.bump();
        if escapes && self.peek().is_some_and(|next| next != '\n') {
            self.bump();
        }
    }

    fn bump(&mut self) {
        if let Some((_, passed)) = self.chars.next() {
            if passed == '\n' {
                self.place = Place { line: self.place.line.saturating_add(1), column: 1 };
            } else {
                self.place.column = self.place.column.saturating_add(1);
            }
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r')
}

fn ends_word(character: char) -> bool {
    is_blank(character) || matches!(character, '\n' | ';' | '(' | ')')
}
