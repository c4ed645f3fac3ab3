//! Writing messages: name compression, and what is left out when a message would be too long.
//!
//! Compression never changes a spelling: only names equal octet for octet share their end (RFC 4343 §4.1 wants the case
//! of names kept). Names inside record data are compressed for the types of RFC 1035 alone (RFC 3597 §4).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::cursor::HEADER_OCTETS;
use super::rdata::{self, Part};
use super::{Message, Question, Rcode, Record, Type};

/// The least that every client takes (RFC 1035 §4.2.1).
const LEAST_LIMIT: usize = 512;

/// The most that a message can have over TCP (RFC 1035 §4.2.2).
const MOST_LIMIT: usize = 65_535;

/// A pointer has 14 bits of offset.
const POINTER_REACH: usize = 0x4000;

impl Message {
    /// The message in at most `limit` octets; a limit outside 512 to 65,535 counts as the nearer of the two.
    ///
    /// Where not everything fits, whole RRsets (neighbours in a section) are left out. TC is then set, unless only
    /// additional records are missing that nobody needs to go on (RFC 2181 §9); glue below a referral is needed
    /// (RFC 9471 §3.1). OPT and a TSIG at the end are written in any case. A response code above 15 without EDNS, which
    /// has no room for it, becomes SERVFAIL.
    #[must_use]
    pub fn encode(&self, limit: usize) -> Vec<u8> {
        let (signature, additionals) = match self.additionals.split_last() {
            Some((last, before)) if last.rtype == Type::TSIG => (Some(last), before),
            _ => (None, &self.additionals[..]),
        };
        let opt = self.edns.as_ref().map(|edns| edns.to_record((self.header.rcode.0 >> 4) as u8));
        let tail = [opt.as_ref(), signature];
        let reserved: usize = tail.into_iter().flatten().map(uncompressed_octets).sum();
        let mut writer = Writer::new(limit.clamp(LEAST_LIMIT, MOST_LIMIT).saturating_sub(reserved));

        let questions = writer.questions(&self.questions);
        let answers = writer.needed_rrsets(&self.answers);
        let authorities = writer.needed_rrsets(&self.authorities);
        let extra = self.additional_rrsets(&mut writer, additionals);
        writer.limit = MOST_LIMIT;
        let last = tail.into_iter().flatten().filter(|record| writer.rrset(std::slice::from_ref(record))).count();

        let mut header = self.header;
        header.truncated |= writer.truncated;
        if self.edns.is_none() && header.rcode.0 > 0x0f {
            header.rcode = Rcode::SERVFAIL;
        }
        writer.header(header.id, header.flags(), [questions, answers, authorities, extra + last]);
        writer.octets
    }

    /// Writes those additional RRsets that fit, and gives how many records that were. A truncated message gets none,
    /// as who reads it asks again.
    fn additional_rrsets(&self, writer: &mut Writer, records: &[Record]) -> usize {
        let mut written = 0;
        if writer.truncated {
            return written;
        }
        for rrset in records.chunk_by(Record::same_rrset) {
            if writer.rrset(rrset) {
                written += rrset.len();
            } else if self.is_needed_glue(&rrset[0]) {
                writer.truncated = true;
            }
        }
        written
    }

    /// Whether this is a referral to a name server whose address `record` is and which nothing else can tell, as it
    /// lies below the referral itself.
    fn is_needed_glue(&self, record: &Record) -> bool {
        let refers_to = |ns: &Record| {
            ns.rtype == Type::NS
                && record.name.is_at_or_below(&ns.name)
                && ns.rdata.eq_ignore_ascii_case(record.name.wire())
        };
        !self.header.authoritative
            && self.answers.is_empty()
            && matches!(record.rtype, Type::A | Type::AAAA)
            && self.authorities.iter().any(refers_to)
    }
}

/// An upper bound of what a record takes.
fn uncompressed_octets(record: &Record) -> usize {
    record.name.wire().len() + 10 + record.rdata.len()
}

/// A message as far as it is written.
struct Writer {
    octets: Vec<u8>,
    limit: usize,
    /// Something that was needed did not fit; nothing more of that kind is written.
    truncated: bool,
    /// Where a name with this hash was last written. A claim that is checked against the octets before use, so what
    /// stood in parts taken back, or collides, costs some compression at worst.
    written: HashMap<u64, u16>,
}

impl Writer {
    fn new(limit: usize) -> Self {
        Self { octets: vec![0; HEADER_OCTETS], limit, truncated: false, written: HashMap::new() }
    }

    fn header(&mut self, id: u16, flags: u16, counts: [usize; 4]) {
        let counts = counts.map(|count| u16::try_from(count).unwrap_or(u16::MAX));
        let words = [id, flags, counts[0], counts[1], counts[2], counts[3]];
        for (place, word) in self.octets.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn questions(&mut self, questions: &[Question]) -> usize {
        let fits = |question: &&Question| {
            let mark = self.octets.len();
            self.name(question.name.wire());
            self.u16(question.rtype.0);
            self.u16(question.class.0);
            self.keep_if_it_fits(mark)
        };
        let written = questions.iter().take_while(fits).count();
        self.truncated |= written < questions.len();
        written
    }

    /// Writes RRsets until one does not fit, and gives how many records that were.
    fn needed_rrsets(&mut self, records: &[Record]) -> usize {
        let mut written = 0;
        for rrset in records.chunk_by(Record::same_rrset) {
            if self.truncated || !self.rrset(rrset) {
                self.truncated = true;
                break;
            }
            written += rrset.len();
        }
        written
    }

    /// Writes all of these records, or nothing and `false` where they do not fit.
    fn rrset(&mut self, records: &[Record]) -> bool {
        let mark = self.octets.len();
        records.iter().all(|record| {
            self.record(record);
            self.octets.len() <= self.limit
        });
        self.keep_if_it_fits(mark)
    }

    fn keep_if_it_fits(&mut self, mark: usize) -> bool {
        let fits = self.octets.len() <= self.limit;
        if !fits {
            self.octets.truncate(mark);
        }
        fits
    }

    fn record(&mut self, record: &Record) {
        self.name(record.name.wire());
        self.u16(record.rtype.0);
        self.u16(record.class.0);
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.octets.len();
        self.u16(0);
        self.rdata(record);
        // Data that is too long for its length field is too long for any message as well, so it is taken back.
        let length = u16::try_from(self.octets.len() - length_at - 2).unwrap_or(u16::MAX);
        self.octets[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn rdata(&mut self, record: &Record) {
        let parts =
            if rdata::may_be_compressed(record.rtype) { rdata::split(record.rtype, &record.rdata) } else { None };
        // Data of another shape than its type's is nobody's to mend here.
        let Some(parts) = parts else { return self.octets.extend_from_slice(&record.rdata) };
        for part in parts {
            match part {
                Part::Name(name) => self.name(name.wire()),
                Part::Octets(octets) => self.octets.extend_from_slice(octets),
            }
        }
    }

    fn u16(&mut self, number: u16) {
        self.octets.extend_from_slice(&number.to_be_bytes());
    }

    /// Writes a name, its end as a pointer where the same octets stand earlier.
    fn name(&mut self, wire: &[u8]) {
        let mut rest = wire;
        while let [length @ 1..=63, ..] = *rest {
            let hash = hash(rest);
            if let Some(&earlier) = self.written.get(&hash)
                && self.stands_at(usize::from(earlier), rest)
            {
                return self.u16(0xc000 | earlier);
            }
            let here = self.octets.len();
            if here < POINTER_REACH {
                self.written.insert(hash, here as u16);
            }
            let (label, tail) = rest.split_at(usize::from(length) + 1);
            self.octets.extend_from_slice(label);
            rest = tail;
        }
        self.octets.push(0);
    }

    /// Whether the name that begins at `at` is `wire`, in the same spelling. The name that is being written has no end
    /// yet, so it is never found.
    fn stands_at(&self, mut at: usize, mut wire: &[u8]) -> bool {
        loop {
            match *self.octets.get(at..).unwrap_or_default() {
                [0, ..] => return wire == [0],
                [high @ 0xc0..=0xff, low, ..] => {
                    let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                    if target >= at {
                        return false;
                    }
                    at = target;
                }
                [length @ 1..=63, ..] => {
                    let label = self.octets.get(at..=at + usize::from(length)).unwrap_or_default();
                    match wire.strip_prefix(label) {
                        Some(rest) if !label.is_empty() => wire = rest,
                        _ => return false,
                    }
                    at += label.len();
                }
                _ => return false,
            }
        }
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
