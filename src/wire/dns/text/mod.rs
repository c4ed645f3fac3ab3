//! Presentation text (RFC 1035 §5.1): words, quoted strings, parentheses, comments and escapes, each with its place.
//!
//! Owns how text falls into entries of words (`scanner`), what a word can be read as (`word`), and the faults of both. What
//! an entry means is [`super::zonefile`]'s and [`super::rdata`]'s.

mod scanner;
mod word;

use std::fmt;

use crate::model::NameError;

pub(super) use scanner::{Entry, Scanner};
pub(super) use word::{Word, Words, decimal, quote};

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
    #[error("these octets are not the data of type {rtype}")]
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
