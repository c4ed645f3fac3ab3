//! A zone's cuts, read from a transfer (AXFR, RFC 5936).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::survey::Delegation;
use crate::model::Name;
use crate::model::zone::Entry;
use crate::peak::exchange::{Connection, Request};
use crate::peak::transfer::collect::{Collected, Collector};
use crate::wire::dns::tsig::Key;
use crate::wire::dns::{Message, Record, Type};

/// Delegation points that `server` has in the zone at `apex`, by a transfer; none when it does not allow one, or breaks
/// off. Each message must come within `patience`.
pub(super) async fn cuts(
    server: SocketAddr,
    apex: &Name,
    key: Option<&Arc<Key>>,
    patience: Duration,
) -> Option<Vec<Delegation>> {
    let mut question = Message::query(0, apex.clone(), Type::AXFR);
    question.edns = None;
    let mut request = Request::new(key, question);
    let mut connection = Connection::open(server, None, patience, patience).await.ok()?;
    connection.send(&request.octets).await.ok()?;
    let mut collector = Collector::new(apex.clone(), request.id, None).keeping(says_where_a_zone_ends);
    while !collector.take(request.read(&connection.receive().await.ok()?).ok()?).ok()? {}
    request.finish().ok()?;
    match collector.finish() {
        Collected::Whole(entries) => Some(delegations(apex, entries)),
        Collected::UpToDate | Collected::Differences(_) => None,
    }
}

/// The few records of a zone that do.
fn says_where_a_zone_ends(record: &Record) -> bool {
    matches!(record.rtype, Type::NS | Type::A | Type::AAAA)
}

fn delegations(apex: &Name, entries: Vec<Entry>) -> Vec<Delegation> {
    let record = |entry: Entry| Record::new(entry.name, Type(entry.rtype), entry.ttl, entry.rdata);
    let (ns, addresses): (Vec<Record>, Vec<Record>) =
        entries.into_iter().map(record).partition(|record| record.rtype == Type::NS);
    let mut cuts: Vec<&Name> = ns.iter().map(|record| &record.name).filter(|name| *name != apex).collect();
    cuts.sort_by_cached_key(|name| super::survey::sort_key(name));
    cuts.dedup();
    // What stands below another cut is not this zone's (RFC 1034 §4.2.1). Sorted, that cut is the last one kept.
    let mut kept: Vec<&Name> = Vec::new();
    for cut in cuts {
        if !kept.last().is_some_and(|last| cut.is_at_or_below(last)) {
            kept.push(cut);
        }
    }
    kept.into_iter().map(|cut| Delegation::of(cut, &ns, &addresses, true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::zonefile;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn cuts_come_with_their_servers_and_what_is_below_a_cut_is_none() {
        let text = "@ 60 NS ns\nns 60 A 192.0.2.1\nb 60 NS ns.b\nns.b 60 AAAA 2001:db8::1\nx.b 60 NS ns\na 60 NS ns\n\
                    ab 60 NS ns\n";
        let entry =
            |record: Record| Entry { name: record.name, rtype: record.rtype.0, ttl: record.ttl, rdata: record.rdata };
        let entries = zonefile::parse(text, &name("peak.")).unwrap().into_iter().map(entry).collect();
        let cuts = delegations(&name("peak."), entries);
        let names: Vec<String> = cuts.iter().map(|cut| cut.apex.to_string()).collect();
        assert_eq!(names, ["a.peak.", "ab.peak.", "b.peak."]);
        assert_eq!(cuts[2].servers, [(name("ns.b.peak."), vec!["2001:db8::1".parse().unwrap()])]);
        assert_eq!(cuts[0].servers, [(name("ns.peak."), vec!["192.0.2.1".parse().unwrap()])]);
    }
}
