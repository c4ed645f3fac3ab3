//! A zone on its way to a secondary: as a whole (AXFR), or as what differs from the version it has (IXFR).
//!
//! Messages are made as they are sent, from one snapshot of the zone: a transfer of a large zone takes little memory, and
//! changes meanwhile do not show in it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::model::Name;
use crate::model::zone::{Delta, Entry, Zone, serial};
use crate::ops::clock;
use crate::peak::ledger::Version;
use crate::wire::dns::tsig::Session;
use crate::wire::dns::{Message, Rcode, Record, Type};

/// Octets of records in one message, before compression: names are compressed against the first 16 KiB alone, and a
/// message that is too short has too much header.
const MESSAGE: usize = 32 << 10;

/// Octets of differences that are never too many, and what a name of a zone takes at least.
const FEW: usize = 64 << 10;
const NAME: usize = 64;

/// The most that a message can have (RFC 1035 §4.2.2).
const MOST: usize = 65_535;

/// What is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::peak) enum Form {
    /// The SOA alone: the asker has the latest version, or is to ask over TCP.
    Soa,
    /// What differs.
    Differences,
    /// All records.
    Whole,
}

/// A transfer that was granted.
#[derive(Debug)]
pub(in crate::peak) struct Outgoing {
    request: Message,
    session: Option<Session>,
    zone: Arc<Zone>,
    deltas: Vec<Arc<Delta>>,
    pub(in crate::peak) form: Form,
}

/// What a transfer was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::peak) struct Sent {
    pub(in crate::peak) messages: usize,
    pub(in crate::peak) octets: usize,
}

/// The serial that an IXFR says its asker has (RFC 1995 §3); none for AXFR, or when it does not say.
pub(in crate::peak) fn serial_had(request: &Message) -> Option<u32> {
    let question = request.questions.first().filter(|question| question.rtype == Type::IXFR)?;
    let soa = request.authorities.iter().find(|soa| soa.rtype == Type::SOA && soa.name == question.name)?;
    let at = soa.rdata.len().checked_sub(20)?;
    soa.rdata[at..].first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

impl Outgoing {
    /// The transfer that answers `request`, an AXFR or IXFR whose asker may have the zone.
    pub(in crate::peak) fn new(request: Message, session: Option<Session>, version: Version) -> Self {
        let Version { zone, deltas } = version;
        let had = serial_had(&request);
        let size: usize = deltas.iter().flatten().map(|delta| delta.octets()).sum();
        let (form, deltas) = match (had, deltas) {
            (Some(had), _) if had == zone.serial() || serial::is_newer(had, zone.serial()) => (Form::Soa, Vec::new()),
            // RFC 1995 §2: differences that are more than the zone are no use.
            (Some(_), Some(deltas)) if size <= FEW.max(zone.len() * NAME) => (Form::Differences, deltas),
            (Some(_) | None, _) => (Form::Whole, Vec::new()),
        };
        Self { request, session, zone, deltas, form }
    }

    /// The zone's name.
    pub(in crate::peak) fn apex(&self) -> &Name {
        self.zone.apex()
    }

    /// The serial of what is sent.
    pub(in crate::peak) fn serial(&self) -> u32 {
        self.zone.serial()
    }

    /// The whole transfer in one datagram of at most `limit` octets; else the SOA, upon which the asker comes again
    /// over TCP (RFC 1995 §2).
    pub(in crate::peak) fn datagram(mut self, limit: usize) -> Vec<u8> {
        let signature = self.session.as_ref().map_or(0, |session| session.key().octets());
        let limit = limit.saturating_sub(signature);
        let fits =
            self.form == Form::Differences && self.deltas.iter().map(|delta| delta.octets()).sum::<usize>() < limit;
        let mut reply = self.reply();
        if fits {
            reply.answers = differences(&self.zone, &self.deltas).map(|entry| record(&entry)).collect();
        }
        let mut octets = reply.encode(MOST);
        if !fits || octets.len() > limit {
            reply.answers = self.zone.soa().iter().map(record).collect();
            octets = reply.encode(limit);
        }
        if let Some(session) = &mut self.session {
            session.sign(&mut octets, clock::now());
        }
        octets
    }

    fn reply(&self) -> Message {
        let mut reply = self.request.response(Rcode::NOERROR);
        reply.header.authoritative = true;
        reply
    }

    /// Sends the transfer. `idle` is how long the peer may take for one message.
    ///
    /// # Errors
    /// The connection's, or the peer was too slow.
    pub(in crate::peak) async fn send(
        mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        idle: Duration,
    ) -> io::Result<Sent> {
        let (zone, deltas, form) = (Arc::clone(&self.zone), std::mem::take(&mut self.deltas), self.form);
        let mut packer = Packer {
            reply: self.reply(),
            size: 0,
            session: self.session.take(),
            sent: Sent { messages: 0, octets: 0 },
        };
        let soa = || zone.soa().into_iter();
        let entries: Box<dyn Iterator<Item = Entry>> = match form {
            Form::Soa => Box::new(soa()),
            Form::Whole => Box::new(soa().chain(zone.entries()).chain(soa())),
            Form::Differences => Box::new(differences(&zone, &deltas)),
        };
        for entry in entries {
            if !packer.takes(&entry) {
                packer.flush(stream, idle).await?;
                // Others on this core have their turn between two messages.
                tokio::task::yield_now().await;
            }
            packer.add(&entry);
        }
        packer.flush(stream, idle).await?;
        Ok(packer.sent)
    }
}

/// The records of an incremental transfer in order (RFC 1995 §4).
fn differences<'d>(zone: &'d Zone, deltas: &'d [Arc<Delta>]) -> impl Iterator<Item = Entry> + 'd {
    let changes = deltas.iter().flat_map(|delta| delta.entries().cloned());
    zone.soa().into_iter().chain(changes).chain(zone.soa())
}

fn record(entry: &Entry) -> Record {
    Record::new(entry.name.clone(), Type(entry.rtype), entry.ttl, entry.rdata.clone())
}

/// The message that is being filled.
struct Packer {
    reply: Message,
    size: usize,
    session: Option<Session>,
    sent: Sent,
}

impl Packer {
    fn takes(&self, entry: &Entry) -> bool {
        self.reply.answers.is_empty() || self.size + octets(&entry.name, &entry.rdata) <= MESSAGE
    }

    fn add(&mut self, entry: &Entry) {
        self.size += octets(&entry.name, &entry.rdata);
        self.reply.answers.push(record(entry));
    }

    async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin), idle: Duration) -> io::Result<()> {
        let mut message = self.reply.encode(MOST);
        if let Some(session) = &mut self.session {
            session.sign(&mut message, clock::now());
        }
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        message.splice(..0, length.to_be_bytes());
        timeout(idle, stream.write_all(&message)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.sent = Sent { messages: self.sent.messages + 1, octets: self.sent.octets + message.len() };
        // RFC 5936 §2.2.1: the question may be left out after the first message, and EDNS too (§2.2.5).
        self.reply.questions.clear();
        self.reply.edns = None;
        self.reply.answers.clear();
        self.size = 0;
        Ok(())
    }
}

fn octets(name: &Name, rdata: &[u8]) -> usize {
    name.wire().len() + 10 + rdata.len()
}
