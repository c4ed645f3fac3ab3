//! Changes of a zone in JSON, and the one command that they become.

use serde::{Deserialize, Serialize};

use crate::model::zone::{self, Entry, Prerequisite, Update};
use crate::model::{Name, NameError};
use crate::wire::dns::{Excerpt, TextError, Type, rdata};

/// The most changes and conditions together that one zone may have in a request.
pub const MOST: usize = 50_000;

/// The longest TTL (RFC 2181 §8).
const MOST_TTL: u32 = 0x7fff_ffff;

/// What a request asks to be changed: everything, or nothing.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The changes of each zone, in order. A zone may come more than once.
    pub zones: Vec<Changes>,
    /// Whether only to say what would come of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What is to be changed in one zone.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The zone's apex.
    pub zone: String,
    /// What must hold before anything changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Require>,
    /// What changes, in order.
    #[serde(default)]
    pub changes: Vec<Change>,
}

/// Something that must hold before a zone is changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "that", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Require {
    /// The name has records, of this type where one is given.
    Present {
        /// The owner.
        name: String,
        /// The type.
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        rtype: Option<String>,
    },
    /// The name has no records, of this type where one is given.
    Absent {
        /// The owner.
        name: String,
        /// The type.
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        rtype: Option<String>,
    },
    /// The name's records of this type are exactly these, in whatever order; none at all where the list is empty.
    Exactly {
        /// The owner.
        name: String,
        /// The type.
        #[serde(rename = "type")]
        rtype: String,
        /// The data, in presentation form.
        data: Vec<String>,
    },
}

/// One change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// The records are there afterwards, beside those that were. Adding what is there changes nothing but its TTL.
    Add {
        /// The owner.
        name: String,
        /// The type.
        #[serde(rename = "type")]
        rtype: String,
        /// The time to live of the whole set, in seconds; none: as it is, or the server's usual one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<u32>,
        /// The data, at least one.
        data: Vec<String>,
    },
    /// The records are not there afterwards: these, or all of the type, or all of the name.
    Remove {
        /// The owner.
        name: String,
        /// The type; none: all types.
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        rtype: Option<String>,
        /// The data; none: all of the type.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        data: Vec<String>,
    },
    /// The name's records of this type are these afterwards, and no others.
    Replace {
        /// The owner.
        name: String,
        /// The type.
        #[serde(rename = "type")]
        rtype: String,
        /// As in [`Change::Add`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<u32>,
        /// The data, at least one.
        data: Vec<String>,
    },
}

/// What became of a batch.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What became of each zone, in the order of the batch.
    pub zones: Vec<Changed>,
    /// Whether this only says what would have come of it.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of a zone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The zone.
    pub zone: String,
    /// Its serial afterwards.
    pub serial: u32,
    /// Whether anything is other than it was.
    pub changed: bool,
}

/// Why a request's changes cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ApiFault {
    /// A name that is none.
    #[error("{place}: {found} is no domain name: {cause}")]
    Name {
        /// Which change or condition.
        place: Place,
        /// The name.
        found: Excerpt,
        /// The rule it breaks.
        cause: NameError,
    },
    /// A name of another zone.
    #[error("{place}: {name} is not in the zone {apex}")]
    NotInZone {
        /// Which change or condition.
        place: Place,
        /// The name.
        name: Name,
        /// The zone.
        apex: Name,
    },
    /// No record type, or one that no zone holds.
    #[error("{place}: {found} is no type of records: A, AAAA, TXT, ... or TYPEn")]
    Type {
        /// Which change or condition.
        place: Place,
        /// The type.
        found: Excerpt,
    },
    /// Data that its type does not allow.
    #[error("{place}: {cause}")]
    Data {
        /// Which change or condition.
        place: Place,
        /// What is wrong with it.
        cause: TextError,
    },
    /// Nothing to add, or data without a type.
    #[error("{place}: {what}")]
    Lacking {
        /// Which change or condition.
        place: Place,
        /// What is needed.
        what: &'static str,
    },
    /// A TTL above 2^31 - 1.
    #[error("{place}: the longest TTL is {MOST_TTL} seconds")]
    Ttl {
        /// Which change or condition.
        place: Place,
    },
    /// Too many.
    #[error("{found} changes and conditions of one zone: a request may have {MOST}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

/// Which of a zone's changes or conditions something is wrong with, counted from 0 as JSON pointers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `/require/N`.
    Require(usize),
    /// `/changes/N`.
    Change(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Require(at) => write!(f, "/require/{at}"),
            Self::Change(at) => write!(f, "/changes/{at}"),
        }
    }
}

impl ApiFault {
    /// The stable word of the reply.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Name { .. } => "name-malformed",
            Self::NotInZone { .. } => "not-zone",
            Self::Type { .. } => "type-unknown",
            Self::Data { .. } => "data-malformed",
            Self::Lacking { .. } => "change-incomplete",
            Self::Ttl { .. } => "ttl-too-long",
            Self::TooMany { .. } => "too-many-changes",
        }
    }
}

impl Changes {
    /// The command for the zone at `apex`; `usual_ttl` says the TTL of a set for which none is given.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    pub fn update(&self, apex: &Name, usual_ttl: impl Fn(&Name, Type) -> u32) -> Result<Update, ApiFault> {
        let found = self.require.len() + self.changes.len();
        if found > MOST {
            return Err(ApiFault::TooMany { found });
        }
        let mut update = Update::default();
        for (at, require) in self.require.iter().enumerate() {
            update.prerequisites.push(Reading { apex, place: Place::Require(at) }.require(require)?);
        }
        for (at, change) in self.changes.iter().enumerate() {
            Reading { apex, place: Place::Change(at) }.change(change, &usual_ttl, &mut update.changes)?;
        }
        Ok(update)
    }
}

/// Reading one condition or change.
struct Reading<'a> {
    apex: &'a Name,
    place: Place,
}

impl Reading<'_> {
    fn require(&self, require: &Require) -> Result<Prerequisite, ApiFault> {
        Ok(match require {
            Require::Present { name, rtype: None } => Prerequisite::NameInUse(self.name(name)?),
            Require::Present { name, rtype: Some(rtype) } => {
                Prerequisite::SetExists(self.name(name)?, self.rtype(rtype)?.0)
            }
            Require::Absent { name, rtype: None } => Prerequisite::NameFree(self.name(name)?),
            Require::Absent { name, rtype: Some(rtype) } => {
                Prerequisite::SetAbsent(self.name(name)?, self.rtype(rtype)?.0)
            }
            Require::Exactly { name, rtype, data } => {
                let (name, rtype) = (self.name(name)?, self.rtype(rtype)?);
                match &self.rdatas(rtype, data)?[..] {
                    [] => Prerequisite::SetAbsent(name, rtype.0),
                    rdatas => Prerequisite::SetIs { name, rtype: rtype.0, rdatas: rdatas.to_vec() },
                }
            }
        })
    }

    fn change(
        &self,
        change: &Change,
        usual_ttl: &impl Fn(&Name, Type) -> u32,
        out: &mut Vec<zone::Change>,
    ) -> Result<(), ApiFault> {
        match change {
            Change::Add { name, rtype, ttl, data } => {
                let set = (self.name(name)?, self.rtype(rtype)?);
                self.add(set, *ttl, data, usual_ttl, out)
            }
            Change::Replace { name, rtype, ttl, data } => {
                let set = (self.name(name)?, self.rtype(rtype)?);
                out.push(zone::Change::RemoveSet(set.0.clone(), set.1.0));
                self.add(set, *ttl, data, usual_ttl, out)
            }
            Change::Remove { name, rtype: None, data } if data.is_empty() => {
                out.push(zone::Change::RemoveName(self.name(name)?));
                Ok(())
            }
            Change::Remove { rtype: None, .. } => Err(self.lacking("data to remove needs its type")),
            Change::Remove { name, rtype: Some(rtype), data } => {
                let (name, rtype) = (self.name(name)?, self.rtype(rtype)?);
                if data.is_empty() {
                    out.push(zone::Change::RemoveSet(name, rtype.0));
                    return Ok(());
                }
                for rdata in self.rdatas(rtype, data)? {
                    out.push(zone::Change::RemoveRecord { name: name.clone(), rtype: rtype.0, rdata });
                }
                Ok(())
            }
        }
    }

    fn add(
        &self,
        (name, rtype): (Name, Type),
        ttl: Option<u32>,
        data: &[String],
        usual_ttl: &impl Fn(&Name, Type) -> u32,
        out: &mut Vec<zone::Change>,
    ) -> Result<(), ApiFault> {
        if data.is_empty() {
            return Err(self.lacking("at least one record's data is needed; to take all away, remove the set"));
        }
        let ttl = ttl.unwrap_or_else(|| usual_ttl(&name, rtype));
        if ttl > MOST_TTL {
            return Err(ApiFault::Ttl { place: self.place });
        }
        for rdata in self.rdatas(rtype, data)? {
            out.push(zone::Change::Add(Entry { name: name.clone(), rtype: rtype.0, ttl, rdata }));
        }
        Ok(())
    }

    fn lacking(&self, what: &'static str) -> ApiFault {
        ApiFault::Lacking { place: self.place, what }
    }

    fn name(&self, text: &str) -> Result<Name, ApiFault> {
        let fault = |cause| ApiFault::Name { place: self.place, found: Excerpt::of(text), cause };
        let name = if text == "@" { self.apex.clone() } else { Name::parse(text, self.apex).map_err(fault)? };
        if name.is_at_or_below(self.apex) {
            return Ok(name);
        }
        Err(ApiFault::NotInZone { place: self.place, name, apex: self.apex.clone() })
    }

    fn rtype(&self, text: &str) -> Result<Type, ApiFault> {
        match text.parse::<Type>() {
            Ok(rtype) if !rtype.is_meta() => Ok(rtype),
            Ok(_) | Err(_) => Err(ApiFault::Type { place: self.place, found: Excerpt::of(text) }),
        }
    }

    fn rdatas(&self, rtype: Type, data: &[String]) -> Result<Vec<Box<[u8]>>, ApiFault> {
        let read = |text: &String| rdata::from_text(rtype, text, self.apex);
        data.iter().map(read).collect::<Result<_, _>>().map_err(|cause| ApiFault::Data { place: self.place, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex() -> Name {
        "shop.peak.".parse().unwrap()
    }

    fn read(json: &str) -> Result<Update, ApiFault> {
        let json = json.replacen('{', r#"{"zone":"shop.peak","#, 1);
        serde_json::from_str::<Changes>(&json).unwrap().update(&apex(), |_, _| 300)
    }

    fn www() -> Name {
        "www.shop.peak.".parse().unwrap()
    }

    const A: [u8; 4] = [192, 0, 2, 1];

    fn entry(ttl: u32) -> Entry {
        Entry { name: www(), rtype: 1, ttl, rdata: A.into() }
    }

    #[test]
    fn every_condition_is_read() {
        for (json, expected) in [
            (r#"{"that":"present","name":"www"}"#, Prerequisite::NameInUse(www())),
            (r#"{"that":"present","name":"www","type":"a"}"#, Prerequisite::SetExists(www(), 1)),
            (r#"{"that":"absent","name":"www.shop.peak."}"#, Prerequisite::NameFree(www())),
            (r#"{"that":"absent","name":"www","type":"TYPE1"}"#, Prerequisite::SetAbsent(www(), 1)),
            (r#"{"that":"exactly","name":"www","type":"A","data":[]}"#, Prerequisite::SetAbsent(www(), 1)),
            (
                r#"{"that":"exactly","name":"www","type":"A","data":["192.0.2.1"]}"#,
                Prerequisite::SetIs { name: www(), rtype: 1, rdatas: vec![A.into()] },
            ),
        ] {
            assert_eq!(read(&format!(r#"{{"require":[{json}]}}"#)).unwrap().prerequisites, [expected], "{json}");
        }
    }

    #[test]
    fn every_change_is_read() {
        use zone::Change as Made;
        for (json, expected) in [
            (r#"{"do":"add","name":"www","type":"A","ttl":60,"data":["192.0.2.1"]}"#, vec![Made::Add(entry(60))]),
            (r#"{"do":"add","name":"www","type":"A","data":["192.0.2.1"]}"#, vec![Made::Add(entry(300))]),
            (
                r#"{"do":"replace","name":"www","type":"A","ttl":0,"data":["192.0.2.1"]}"#,
                vec![Made::RemoveSet(www(), 1), Made::Add(entry(0))],
            ),
            (r#"{"do":"remove","name":"www"}"#, vec![Made::RemoveName(www())]),
            (r#"{"do":"remove","name":"@","type":"A"}"#, vec![Made::RemoveSet(apex(), 1)]),
            (
                r#"{"do":"remove","name":"www","type":"A","data":["192.0.2.1"]}"#,
                vec![Made::RemoveRecord { name: www(), rtype: 1, rdata: A.into() }],
            ),
        ] {
            assert_eq!(read(&format!(r#"{{"changes":[{json}]}}"#)).unwrap().changes, expected, "{json}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        for (json, reason) in [
            (r#"{"do":"remove","name":"a..b"}"#, "name-malformed"),
            (r#"{"do":"remove","name":"www.shop.example."}"#, "not-zone"),
            (r#"{"do":"remove","name":"www","type":"AXFR"}"#, "type-unknown"),
            (r#"{"do":"remove","name":"www","type":"AAAAA"}"#, "type-unknown"),
            (r#"{"do":"remove","name":"www","data":["192.0.2.1"]}"#, "change-incomplete"),
            (r#"{"do":"add","name":"www","type":"A","data":[]}"#, "change-incomplete"),
            (r#"{"do":"add","name":"www","type":"A","data":["::1"]}"#, "data-malformed"),
            (r#"{"do":"add","name":"www","type":"A","ttl":2147483648,"data":["192.0.2.1"]}"#, "ttl-too-long"),
        ] {
            let fault = read(&format!(r#"{{"changes":[{{"do":"remove","name":"x"}},{json}]}}"#)).unwrap_err();
            assert_eq!(fault.reason(), reason, "{json}");
            assert!(fault.to_string().starts_with("/changes/1: "), "{fault}");
        }
        let longest = r#"{"changes":[{"do":"add","name":"www","type":"A","ttl":2147483647,"data":["192.0.2.1"]}]}"#;
        assert!(read(longest).is_ok());
    }

    #[test]
    fn a_request_has_a_most_number_of_changes() {
        let change = || Change::Remove { name: "x".to_owned(), rtype: None, data: vec![] };
        let changes = |count| Changes { changes: vec![change(); count], ..Changes::default() };
        assert!(changes(MOST).update(&apex(), |_, _| 0).is_ok());
        assert_eq!(changes(MOST + 1).update(&apex(), |_, _| 0).unwrap_err().reason(), "too-many-changes");
    }

    #[test]
    fn members_that_are_not_known_are_refused() {
        for json in [
            r#"{"change":[]}"#,
            r#"{"changes":[{"do":"add","name":"www","type":"A","data":[],"tll":60}]}"#,
            r#"{"changes":[{"do":"drop","name":"www"}]}"#,
        ] {
            let json = json.replacen('{', r#"{"zone":"shop.peak","#, 1);
            assert!(serde_json::from_str::<Changes>(&json).is_err(), "{json}");
        }
    }
}
