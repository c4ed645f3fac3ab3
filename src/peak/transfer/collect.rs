//! A zone on its way from a primary: records in order, a whole zone or differences out (RFC 5936 §2.2, RFC 1995 §4).
//!
//! ```text
//!            ┌─ nothing more ──────────────────────────────────► UpToDate, if it is what we have
//!  SOA new ──┼─ SOA ours ─ removed… ─ SOA ─ added… ─ SOA ─ … ─ SOA new ─► Differences
//!            └─ anything else ─ … ─ SOA new ───────────────────► Whole
//! ```
//!
//! Pure: whoever uses it moves the bytes.

use crate::model::Name;
use crate::model::zone::serial::is_newer;
use crate::model::zone::{Delta, Entry};
use crate::wire::dns::{Class, Message, Rcode, Record, Type};

/// What a transfer brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::peak) enum Collected {
    /// What we have is the latest version.
    UpToDate,
    /// What differs from what we have.
    Differences(Vec<Delta>),
    /// All records, the SOA among them.
    Whole(Vec<Entry>),
}

/// Why a transfer brought nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::peak) enum CollectError {
    /// The primary does not want to.
    #[error("the primary answers {0}")]
    Refused(Rcode),
    /// Not a reply to what was asked.
    #[error("the reply is not one to this transfer")]
    Mismatch,
    /// Records that make no transfer.
    #[error("the records are in no order that a transfer has")]
    Order,
    /// A record of another class, or outside the zone.
    #[error("a record is not of the zone")]
    Foreign,
    /// More octets than a zone may have.
    #[error("the zone has more than {MOST_OCTETS} octets")]
    TooLarge,
}

impl CollectError {
    /// A stable label for metrics and logs.
    pub(in crate::peak) const fn reason(self) -> &'static str {
        match self {
            Self::Refused(_) => "transfer-refused",
            Self::Mismatch => "transfer-mismatch",
            Self::Order => "transfer-order",
            Self::Foreign => "transfer-foreign",
            Self::TooLarge => "transfer-too-large",
        }
    }
}

/// The most octets of records a transfer may bring: a primary gone wrong must not take all memory.
const MOST_OCTETS: usize = 8 << 30;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Before the first record.
    Start,
    /// After the first SOA: the next record decides.
    Second,
    Whole,
    /// Among the records that go, or that come.
    Removed,
    Added,
    Done,
}

/// The records so far.
#[derive(Debug)]
pub(in crate::peak) struct Collector {
    apex: Name,
    id: u16,
    /// The serial we have, in an IXFR.
    had: Option<u32>,
    phase: Phase,
    /// The SOA that began the transfer, and will end it.
    latest: Option<Entry>,
    entries: Vec<Entry>,
    deltas: Vec<Delta>,
    octets: usize,
    keeps: fn(&Record) -> bool,
}

fn serial(soa: &Entry) -> Option<u32> {
    let at = soa.rdata.len().checked_sub(20)?;
    soa.rdata[at..].first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

impl Collector {
    /// For the replies to the request with this id; `had` is the serial we have, for an IXFR.
    pub(in crate::peak) fn new(apex: Name, id: u16, had: Option<u32>) -> Self {
        let (phase, entries, deltas) = (Phase::Start, Vec::new(), Vec::new());
        Self { apex, id, had, phase, latest: None, entries, deltas, octets: 0, keeps: |_| true }
    }

    /// Keeps of a whole zone these records alone, and the SOA: for who looks at a zone and does not serve it.
    pub(in crate::peak) fn keeping(self, keeps: fn(&Record) -> bool) -> Self {
        Self { keeps, ..self }
    }

    /// Takes the next message; whether the transfer is complete.
    pub(in crate::peak) fn take(&mut self, message: Message) -> Result<bool, CollectError> {
        let header = &message.header;
        if !header.response || header.id != self.id || header.truncated {
            return Err(CollectError::Mismatch);
        }
        if header.rcode != Rcode::NOERROR {
            return Err(CollectError::Refused(header.rcode));
        }
        let asked = |rtype| matches!(rtype, Type::AXFR | Type::IXFR);
        if message.questions.iter().any(|question| question.name != self.apex || !asked(question.rtype)) {
            return Err(CollectError::Mismatch);
        }
        // A reply without records would let a transfer go on for ever.
        if message.answers.is_empty() {
            return Err(CollectError::Order);
        }
        for record in message.answers {
            self.record(record)?;
        }
        // RFC 1995 §2: an SOA alone that is not newer says that nothing is.
        let latest = self.latest.as_ref().and_then(serial);
        let news = self.had.is_none_or(|had| latest.is_some_and(|latest| is_newer(latest, had)));
        if self.phase == Phase::Second && !news {
            self.phase = Phase::Done;
        }
        Ok(self.phase == Phase::Done)
    }

    fn record(&mut self, record: Record) -> Result<(), CollectError> {
        if record.class != Class::IN || !record.name.is_at_or_below(&self.apex) {
            return Err(CollectError::Foreign);
        }
        self.octets += record.name.wire().len() + record.rdata.len() + 10;
        if self.octets > MOST_OCTETS {
            return Err(CollectError::TooLarge);
        }
        let (is_soa, kept) = (record.rtype == Type::SOA, (self.keeps)(&record));
        let entry = Entry { name: record.name, rtype: record.rtype.0, ttl: record.ttl, rdata: record.rdata };
        match self.phase {
            Phase::Start if is_soa => {
                self.latest = Some(entry);
                self.phase = Phase::Second;
            }
            Phase::Start | Phase::Done => return Err(CollectError::Order),
            Phase::Second if is_soa && self.had.is_some() && serial(&entry) == self.had => {
                self.begin_delta(entry);
            }
            Phase::Second if is_soa => return self.end(entry),
            Phase::Whole if is_soa => return self.end(entry),
            Phase::Second | Phase::Whole => {
                self.entries.extend(kept.then_some(entry));
                self.phase = Phase::Whole;
            }
            Phase::Removed if is_soa => {
                if let Some(delta) = self.deltas.last_mut() {
                    delta.new_soa = entry;
                }
                self.phase = Phase::Added;
            }
            Phase::Removed => self.deltas.last_mut().into_iter().for_each(|delta| delta.removed.push(entry.clone())),
            Phase::Added if is_soa && self.is_latest(&entry) && self.leads_to(&entry) => self.phase = Phase::Done,
            Phase::Added if is_soa && self.leads_to(&entry) => self.begin_delta(entry),
            Phase::Added if is_soa => return Err(CollectError::Order),
            Phase::Added => self.deltas.last_mut().into_iter().for_each(|delta| delta.added.push(entry.clone())),
        }
        Ok(())
    }

    fn begin_delta(&mut self, old_soa: Entry) {
        let new_soa = old_soa.clone();
        self.deltas.push(Delta { old_soa, removed: Vec::new(), new_soa, added: Vec::new() });
        self.phase = Phase::Removed;
    }

    /// Whether the changes so far lead to the version of this SOA.
    fn leads_to(&self, soa: &Entry) -> bool {
        self.deltas.last().is_some_and(|delta| serial(&delta.new_soa) == serial(soa))
    }

    fn is_latest(&self, soa: &Entry) -> bool {
        self.latest.as_ref().is_some_and(|latest| serial(latest) == serial(soa))
    }

    fn end(&mut self, soa: Entry) -> Result<(), CollectError> {
        if !self.is_latest(&soa) {
            return Err(CollectError::Order);
        }
        self.entries.push(soa);
        self.phase = Phase::Done;
        Ok(())
    }

    /// What a complete transfer brought.
    pub(in crate::peak) fn finish(self) -> Collected {
        if !self.deltas.is_empty() {
            Collected::Differences(self.deltas)
        } else if self.entries.is_empty() {
            Collected::UpToDate
        } else {
            Collected::Whole(self.entries)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex() -> Name {
        "shop.peak.".parse().unwrap()
    }

    fn soa(serial: u32) -> Record {
        let rdata = [&[0, 0][..], &[serial, 1, 1, 1, 1].map(u32::to_be_bytes).concat()].concat();
        Record::new(apex(), Type::SOA, 60, rdata)
    }

    fn a(last: u8) -> Record {
        Record::new("www.shop.peak.".parse().unwrap(), Type::A, 60, [192, 0, 2, last])
    }

    fn reply(answers: &[Record]) -> Message {
        let mut reply = Message::query(9, apex(), Type::IXFR).response(Rcode::NOERROR);
        reply.answers = answers.to_vec();
        reply
    }

    /// The records cut into messages of `size` records.
    fn collect(had: Option<u32>, records: &[Record], size: usize) -> Result<Option<Collected>, CollectError> {
        let mut collector = Collector::new(apex(), 9, had);
        let mut done = false;
        for some in records.chunks(size) {
            done = collector.take(reply(some))?;
        }
        Ok(done.then(|| collector.finish()))
    }

    fn summary(collected: Collected) -> (Vec<(u32, usize, usize, u32)>, usize) {
        match collected {
            Collected::UpToDate => (vec![], 0),
            Collected::Whole(entries) => (vec![], entries.len()),
            Collected::Differences(deltas) => {
                (deltas.iter().map(|it| (it.from(), it.removed.len(), it.added.len(), it.to())).collect(), 0)
            }
        }
    }

    #[test]
    fn a_whole_zone_is_collected_however_it_is_cut() {
        let records = [soa(7), a(1), a(2), soa(7)];
        for size in 1..5 {
            for had in [None, Some(3)] {
                let collected = collect(had, &records, size).unwrap().unwrap();
                assert_eq!(summary(collected), (vec![], 3), "{had:?} in {size}");
            }
        }
    }

    #[test]
    fn of_a_zone_that_is_looked_at_only_what_is_wanted_is_kept() {
        let mut collector = Collector::new(apex(), 9, None).keeping(|record| record.rdata[..] != [192, 0, 2, 1]);
        assert_eq!(collector.take(reply(&[soa(7), a(1), a(2), a(1), soa(7)])), Ok(true));
        assert_eq!(summary(collector.finish()), (vec![], 2));
    }

    #[test]
    fn differences_are_collected_in_order() {
        let records = [soa(7), soa(3), a(1), a(2), soa(5), soa(5), soa(7), a(3), soa(7)];
        for size in 1..10 {
            let collected = collect(Some(3), &records, size).unwrap().unwrap();
            assert_eq!(summary(collected), (vec![(3, 2, 0, 5), (5, 0, 1, 7)], 0), "in {size}");
        }
    }

    #[test]
    fn an_soa_alone_says_that_there_is_nothing_newer() {
        assert_eq!(collect(Some(7), &[soa(7)], 1), Ok(Some(Collected::UpToDate)));
        assert_eq!(collect(None, &[soa(7)], 1), Ok(None));
    }

    #[test]
    fn an_unfinished_transfer_is_not_complete() {
        assert_eq!(collect(None, &[soa(7), a(1)], 2), Ok(None));
        assert_eq!(collect(Some(3), &[soa(7), soa(3), a(1), soa(7), a(2)], 5), Ok(None));
    }

    #[test]
    fn records_in_another_order_and_of_other_zones_are_refused() {
        let foreign = Record { name: "elsewhere.".parse().unwrap(), ..a(1) };
        let chaos = Record { class: Class::CH, ..a(1) };
        for (had, records, error) in [
            (None, vec![a(1)], CollectError::Order),
            (None, vec![soa(7), a(1), soa(8)], CollectError::Order),
            (None, vec![soa(7), a(1), soa(7), a(2)], CollectError::Order),
            (Some(3), vec![soa(7), soa(3), soa(5), soa(6)], CollectError::Order),
            (None, vec![soa(7), foreign], CollectError::Foreign),
            (None, vec![soa(7), chaos], CollectError::Foreign),
            (None, vec![], CollectError::Order),
        ] {
            let mut collector = Collector::new(apex(), 9, had);
            assert_eq!(collector.take(reply(&records)), Err(error), "{records:?}");
        }
    }

    #[test]
    fn a_reply_to_something_else_and_a_refusal_are_told_apart() {
        let mut other = reply(&[soa(7)]);
        other.header.id = 10;
        assert_eq!(Collector::new(apex(), 9, None).take(other), Err(CollectError::Mismatch));
        let mut refused = reply(&[]);
        refused.header.rcode = Rcode::REFUSED;
        let outcome = Collector::new(apex(), 9, None).take(refused);
        assert_eq!(outcome, Err(CollectError::Refused(Rcode::REFUSED)));
    }
}
