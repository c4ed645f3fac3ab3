//! Presentation text (RFC 1035 §5.1): words, quoted strings, parentheses, comments and escapes, each with its place.
//!
//! Owns how text falls into entries of words and what a word can be read as. What an entry means is [`super::zonefile`]'s
//! and [`super::rdata`]'s. A quotation mark opens a string at the start of a word, or straight behind `=` (RFC 9460 §2.1);
//! anywhere else it is a fault, as programs disagree on what it would mean.

use std::fmt;
use std::iter::Peekable;
use std::str::{CharIndices, FromStr};

use crate::model::{Name, NameError};

/// A place in a text, for people: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

impl Place {
    /// The very beginning.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl Default for Place {
    fn default() -> Self {
        Self::START
    }
}

/// The beginning of a piece of somebody's text, short enough for a message, quoted and escaped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    const CHARS: usize = 40;

    /// The first 40 characters of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.char_indices().nth(Self::CHARS) {
            Some((end, _)) => Self(format!("{}…", &text[..end]).into()),
            None => Self(text.into()),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What is wrong with a presentation text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TextFault {
    /// The entry ends too soon.
    #[error("expected {expected}, but the entry ends here")]
    Missing {
        /// What should follow.
        expected: &'static str,
    },
    /// Something else stands where this was expected.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What stands there.
        found: Excerpt,
        /// What should.
        expected: &'static str,
    },
    /// More than the record's type has room for.
    #[error("{found} is too much: the data of a {rtype} record is complete before it")]
    Surplus {
        /// What stands there.
        found: Excerpt,
        /// The record's type.
        rtype: super::Type,
    },
    /// A quoted string where a bare word belongs.
    #[error("expected {expected}, without quotation marks")]
    Quoted {
        /// What should stand there.
        expected: &'static str,
    },
    /// A quotation mark inside a word.
    #[error("a quotation mark inside a word: quote the whole of it, or write \\\" for the character")]
    StrayQuote,
    /// A word straight behind a quoted string.
    #[error("a space must follow the closing quotation mark")]
    GluedToQuote,
    /// A quoted string without an end on its line.
    #[error("this quotation mark is not closed on its line")]
    UnclosedQuote,
    /// A parenthesis without its end.
    #[error("this parenthesis is never closed")]
    UnclosedParenthesis,
    /// An end without its parenthesis.
    #[error("this parenthesis was never opened")]
    UnopenedParenthesis,
    /// A name breaks a rule of RFC 1035.
    #[error("{found} is no domain name: {cause}")]
    Name {
        /// What stands there.
        found: Excerpt,
        /// The rule.
        cause: NameError,
    },
    /// A backslash with something else than RFC 1035 §5.1 allows behind it.
    #[error("in {found} a backslash is not followed by three digits up to 255 or by one other character")]
    Escape {
        /// What stands there.
        found: Excerpt,
    },
    /// RFC 1035 §3.3: a character string has a length of one octet.
    #[error("a string of {octets} octets: one may have 255, so write it as several")]
    StringTooLong {
        /// Its length.
        octets: usize,
    },
    /// The data is longer than its length field can say.
    #[error("data of {octets} octets: a record may have 65535")]
    DataTooLong {
        /// Its length.
        octets: usize,
    },
    /// A time has 32 bits.
    #[error("a time of more than 4294967295 seconds")]
    TimeTooLong,
    /// A mailbox written as in mail.
    #[error("{found} has an @: write the mailbox as a name, hostmaster.example.net. for hostmaster@example.net")]
    Mailbox {
        /// What stands there.
        found: Excerpt,
    },
    /// The generic form announces another length than follows (RFC 3597 §5).
    #[error("\\# announces {announced} octets and {octets} follow")]
    GenericLength {
        /// What it announces.
        announced: u16,
        /// What follows.
        octets: usize,
    },
    /// The generic form of a type whose form is known, with other data than the type allows (RFC 3597 §5).
    #[error("these octets are no data of a {rtype} record")]
    GenericData {
        /// The record's type.
        rtype: super::Type,
    },
    /// A type whose own form this program does not read.
    #[error("data of type {rtype} is read in the generic form alone: \\# LENGTH HEX (RFC 3597 §5)")]
    GenericOnly {
        /// The record's type.
        rtype: super::Type,
    },
    /// An address prefix with bits set behind its length (SSA.md §1).
    #[error("{found} has bits set behind its prefix length: write {meant}")]
    AplHostBits {
        /// What stands there.
        found: Excerpt,
        /// The same with those bits cleared.
        meant: ipnet::IpNet,
    },
    /// A parameter of an SVCB or HTTPS record.
    #[error(transparent)]
    Svcb(#[from] super::rdata::svcb::SvcbFault),
}

/// A fault and where it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {}, column {}: {fault}", place.line, place.column)]
pub struct TextError {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: TextFault,
}

/// How a word is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// As it stands.
    Bare,
    /// Between quotation marks, which are not part of the text.
    Quoted,
    /// `key="value"`, quotation marks included.
    Keyed,
}

/// A word, its escapes still in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    text: &'a str,
    form: Form,
    pub(super) place: Place,
}

impl<'a> Word<'a> {
    fn is_bare(&self) -> bool {
        self.form == Form::Bare
    }

    /// The word itself, where it is bare and begins with `$`.
    pub(super) fn directive(&self) -> Option<&'a str> {
        Some(self.text).filter(|text| self.is_bare() && text.starts_with('$'))
    }

    pub(super) fn excerpt(&self) -> Excerpt {
        Excerpt::of(self.text)
    }

    pub(super) fn error(&self, fault: TextFault) -> TextError {
        TextError { place: self.place, fault }
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> TextError {
        self.error(TextFault::Unexpected { found: self.excerpt(), expected })
    }

    /// The text of a bare word.
    pub(super) fn bare(&self, expected: &'static str) -> Result<&'a str, TextError> {
        if self.is_bare() { Ok(self.text) } else { Err(self.error(TextFault::Quoted { expected })) }
    }

    /// A name, completed with `origin`.
    pub(super) fn name(&self, origin: &Name, expected: &'static str) -> Result<Name, TextError> {
        let text = self.bare(expected)?;
        Name::parse(text, origin).map_err(|cause| self.error(TextFault::Name { found: self.excerpt(), cause }))
    }

    /// Whether an `@` that is not escaped stands beside other characters.
    pub(super) fn has_bare_at(&self) -> bool {
        let mut escaped = false;
        let bare_at = |octet| {
            let bare = octet == b'@' && !escaped;
            escaped = octet == b'\\' && !escaped;
            bare
        };
        self.text.len() > 1 && self.text.bytes().any(bare_at)
    }

    /// The octets that a string, quoted or not, stands for.
    pub(super) fn octets(&self) -> Result<Vec<u8>, TextError> {
        if self.form == Form::Keyed {
            return Err(self.error(TextFault::StrayQuote));
        }
        self.unescape(self.text)
    }

    /// The key and the value's octets of `key`, `key=value` or `key="value"` (RFC 9460 §2.1).
    pub(super) fn key_and_value(&self, expected: &'static str) -> Result<(&'a str, Option<Vec<u8>>), TextError> {
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
pub(super) fn quote(octets: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
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

/// A logical line: words up to the end of a line outside parentheses.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    words: Vec<Word<'a>>,
    /// The line begins with a space, so its first word is no owner.
    pub(super) indented: bool,
    end: Place,
}

impl<'a> Entry<'a> {
    /// Adds the words of the entry that follows.
    pub(super) fn append(&mut self, next: Self) {
        self.words.extend(next.words);
        self.end = next.end;
    }
}

/// The words of an entry still to be read.
#[derive(Clone, Debug)]
pub(super) struct Words<'t, 'a> {
    rest: &'t [Word<'a>],
    end: Place,
}

impl<'t, 'a> Words<'t, 'a> {
    pub(super) fn new(entry: &'t Entry<'a>) -> Self {
        Self { rest: &entry.words, end: entry.end }
    }

    pub(super) fn peek(&self) -> Option<&'t Word<'a>> {
        self.rest.first()
    }

    pub(super) fn next_if_any(&mut self) -> Option<&'t Word<'a>> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word)
    }

    pub(super) fn next(&mut self, expected: &'static str) -> Result<&'t Word<'a>, TextError> {
        self.next_if_any().ok_or(TextError { place: self.end, fault: TextFault::Missing { expected } })
    }

    /// The place of the next word, or of the end.
    pub(super) fn place(&self) -> Place {
        self.peek().map_or(self.end, |word| word.place)
    }

    /// A bare word that reads as a `T`.
    pub(super) fn parse<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        let word = self.next(expected)?;
        word.bare(expected)?.parse().map_err(|_| word.unexpected(expected))
    }

    /// A decimal number without a sign.
    pub(super) fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        let word = self.next(expected)?;
        decimal(word.bare(expected)?).ok_or_else(|| word.unexpected(expected))
    }

    pub(super) fn name(&mut self, origin: &Name, expected: &'static str) -> Result<Name, TextError> {
        self.next(expected)?.name(origin, expected)
    }

    /// A time in seconds, or in units as in `1h30m`.
    pub(super) fn time(&mut self, expected: &'static str) -> Result<u32, TextError> {
        let word = self.next(expected)?;
        match seconds(word.bare(expected)?) {
            Some(Ok(seconds)) => Ok(seconds),
            Some(Err(TooLong)) => Err(word.error(TextFault::TimeTooLong)),
            None => Err(word.unexpected(expected)),
        }
    }
}

/// A decimal number: ASCII digits alone, which `FromStr` does not insist on.
pub(super) fn decimal<T: FromStr>(text: &str) -> Option<T> {
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

/// Cuts a text into entries.
pub(super) struct Scanner<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    place: Place,
    /// The open parentheses.
    open: Vec<Place>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, chars: text.char_indices().peekable(), place: Place::START, open: Vec::new() }
    }

    /// The next entry that has words, or its first fault, behind which scanning goes on with the next line. None at
    /// the end.
    pub(super) fn entry(&mut self) -> Option<Result<Entry<'a>, TextError>> {
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
