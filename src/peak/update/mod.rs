//! Updates as they come over the wire (RFC 2136): read into one command, and its outcome put into a reply.
//!
//! The command itself is `model::zone::Update`. What a malformed update has earned is decided here, before anything is
//! looked up.

pub(super) mod forward;

use crate::model::Name;
use crate::model::zone::{Change, Entry, Prerequisite, Update, UpdateError};
use crate::peak::ledger::{Outcome, Unmade};
use crate::wire::dns::{Class, Message, Rcode, Record, Type, rdata};

/// Why an update is refused by its form, and the code that says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Misformed {
    /// Not exactly one zone (RFC 2136 §3.1.1).
    #[error("an update names one zone, by its SOA")]
    Zone,
    /// A record that means nothing where it stands (RFC 2136 §3.2, §3.4.1).
    #[error("a record means nothing where it stands")]
    Record,
    /// A name outside the zone.
    #[error("a name is not in the zone")]
    NotZone,
}

impl Misformed {
    /// The response code.
    pub(super) const fn rcode(self) -> Rcode {
        match self {
            Self::Zone | Self::Record => Rcode::FORMERR,
            Self::NotZone => Rcode::NOTZONE,
        }
    }

    /// A stable label for metrics and logs.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Zone => "update-zone",
            Self::Record => "update-record",
            Self::NotZone => "not-zone",
        }
    }
}

/// The zone an update is for (RFC 2136 §3.1.1).
pub(super) fn zone(message: &Message) -> Result<(&Name, Class), Misformed> {
    match &message.questions[..] {
        [zone] if zone.rtype == Type::SOA => Ok((&zone.name, zone.class)),
        _ => Err(Misformed::Zone),
    }
}

/// The command in an update of the zone at `apex`, class IN.
pub(super) fn read(message: &Message, apex: &Name) -> Result<Update, Misformed> {
    let inside = |record: &&Record| record.name.is_at_or_below(apex);
    if !message.answers.iter().chain(&message.authorities).all(|record| inside(&record)) {
        return Err(Misformed::NotZone);
    }
    Ok(Update {
        prerequisites: prerequisites(&message.answers)?,
        changes: message.authorities.iter().map(change).collect::<Result<_, _>>()?,
    })
}

/// Records that a set is compared with.
struct Set<'m> {
    name: &'m Name,
    rtype: u16,
    rdatas: Vec<Box<[u8]>>,
}

/// RFC 2136 §3.2.5.
fn prerequisites(records: &[Record]) -> Result<Vec<Prerequisite>, Misformed> {
    let mut prerequisites = Vec::new();
    // Sets to compare come after the others, as RFC 2136 §3.2.3 has it.
    let mut sets: Vec<Set<'_>> = Vec::new();
    for Record { name, rtype, class, ttl, rdata } in records {
        let bare = rdata.is_empty();
        if *ttl != 0 || (*class != Class::IN && !bare) || (*rtype != Type::ANY && rtype.is_meta()) {
            return Err(Misformed::Record);
        }
        let (name_meant, owner) = (*rtype == Type::ANY, name.clone());
        match *class {
            Class::ANY if name_meant => prerequisites.push(Prerequisite::NameInUse(owner)),
            Class::ANY => prerequisites.push(Prerequisite::SetExists(owner, rtype.0)),
            Class::NONE if name_meant => prerequisites.push(Prerequisite::NameFree(owner)),
            Class::NONE => prerequisites.push(Prerequisite::SetAbsent(owner, rtype.0)),
            Class::IN if !name_meant && rdata::is_well_formed(*rtype, rdata) => {
                match sets.iter_mut().find(|set| set.name == name && set.rtype == rtype.0) {
                    Some(set) => set.rdatas.push(rdata.clone()),
                    None => sets.push(Set { name, rtype: rtype.0, rdatas: vec![rdata.clone()] }),
                }
            }
            _ => return Err(Misformed::Record),
        }
    }
    let is = |Set { name, rtype, rdatas }: Set<'_>| Prerequisite::SetIs { name: name.clone(), rtype, rdatas };
    prerequisites.extend(sets.into_iter().map(is));
    Ok(prerequisites)
}

/// RFC 2136 §3.4.1.3.
fn change(record: &Record) -> Result<Change, Misformed> {
    let Record { name, rtype, class, ttl, rdata } = record;
    let name = name.clone();
    match *class {
        Class::IN if !rtype.is_meta() && rdata::is_well_formed(*rtype, rdata) => {
            Ok(Change::Add(Entry { name, rtype: rtype.0, ttl: *ttl, rdata: rdata.clone() }))
        }
        Class::ANY if *ttl == 0 && rdata.is_empty() && *rtype == Type::ANY => Ok(Change::RemoveName(name)),
        Class::ANY if *ttl == 0 && rdata.is_empty() && !rtype.is_meta() => Ok(Change::RemoveSet(name, rtype.0)),
        Class::NONE if *ttl == 0 && !rtype.is_meta() => {
            Ok(Change::RemoveRecord { name, rtype: rtype.0, rdata: rdata.clone() })
        }
        _ => Err(Misformed::Record),
    }
}

/// The response code for what became of an update (RFC 2136 §2.2).
pub(super) fn rcode(outcome: &Outcome) -> Rcode {
    match outcome {
        Ok(_) => Rcode::NOERROR,
        Err(Unmade::Unkept | Unmade::Refused(UpdateError::Unknown(_))) => Rcode::SERVFAIL,
        Err(Unmade::Refused(UpdateError::NameFree(_))) => Rcode::NXDOMAIN,
        Err(Unmade::Refused(UpdateError::NameInUse(_))) => Rcode::YXDOMAIN,
        Err(Unmade::Refused(UpdateError::SetAbsent(..) | UpdateError::SetDiffers(..))) => Rcode::NXRRSET,
        Err(Unmade::Refused(UpdateError::SetExists(..))) => Rcode::YXRRSET,
        // Well-formed, and no zone here may hold it.
        Err(Unmade::Refused(UpdateError::Change(_) | UpdateError::WildcardNs(_))) => Rcode::REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex() -> Name {
        "shop.peak.".parse().unwrap()
    }

    fn record(rtype: Type, class: Class, ttl: u32, rdata: &[u8]) -> Record {
        Record { name: "www.shop.peak.".parse().unwrap(), rtype, class, ttl, rdata: rdata.into() }
    }

    fn update(answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        Message { answers, authorities, ..Message::query(1, apex(), Type::SOA) }
    }

    const A: [u8; 4] = [192, 0, 2, 1];

    #[test]
    fn every_form_of_prerequisite_is_read() {
        let name = || "www.shop.peak.".parse::<Name>().unwrap();
        for (rtype, class, rdata, expected) in [
            (Type::ANY, Class::ANY, &[][..], Prerequisite::NameInUse(name())),
            (Type::A, Class::ANY, &[], Prerequisite::SetExists(name(), 1)),
            (Type::ANY, Class::NONE, &[], Prerequisite::NameFree(name())),
            (Type::A, Class::NONE, &[], Prerequisite::SetAbsent(name(), 1)),
            (Type::A, Class::IN, &A, Prerequisite::SetIs { name: name(), rtype: 1, rdatas: vec![A.into()] }),
        ] {
            let message = update(vec![record(rtype, class, 0, rdata)], vec![]);
            assert_eq!(read(&message, &apex()).unwrap().prerequisites, [expected]);
        }
    }

    #[test]
    fn records_to_compare_with_are_gathered_into_sets() {
        let message = update(vec![record(Type::A, Class::IN, 0, &A), record(Type::A, Class::IN, 0, &[1; 4])], vec![]);
        let prerequisites = read(&message, &apex()).unwrap().prerequisites;
        assert!(matches!(&prerequisites[..], [Prerequisite::SetIs { rdatas, .. }] if rdatas.len() == 2));
    }

    #[test]
    fn every_form_of_change_is_read() {
        let name = || "www.shop.peak.".parse::<Name>().unwrap();
        let entry = Entry { name: name(), rtype: 1, ttl: 60, rdata: A.into() };
        for (rtype, class, ttl, rdata, expected) in [
            (Type::A, Class::IN, 60, &A[..], Change::Add(entry)),
            (Type::A, Class::ANY, 0, &[], Change::RemoveSet(name(), 1)),
            (Type::ANY, Class::ANY, 0, &[], Change::RemoveName(name())),
            (Type::A, Class::NONE, 0, &A, Change::RemoveRecord { name: name(), rtype: 1, rdata: A.into() }),
        ] {
            let message = update(vec![], vec![record(rtype, class, ttl, rdata)]);
            assert_eq!(read(&message, &apex()).unwrap().changes, [expected]);
        }
    }

    #[test]
    fn what_means_nothing_is_refused_as_rfc_2136_says() {
        for (rtype, class, ttl, rdata) in [
            (Type::A, Class::ANY, 1, &[][..]),
            (Type::A, Class::ANY, 0, &A),
            (Type::A, Class::NONE, 0, &A),
            (Type::A, Class::IN, 1, &A),
            (Type::A, Class::IN, 0, &[1, 2, 3]),
            (Type::ANY, Class::IN, 0, &A),
            (Type::AXFR, Class::ANY, 0, &[]),
            (Type::A, Class::CH, 0, &A),
        ] {
            let message = update(vec![record(rtype, class, ttl, rdata)], vec![]);
            assert_eq!(read(&message, &apex()), Err(Misformed::Record), "prerequisite {rtype} {class} {ttl} {rdata:?}");
        }
        for (rtype, class, ttl, rdata) in [
            (Type::ANY, Class::IN, 60, &[][..]),
            (Type::AXFR, Class::IN, 60, &A),
            (Type::A, Class::IN, 60, &[1, 2, 3]),
            (Type::A, Class::ANY, 1, &[]),
            (Type::A, Class::ANY, 0, &A),
            (Type::AXFR, Class::ANY, 0, &[]),
            (Type::A, Class::NONE, 1, &A),
            (Type::ANY, Class::NONE, 0, &[]),
            (Type::A, Class::CH, 60, &A),
        ] {
            let message = update(vec![], vec![record(rtype, class, ttl, rdata)]);
            assert_eq!(read(&message, &apex()), Err(Misformed::Record), "change {rtype} {class} {ttl} {rdata:?}");
        }
    }

    #[test]
    fn names_outside_the_zone_and_anything_but_one_zone_are_refused() {
        let outside = Record { name: "shop.example.".parse().unwrap(), ..record(Type::A, Class::ANY, 0, &[]) };
        assert_eq!(read(&update(vec![outside.clone()], vec![]), &apex()), Err(Misformed::NotZone));
        assert_eq!(read(&update(vec![], vec![outside]), &apex()), Err(Misformed::NotZone));
        let mut message = update(vec![], vec![]);
        assert_eq!(zone(&message), Ok((&apex(), Class::IN)));
        message.questions[0].rtype = Type::A;
        assert_eq!(zone(&message), Err(Misformed::Zone));
        message.questions.clear();
        assert_eq!(zone(&message), Err(Misformed::Zone));
    }
}
