//! Zone files in master file form (RFC 1035 §5, RFC 2308 §4, RFC 3597 §5).
//!
//! Owns what an entry means: directives, owners, classes, TTLs, types. Whether the records together are a zone (one SOA, a
//! CNAME alone, nothing outside) is for who serves it. Every entry is read whatever was wrong with those before, so all
//! faults come out together, at most one for an entry, each with its place.

use crate::model::Name;

use super::rdata::{self, Soa};
use super::text::{Entry, Excerpt, Place, Scanner, TextError, TextFault, Word, Words};
use super::{Class, Record, Type};

#[cfg(test)]
mod tests;

/// The longest TTL (RFC 2181 §8).
const MOST_TTL: u32 = 0x7fff_ffff;

/// One fault of a zone file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {cause}")]
pub struct ZoneFileError {
    /// The line, from 1.
    pub line: u32,
    /// The character in it, from 1.
    pub column: u32,
    /// What is wrong.
    pub cause: ZoneFault,
}

/// What is wrong with an entry of a zone file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ZoneFault {
    /// Its words, or the data of its record.
    #[error(transparent)]
    Text(#[from] TextFault),
    /// `$INCLUDE`: what a file name means, and who may read it, is nothing that a zone should decide.
    #[error("$INCLUDE is not supported: a zone is one file, so put the included records here")]
    Include,
    /// Another word with `$` where an owner would stand.
    #[error("unknown directive {found}: expected $ORIGIN or $TTL, or \\$ for a name that begins so")]
    Directive {
        /// What stands there.
        found: Excerpt,
    },
    /// `DNAME`, which asks for answers that no zone here can give.
    #[error("DNAME is not supported: write a CNAME for each name, or delegate the names below to a zone of their own")]
    Dname,
    /// A type that only questions or single messages have.
    #[error("no zone can hold a record of type {rtype}")]
    MetaType {
        /// The type.
        rtype: Type,
    },
    /// No type where one is due.
    #[error("expected a TTL, the class IN or a record type (or TYPEn for one by number), found {found}")]
    NoType {
        /// What stands there.
        found: Excerpt,
    },
    /// A class other than IN.
    #[error("class {class}: zones here are of class IN alone")]
    Class {
        /// The class.
        class: Class,
    },
    /// The first record's line begins with a space.
    #[error("a line that begins with a space continues the owner before it, and there is none yet")]
    NoOwner,
    /// A record without a TTL where none is in force.
    #[error("no TTL: write one before the type, or $TTL above")]
    NoTtl,
    /// A TTL that RFC 2181 §8 does not allow.
    #[error("a TTL of {seconds} seconds: the longest is 2147483647")]
    TtlTooLong {
        /// Its length.
        seconds: u32,
    },
}

/// A record and where its entry begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located {
    /// The record.
    pub record: Record,
    /// The line, from 1.
    pub line: u32,
    /// The character in it, from 1.
    pub column: u32,
}

/// The records of a zone file, in order; names without a final dot are completed with `origin` until `$ORIGIN` says
/// otherwise.
///
/// # Errors
/// Every faulty entry, in order; never none.
pub fn parse(text: &str, origin: &Name) -> Result<Vec<Record>, Vec<ZoneFileError>> {
    Ok(parse_located(text, origin)?.into_iter().map(|located| located.record).collect())
}

/// Like [`parse`], and says where each record stands, for messages about what the records are together.
///
/// # Errors
/// Every faulty entry, in order; never none.
pub fn parse_located(text: &str, origin: &Name) -> Result<Vec<Located>, Vec<ZoneFileError>> {
    let mut records = Vec::new();
    parse_each(text, origin, |located| records.push(located))?;
    Ok(records)
}

/// Like [`parse_located`], and hands each record over as soon as it is read: a large file's are never there all at once. Those
/// of a faulty file are handed over as well.
///
/// # Errors
/// Every faulty entry, in order; never none.
pub fn parse_each(text: &str, origin: &Name, mut take: impl FnMut(Located)) -> Result<(), Vec<ZoneFileError>> {
    // Editors that write a byte order mark mean nothing by it.
    let mut scanner = Scanner::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut state = State { origin: origin.clone(), owner: Vec::new(), default_ttl: None, stated_ttl: None };
    let (mut entry, mut errors) = (Entry::default(), Vec::new());
    while let Some(scanned) = scanner.next_into(&mut entry) {
        match scanned.map_err(Fault::from).and_then(|()| state.entry(&entry)) {
            Ok(record) => record.into_iter().for_each(&mut take),
            Err(Fault { place, cause }) => errors.push(ZoneFileError { line: place.line, column: place.column, cause }),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// A fault on its way out.
struct Fault {
    place: Place,
    cause: ZoneFault,
}

impl From<TextError> for Fault {
    fn from(error: TextError) -> Self {
        Self { place: error.place, cause: error.fault.into() }
    }
}

fn fault(word: &Word<'_>, cause: ZoneFault) -> Fault {
    Fault { place: word.place, cause }
}

/// What entries inherit from those before.
struct State {
    origin: Name,
    /// The wire form of the last owner; empty before the first.
    owner: Vec<u8>,
    /// `$TTL`.
    default_ttl: Option<u32>,
    /// The last TTL that a record stated, which holds where there is no `$TTL` (RFC 1035 §5.1, RFC 2308 §4).
    stated_ttl: Option<u32>,
}

impl State {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<Option<Located>, Fault> {
        let mut words = Words::new(entry);
        match words.peek().and_then(|word| word.directive()).filter(|_| !entry.indented) {
            Some(directive) => self.directive(directive, &mut words).map(|()| None),
            None => self.record(entry.indented, &mut words).map(Some),
        }
    }

    fn directive(&mut self, directive: &str, words: &mut Words<'_, '_>) -> Result<(), Fault> {
        let word = words.next("a directive")?;
        match directive.to_ascii_uppercase().as_str() {
            "$ORIGIN" => self.origin = words.name(&self.origin, "the name that completes the names that follow")?,
            "$TTL" => {
                // Faulty or not, it stands in force, so that the records below are not reported for lacking it.
                self.default_ttl = Some(0);
                self.default_ttl = Some(read_ttl(words)?);
            }
            "$INCLUDE" => return Err(fault(word, ZoneFault::Include)),
            _ => return Err(fault(word, ZoneFault::Directive { found: word.excerpt() })),
        }
        match words.next_if_any() {
            Some(surplus) => Err(surplus.unexpected("the end of the line").into()),
            None => Ok(()),
        }
    }

    fn record(&mut self, indented: bool, words: &mut Words<'_, '_>) -> Result<Located, Fault> {
        let Place { line, column } = words.place();
        let name = self.owner(indented, words)?;
        let (ttl, rtype) = self.ttl_and_type(words)?;
        let rdata = rdata::read(rtype, words, &self.origin)?;
        let ttl = self
            .ttl_in_force(ttl, rtype, &rdata)
            .ok_or(Fault { place: Place { line, column }, cause: ZoneFault::NoTtl })?;
        Ok(Located { record: Record::new(name, rtype, ttl, rdata), line, column })
    }

    fn owner(&mut self, indented: bool, words: &mut Words<'_, '_>) -> Result<Name, Fault> {
        let place = words.place();
        if !indented {
            let owner = words.name(&self.origin, "the owner's name");
            // Lines that continue a faulty owner are not reported for lacking one.
            self.owner.clear();
            self.owner.extend_from_slice(owner.as_ref().unwrap_or(&self.origin).wire());
            return Ok(owner?);
        }
        Name::from_wire(&self.owner).map_err(|_| Fault { place, cause: ZoneFault::NoOwner })
    }

    /// Reads TTL and class, both optional and in either order, and the type.
    fn ttl_and_type(&mut self, words: &mut Words<'_, '_>) -> Result<(Option<u32>, Type), Fault> {
        const EXPECTED: &str = "a TTL, the class IN or a record type";
        let (mut ttl, mut class) = (None, None);
        loop {
            let word = words.peek();
            let text = word.map_or(Ok(""), |word| word.bare(EXPECTED))?;
            if ttl.is_none() && text.starts_with(|first: char| first.is_ascii_digit()) {
                let stated = read_ttl(words)?;
                (ttl, self.stated_ttl) = (Some(stated), Some(stated));
                continue;
            }
            let word = words.next(EXPECTED)?;
            // Asked first, as nearly every record says it; no type is called so.
            if class.is_none() && text.eq_ignore_ascii_case("IN") {
                class = Some(Class::IN);
                continue;
            }
            if let Ok(rtype) = text.parse() {
                check_type(rtype).map_err(|cause| fault(word, cause))?;
                return Ok((ttl, rtype));
            }
            match text.parse() {
                Ok(Class::IN) if class.is_none() => class = Some(Class::IN),
                Ok(other) if other != Class::IN => return Err(fault(word, ZoneFault::Class { class: other })),
                _ => return Err(fault(word, ZoneFault::NoType { found: word.excerpt() })),
            }
        }
    }

    /// The record's own TTL, else `$TTL`, else the last one stated, else (of an SOA, as BIND has it) its minimum.
    fn ttl_in_force(&mut self, own: Option<u32>, rtype: Type, rdata: &[u8]) -> Option<u32> {
        let inherited = own.or(self.default_ttl).or(self.stated_ttl);
        if inherited.is_none() && rtype == Type::SOA {
            self.stated_ttl = Soa::decode(rdata).ok().map(|soa| soa.minimum.min(MOST_TTL));
            return self.stated_ttl;
        }
        inherited
    }
}

fn read_ttl(words: &mut Words<'_, '_>) -> Result<u32, Fault> {
    let place = words.place();
    let seconds = words.time("a TTL such as 3600 or 1h")?;
    if seconds > MOST_TTL {
        return Err(Fault { place, cause: ZoneFault::TtlTooLong { seconds } });
    }
    Ok(seconds)
}

fn check_type(rtype: Type) -> Result<(), ZoneFault> {
    match rtype {
        Type::DNAME => Err(ZoneFault::Dname),
        _ if rtype.is_meta() => Err(ZoneFault::MetaType { rtype }),
        _ => Ok(()),
    }
}
