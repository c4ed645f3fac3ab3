//! A zone's cuts, read from a transfer (AXFR, RFC 5936).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::survey::Delegation;
use crate::model::Name;
use crate::net::connect;
use crate::wire::dns::{Message, Rcode, Record, Type};

/// Records of a transfer that are looked at: a zone has an end (RFC 5936 §2.2), a liar has none.
const MOST_RECORDS: usize = 10_000_000;

/// Delegation points that `server` has in the zone at `apex`, by a transfer; none when it does not allow one, or breaks
/// off. Each message must come within `patience`.
pub(super) async fn cuts(server: SocketAddr, apex: &Name, id: u16, patience: Duration) -> Option<Vec<Delegation>> {
    let mut stream = timeout(patience, ask(server, apex, id, patience)).await.ok()?.ok()?;
    let mut kept = Kept::default();
    while !kept.is_whole() {
        let message = timeout(patience, read(&mut stream)).await.ok()?.ok()?;
        let answer = Message::parse(&message).ok()?;
        let header = answer.header;
        if header.id != id || !header.response || header.rcode != Rcode::NOERROR || answer.answers.is_empty() {
            return None;
        }
        for record in answer.answers {
            kept.add(record, apex)?;
        }
    }
    Some(kept.delegations(apex))
}

async fn ask(server: SocketAddr, apex: &Name, id: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut stream = connect::tcp(server, None, Instant::now() + patience).await?;
    let mut query = Message::query(id, apex.clone(), Type::AXFR);
    query.edns = None;
    let query = query.encode(512);
    // A question is shorter than 300 octets.
    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
    stream.write_all(&framed).await?;
    Ok(stream)
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The few records of a transfer that say where the zone ends.
#[derive(Debug, Default)]
struct Kept {
    soas: usize,
    seen: usize,
    ns: Vec<Record>,
    addresses: Vec<Record>,
}

impl Kept {
    /// The SOA record opens and closes a transfer (RFC 5936 §2.2).
    fn is_whole(&self) -> bool {
        self.soas >= 2
    }

    /// Takes a record; none when this is no transfer of the zone.
    fn add(&mut self, record: Record, apex: &Name) -> Option<()> {
        self.seen += 1;
        let is_soa = record.rtype == Type::SOA && record.name == *apex;
        if self.seen > MOST_RECORDS || (self.seen == 1 && !is_soa) || self.is_whole() {
            return None;
        }
        match record.rtype {
            Type::SOA if is_soa => self.soas += 1,
            Type::NS if record.name != *apex && record.name.is_at_or_below(apex) => self.ns.push(record),
            Type::A | Type::AAAA => self.addresses.push(record),
            _ => {}
        }
        Some(())
    }

    fn delegations(self, apex: &Name) -> Vec<Delegation> {
        let mut cuts: Vec<&Name> = self.ns.iter().map(|record| &record.name).collect();
        cuts.sort_by_cached_key(|name| super::survey::sort_key(name));
        cuts.dedup();
        // What stands below another cut is not this zone's (RFC 1034 §4.2.1). Sorted, that cut is the last one kept.
        let mut kept: Vec<&Name> = Vec::new();
        for cut in cuts {
            if !kept.last().is_some_and(|last| cut.is_at_or_below(last)) && cut != apex {
                kept.push(cut);
            }
        }
        kept.into_iter().map(|cut| Delegation::of(cut, &self.ns, &self.addresses, true)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::zonefile;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn kept(text: &str) -> Option<Kept> {
        let mut kept = Kept::default();
        for record in zonefile::parse(text, &name("peak.")).unwrap() {
            kept.add(record, &name("peak."))?;
        }
        Some(kept)
    }

    const SOA: &str = "@ 60 SOA . . 1 2 3 4 5\n";

    #[test]
    fn cuts_come_with_their_servers_and_what_is_below_a_cut_is_none() {
        let text = format!(
            "{SOA}@ 60 NS ns\nns 60 A 192.0.2.1\nb 60 NS ns.b\nns.b 60 AAAA 2001:db8::1\nx.b 60 NS ns\na 60 NS ns\nab 60 NS ns\n{SOA}"
        );
        let kept = kept(&text).unwrap();
        assert!(kept.is_whole());
        let cuts = kept.delegations(&name("peak."));
        let names: Vec<String> = cuts.iter().map(|cut| cut.apex.to_string()).collect();
        assert_eq!(names, ["a.peak.", "ab.peak.", "b.peak."]);
        assert_eq!(cuts[2].servers, [(name("ns.b.peak."), vec!["2001:db8::1".parse().unwrap()])]);
        assert_eq!(cuts[0].servers, [(name("ns.peak."), vec!["192.0.2.1".parse().unwrap()])]);
    }

    #[test]
    fn a_transfer_begins_and_ends_with_the_soa_record() {
        assert!(kept("a 60 A 192.0.2.1\n").is_none());
        assert!(kept(&format!("{SOA}{SOA}a 60 A 192.0.2.1\n")).is_none());
        assert!(!kept(&format!("{SOA}a 60 A 192.0.2.1\n")).unwrap().is_whole());
    }
}
