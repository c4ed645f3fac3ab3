//! Writing a zone's answer behind the question it belongs to, in the octets that held the request.
//!
//! The fast path: the question stays where it is, records are copied as the zone has them prepared, nothing is
//! allocated. Owns compression, the order of sections, what may be left out and what sets TC (RFC 2181 §9, RFC 9471).

use super::query::{COOKIE_OPTION, HEADER, Query};
use super::{Rcode, Type, cookie};
use crate::model::zone::rrset::{QUESTION_NAME, Target};
use crate::model::zone::{Aliases, Answer, End, Node, Rrset, Zone, types};

/// Octets of an OPT record without options.
const OPT_OCTETS: usize = 11;
/// A pointer's offset has 14 bits (RFC 1035 §4.1.4).
const FURTHEST: usize = 0x3FFF;

const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;

/// What the reply's OPT record says (RFC 6891 §6).
#[derive(Clone, Copy, Debug)]
pub struct ReplyEdns {
    /// The largest UDP payload this server takes, in octets.
    pub size: u16,
    /// DO, as in the question.
    pub dnssec_ok: bool,
    /// The client's cookie and the server's.
    pub cookie: Option<[u8; cookie::COOKIE]>,
}

impl ReplyEdns {
    const fn octets(&self) -> usize {
        if self.cookie.is_some() { OPT_OCTETS + 4 + cookie::COOKIE } else { OPT_OCTETS }
    }
}

/// A reply being written into the octets of its request.
#[derive(Debug)]
pub struct Reply<'m> {
    message: &'m mut [u8],
    at: usize,
    /// Octets that sections may fill: the reply's limit less the OPT record.
    limit: usize,
    question_end: usize,
    name_octets: usize,
    /// Records of the answer, authority and additional sections.
    counts: [u16; 3],
    flags: u8,
    edns: Option<ReplyEdns>,
}

/// Which section a record goes to.
#[derive(Clone, Copy)]
enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// There is no room left.
struct Full;

impl<'m> Reply<'m> {
    /// Begins the reply to `query`, whose octets `message` begins with. It takes at most `limit` octets, or all that
    /// `message` has.
    #[inline]
    pub fn new(message: &'m mut [u8], query: &Query, limit: usize, edns: Option<ReplyEdns>) -> Self {
        let reserved = edns.as_ref().map_or(0, ReplyEdns::octets);
        let limit = limit.min(message.len()).saturating_sub(reserved).max(query.end());
        Self {
            at: query.end(),
            limit,
            question_end: query.end(),
            name_octets: query.name_octets,
            counts: [0; 3],
            flags: QR,
            edns,
            message,
        }
    }

    /// Writes what the zone says after these aliases. The record that each set begins with follows from `turn`, any
    /// number.
    #[inline]
    pub fn answer(&mut self, answer: &Answer<'_>, aliases: &Aliases<'_>, turn: u32) {
        self.flags |= AA;
        let written = match answer.end {
            End::Data(set) if aliases.is_empty() && set.targets().is_empty() => {
                self.set(Section::Answer, set, QUESTION_OWNER, turn)
            }
            End::NoName | End::NoData if aliases.is_empty() => self.negative(answer.zone),
            End::Data(_) | End::NoName | End::NoData | End::Referral { .. } | End::Elsewhere => {
                self.long_answer(answer, aliases, turn)
            }
        };
        if written.is_err() {
            self.truncate();
        }
    }

    /// The answers that take more than copying one set.
    fn long_answer(&mut self, answer: &Answer<'_>, aliases: &Aliases<'_>, turn: u32) -> Result<(), Full> {
        let mut owner = Owner { at: usize::from(QUESTION_NAME), octets: self.name_octets };
        for alias in aliases.iter() {
            let start = self.at;
            self.set(Section::Answer, alias, owner.pointer()?, turn)?;
            if let Some(target) = alias.targets().first()
                && let Some(place) = alias.place_of(target, turn)
            {
                owner = Owner { at: start + place, octets: target.name().wire().len() };
            }
        }
        match answer.end {
            End::Data(set) => {
                let start = self.at;
                self.set(Section::Answer, set, owner.pointer()?, turn)?;
                // To ask for an alias is to ask for it alone.
                if set.rtype() != types::CNAME {
                    self.additional(answer, set, start, owner, turn);
                }
                Ok(())
            }
            End::NoName | End::NoData => self.negative(answer.zone),
            End::Referral { cut, servers } => {
                if aliases.is_empty() {
                    self.flags &= !AA;
                }
                self.referral(answer.zone, cut, servers, owner, turn)
            }
            End::Elsewhere => Ok(()),
        }
    }

    #[inline]
    fn set(&mut self, section: Section, set: &Rrset, owner: u16, turn: u32) -> Result<(), Full> {
        let end = self.at + set.octets();
        if end > self.limit {
            return Err(Full);
        }
        let out = self.message.get_mut(self.at..end).ok_or(Full)?;
        set.write(out, owner, self.name_octets, turn);
        self.at = end;
        self.counts[section as usize] += set.count();
        Ok(())
    }

    /// The SOA record, owned by the apex, in which the question's name ends (RFC 2308 §3).
    #[inline]
    fn negative(&mut self, zone: &Zone) -> Result<(), Full> {
        let Some(soa) = zone.negative() else { return Ok(()) };
        let apex = usize::from(QUESTION_NAME) + self.name_octets - zone.apex().wire().len();
        self.set(Section::Authority, soa, pointer(apex)?, 0)
    }

    fn referral(&mut self, zone: &Zone, cut: &Node, servers: &Rrset, asked: Owner, turn: u32) -> Result<(), Full> {
        let start = self.at;
        let name = asked.at + asked.octets - cut.wire().len();
        self.set(Section::Authority, servers, pointer(name)?, turn)?;
        // Without the addresses of servers below the cut the referral leads nowhere (RFC 9471 §3.1); those of other
        // servers of this zone are a courtesy.
        let (below, beside): (Glue, Glue) = (Glue::Below, Glue::Beside);
        for kind in [below, beside] {
            for target in servers.targets().iter().filter(|target| kind.takes(target, cut)) {
                let Some(place) = servers.place_of(target, turn) else { continue };
                if self.addresses(zone, target, start + place, turn).is_err() && kind == Glue::Below {
                    self.flags |= TC;
                }
            }
        }
        Ok(())
    }

    /// What an answer with `set` brings along, as far as there is room; nobody is told of what there was none for.
    fn additional(&mut self, answer: &Answer<'_>, set: &Rrset, start: usize, owner: Owner, turn: u32) {
        for target in set.targets() {
            // A name made from a wildcard's own is not the one that was asked for.
            let done = match set.place_of(target, turn) {
                Some(place) => self.addresses(answer.zone, target, start + place, turn),
                None if answer.synthesized => Ok(()),
                None if set.rtype() == types::APL => self.rules(answer.zone, target, owner),
                None => self.addresses(answer.zone, target, owner.at, turn),
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// A and AAAA records of the target whose name stands at `name`.
    fn addresses(&mut self, zone: &Zone, target: &Target, name: usize, turn: u32) -> Result<(), Full> {
        let Some(node) = zone.additional(target) else { return Ok(()) };
        for set in [types::A, types::AAAA].into_iter().filter_map(|rtype| node.set(rtype)) {
            self.set(Section::Additional, set, pointer(name)?, turn)?;
        }
        Ok(())
    }

    /// The SVCB records that carry the rules of the space just answered (SSA.md §1): owned by the label `_ssa` before
    /// the answer's owner, a name that stands nowhere yet.
    fn rules(&mut self, zone: &Zone, target: &Target, owner: Owner) -> Result<(), Full> {
        const LABEL: &[u8] = b"\x04_ssa";
        let Some(set) = zone.additional(target).and_then(|node| node.set(types::SVCB)) else { return Ok(()) };
        let (start, name) = (self.at, pointer(self.at)?);
        let end = start + LABEL.len() + set.octets();
        if end > self.limit {
            return Err(Full);
        }
        let out = self.message.get_mut(start..end).ok_or(Full)?;
        let (label, records) = out.split_at_mut(LABEL.len());
        label.copy_from_slice(LABEL);
        set.write(records, name, self.name_octets, 0);
        records[..2].copy_from_slice(&owner.pointer()?.to_be_bytes());
        self.at = end;
        self.counts[Section::Additional as usize] += set.count();
        Ok(())
    }

    /// Takes everything back and tells the asker to come again over TCP (RFC 2181 §9).
    fn truncate(&mut self) {
        self.at = self.question_end;
        self.counts = [0; 3];
        self.flags |= TC;
    }

    /// Says that the reply lacks something, whatever it holds: the asker comes again over TCP.
    pub fn slip(&mut self) {
        self.truncate();
    }

    /// Writes the OPT record and the header; gives the reply's octets.
    #[inline]
    pub fn finish(mut self, rcode: Rcode) -> usize {
        let mut additional = self.counts[2];
        if let Some(edns) = self.edns {
            self.opt(&edns, rcode);
            additional += 1;
        }
        let questions = u16::from(self.name_octets > 0);
        if let Some(header) = self.message.first_chunk_mut::<HEADER>() {
            header[2] = (header[2] & RD) | self.flags;
            header[3] = (rcode.0 & 15) as u8;
            header[4..6].copy_from_slice(&questions.to_be_bytes());
            header[6..8].copy_from_slice(&self.counts[0].to_be_bytes());
            header[8..10].copy_from_slice(&self.counts[1].to_be_bytes());
            header[10..12].copy_from_slice(&additional.to_be_bytes());
        }
        self.at
    }

    fn opt(&mut self, edns: &ReplyEdns, rcode: Rcode) {
        let Some(out) = self.message.get_mut(self.at..self.at + edns.octets()) else { return };
        let (opt, options) = out.split_at_mut(OPT_OCTETS);
        opt[0] = 0;
        opt[1..3].copy_from_slice(&Type::OPT.0.to_be_bytes());
        opt[3..5].copy_from_slice(&edns.size.to_be_bytes());
        // The upper bits of the code, version 0, DO.
        opt[5..9].copy_from_slice(&[(rcode.0 >> 4) as u8, 0, u8::from(edns.dnssec_ok) << 7, 0]);
        opt[9..11].copy_from_slice(&(options.len() as u16).to_be_bytes());
        if let (Some(cookie), Some((head, data))) = (edns.cookie, options.split_first_chunk_mut::<4>()) {
            head[..2].copy_from_slice(&COOKIE_OPTION.to_be_bytes());
            head[2..].copy_from_slice(&(cookie::COOKIE as u16).to_be_bytes());
            data.copy_from_slice(&cookie);
        }
        self.at += edns.octets();
    }
}

/// Turns the octets of a request that could not be read into its refusal: the header alone. Gives its octets.
pub fn refuse(message: &mut [u8], rcode: Rcode) -> usize {
    let Some(header) = message.first_chunk_mut::<HEADER>() else { return 0 };
    // The operation and RD are the request's.
    header[2] = QR | (header[2] & (0x78 | RD));
    header[3] = (rcode.0 & 15) as u8;
    header[4..].fill(0);
    HEADER
}

/// Which servers' addresses a referral is adding.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Glue {
    Below,
    Beside,
}

impl Glue {
    fn takes(self, server: &Target, cut: &Node) -> bool {
        server.name().ends_in(cut.wire()) == (self == Self::Below)
    }
}

const QUESTION_OWNER: u16 = 0xC000 | QUESTION_NAME;

/// Where a name stands in the message, and how long it is uncompressed.
#[derive(Clone, Copy)]
struct Owner {
    at: usize,
    octets: usize,
}

impl Owner {
    fn pointer(self) -> Result<u16, Full> {
        pointer(self.at)
    }
}

/// A pointer to the octet `at`, as long as pointers reach it.
#[inline]
fn pointer(at: usize) -> Result<u16, Full> {
    if at > FURTHEST { Err(Full) } else { Ok(0xC000 | at as u16) }
}
