//! What a walk finds, and what is wrong with it.
//!
//! Owns the judgement alone: what a server's answer says about its standing, which servers are behind, where the two
//! sides of a cut disagree. Who is asked, and in which order, is [`walk`](super::walk)'s.

use std::net::{IpAddr, SocketAddr};

use crate::model::Name;
use crate::net::dns_client::AskError;
use crate::wire::dns::rdata::{self, Soa};
use crate::wire::dns::{Message, Rcode, Record, Type};

/// A zone as its servers show it, with the zones below.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) apex: Name,
    /// Sorted by name and address; one without an address once.
    pub(super) servers: Vec<Server>,
    pub(super) faults: Vec<Fault>,
    pub(super) below: Below,
    pub(super) zones: Vec<Self>,
}

/// A server of a zone, at one of its addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Server {
    /// As NS records name it; none for the server that the walk was told of, when none does.
    pub(super) name: Option<Name>,
    pub(super) addr: Option<SocketAddr>,
    pub(super) standing: Standing,
}

/// What a server answers about a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It has authority.
    Serves { serial: u32 },
    /// It was asked and does not.
    Lame(Lameness),
    /// It could not be asked: it has no address.
    Unknown,
    /// Its address is of a family that was not wanted.
    NotAsked,
}

/// Why a server is lame for a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lameness {
    /// Silence.
    Timeout,
    /// The network or the machine said no.
    Unreachable,
    /// This machine has no socket left to ask it by.
    NoSocket,
    /// What it sent is no DNS message.
    Malformed,
    /// It said so.
    Code(Rcode),
    /// It answers, but from what it heard.
    NotAuthoritative,
    /// It knows nothing of the zone but who else may.
    Refers,
    /// It has authority for something, not for this.
    NoSoa,
}

impl Lameness {
    /// The stable word for programs.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoSocket => "no-socket",
            Self::Malformed => "malformed",
            Self::Code(Rcode::REFUSED) => "refused",
            Self::Code(Rcode::SERVFAIL) => "servfail",
            Self::Code(Rcode::NXDOMAIN) => "nxdomain",
            Self::Code(_) => "error",
            Self::NotAuthoritative => "not-authoritative",
            Self::Refers => "refers-elsewhere",
            Self::NoSoa => "no-soa",
        }
    }

    /// What people read behind "lame".
    pub(super) fn words(self) -> String {
        match self {
            Self::Timeout => "does not answer".to_owned(),
            Self::Unreachable => "cannot be reached".to_owned(),
            Self::NoSocket => "could not be asked: no socket is left here".to_owned(),
            Self::Malformed => "answers with no DNS message".to_owned(),
            Self::Code(rcode) => format!("answers {rcode}"),
            Self::NotAuthoritative => "answers without authority".to_owned(),
            Self::Refers => "refers to others".to_owned(),
            Self::NoSoa => "has no SOA record of it".to_owned(),
        }
    }
}

/// How the zones below a zone were found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Below {
    /// All of them, by a transfer.
    Transferred,
    /// Those that `--zone` names; no server of the zone allows a transfer.
    Asked,
    /// No server has authority, so nobody could be asked.
    Unknown,
}

/// Something that is wrong with a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// The zone is delegated to a server that does not serve it.
    Lame { server: Option<Name>, addr: SocketAddr, why: Lameness },
    /// A server's copy is older than another's (RFC 1982).
    Behind { server: Option<Name>, addr: SocketAddr, serial: u32, newest: u32 },
    /// The delegation names a server inside the zone and gives no address for it (RFC 9471).
    MissingGlue { server: Name },
    /// No address of a server could be found.
    NoAddress { server: Name },
    /// The delegation names a server that the zone does not name itself.
    NotInZone { server: Name },
    /// The zone names a server that the delegation does not (RFC 1034 §4.2.2: both sides say the same).
    NotInDelegation { server: Name },
    /// No server with authority is left.
    NobodyServes,
    /// A zone that `--zone` names, or the one asked for, is not delegated from here.
    NotFound { zone: Name },
    /// There are more zones than are walked.
    TooMany { walked: usize },
}

impl Fault {
    /// The stable word for programs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Lame { .. } => "lame-delegation",
            Self::Behind { .. } => "serial-drift",
            Self::MissingGlue { .. } => "missing-glue",
            Self::NoAddress { .. } => "no-address",
            Self::NotInZone { .. } => "server-not-in-zone",
            Self::NotInDelegation { .. } => "server-not-in-delegation",
            Self::NobodyServes => "nobody-serves",
            Self::NotFound { .. } => "zone-not-found",
            Self::TooMany { .. } => "too-many-zones",
        }
    }

    /// What is wrong and what to do, for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Lame { server, addr, why } => {
                format!("lame delegation: {} {}", at(server.as_ref(), *addr), why.words())
            }
            Self::Behind { server, addr, serial, newest } => {
                format!("serial drift: {} has serial {serial}, the newest is {newest}", at(server.as_ref(), *addr))
            }
            Self::MissingGlue { server } => {
                format!("missing glue: the delegation names {server} inside the zone and gives no address for it")
            }
            Self::NoAddress { server } => format!("no address of {server} could be found"),
            Self::NotInZone { server } => format!("{server} is in the delegation and not in the zone's own NS records"),
            Self::NotInDelegation { server } => {
                format!("{server} is in the zone's own NS records and not in the delegation")
            }
            Self::NobodyServes => "no server of the zone serves it".to_owned(),
            Self::NotFound { zone } => format!("{zone} was asked for, and nothing here delegates it"),
            Self::TooMany { walked } => format!("there are more than {walked} zones; those further on were not walked"),
        }
    }
}

fn at(server: Option<&Name>, addr: SocketAddr) -> String {
    server.map_or_else(|| addr.to_string(), |name| format!("{name} at {addr}"))
}

/// What an answer to the question for `apex`'s SOA record says about who gave it.
pub(super) fn standing(apex: &Name, answer: &Result<Message, AskError>) -> Standing {
    let answer = match answer {
        Ok(answer) => answer,
        Err(AskError::Timeout { .. }) => return Standing::Lame(Lameness::Timeout),
        Err(AskError::Io { .. } | AskError::NoQuestion { .. }) => return Standing::Lame(Lameness::Unreachable),
        Err(AskError::NoSocket { .. }) => return Standing::Lame(Lameness::NoSocket),
        Err(AskError::Malformed { .. }) => return Standing::Lame(Lameness::Malformed),
    };
    if answer.header.rcode != Rcode::NOERROR {
        return Standing::Lame(Lameness::Code(answer.header.rcode));
    }
    let soa = answer.answers.iter().find(|record| record.rtype == Type::SOA && record.name == *apex);
    match soa.and_then(|record| Soa::decode(&record.rdata).ok()) {
        Some(soa) if answer.header.authoritative => Standing::Serves { serial: soa.serial },
        Some(_) => Standing::Lame(Lameness::NotAuthoritative),
        None if referral(answer).is_some() => Standing::Lame(Lameness::Refers),
        None => Standing::Lame(Lameness::NoSoa),
    }
}

/// A cut: the zone below it, its servers, and their addresses as they stand beside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Delegation {
    pub(super) apex: Name,
    pub(super) servers: Vec<(Name, Vec<IpAddr>)>,
    /// Whether this is what the zone above says; otherwise the zone itself said it, because the server asked serves
    /// both.
    pub(super) from_above: bool,
}

impl Delegation {
    /// The delegation of `apex` that these records hold.
    pub(super) fn of(apex: &Name, ns: &[Record], glue: &[Record], from_above: bool) -> Self {
        let is_ns = |record: &&Record| record.rtype == Type::NS && record.name == *apex;
        let names = ns.iter().filter(is_ns).filter_map(|record| Name::from_wire(&record.rdata).ok());
        let mut servers: Vec<_> = names
            .map(|name| {
                let found = addresses(&name, glue);
                (name, found)
            })
            .collect();
        servers.sort_by_cached_key(|(name, _)| sort_key(name));
        servers.dedup_by(|one, other| one.0 == other.0);
        Self { apex: apex.clone(), servers, from_above }
    }

    /// Servers inside the zone without an address: nobody could find the zone by them (RFC 9471 §2).
    pub(super) fn missing_glue(&self) -> Vec<Fault> {
        let without = |(name, found): &&(Name, Vec<IpAddr>)| found.is_empty() && name.is_at_or_below(&self.apex);
        let faults = self.servers.iter().filter(without).map(|(name, _)| Fault::MissingGlue { server: name.clone() });
        if self.from_above { faults.collect() } else { Vec::new() }
    }
}

/// Where the delegation and the zone's own NS records disagree.
pub(super) fn differences(above: &Delegation, own: &Delegation) -> Vec<Fault> {
    if !above.from_above {
        return Vec::new();
    }
    let names = |delegation: &Delegation, name: &Name| delegation.servers.iter().any(|(server, _)| server == name);
    let only_above = above.servers.iter().filter(|(name, _)| !names(own, name));
    let only_own = own.servers.iter().filter(|(name, _)| !names(above, name));
    let not_in_zone = only_above.map(|(name, _)| Fault::NotInZone { server: name.clone() });
    not_in_zone.chain(only_own.map(|(name, _)| Fault::NotInDelegation { server: name.clone() })).collect()
}

/// What is wrong with the servers, seen together.
pub(super) fn judge(servers: &[Server]) -> Vec<Fault> {
    let serials = || servers.iter().filter_map(Server::serial);
    let newest = serials().reduce(|newest, serial| if is_newer(serial, newest) { serial } else { newest });
    let mut faults: Vec<Fault> = servers.iter().filter_map(|server| server.fault(newest)).collect();
    if newest.is_none() {
        faults.push(Fault::NobodyServes);
    }
    faults
}

impl Server {
    fn serial(&self) -> Option<u32> {
        match self.standing {
            Standing::Serves { serial } => Some(serial),
            Standing::Lame(_) | Standing::Unknown | Standing::NotAsked => None,
        }
    }

    fn fault(&self, newest: Option<u32>) -> Option<Fault> {
        let server = self.name.clone();
        match (self.standing, self.addr) {
            (Standing::Lame(why), Some(addr)) => Some(Fault::Lame { server, addr, why }),
            (Standing::Serves { serial }, Some(addr)) => {
                let newest = newest.filter(|newest| *newest != serial)?;
                Some(Fault::Behind { server, addr, serial, newest })
            }
            (Standing::NotAsked, _) => None,
            (Standing::Unknown, _) | (_, None) => server.map(|server| Fault::NoAddress { server }),
        }
    }
}

/// RFC 1982 §3.2.
fn is_newer(serial: u32, than: u32) -> bool {
    let ahead = serial.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 31
}

/// The name whose servers an answer refers to; none when it is no referral.
pub(super) fn referral(answer: &Message) -> Option<&Name> {
    let refers = answer.header.rcode == Rcode::NOERROR && !answer.header.authoritative && answer.answers.is_empty();
    let cut = answer.authorities.iter().find(|record| record.rtype == Type::NS);
    cut.filter(|_| refers).map(|record| &record.name)
}

/// The addresses that `records` give for `name`, IPv4 first, each once.
pub(super) fn addresses(name: &Name, records: &[Record]) -> Vec<IpAddr> {
    let of_name = records.iter().filter(|record| record.name == *name);
    let mut found: Vec<IpAddr> = of_name.filter_map(|record| address(record.rtype, &record.rdata)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn address(rtype: Type, data: &[u8]) -> Option<IpAddr> {
    if !matches!(rtype, Type::A | Type::AAAA) || !rdata::is_well_formed(rtype, data) {
        return None;
    }
    rdata::to_text(rtype, data).parse().ok()
}

/// What names are sorted by: the labels from the top down, without case (RFC 4034 §6.1).
pub(super) fn sort_key(name: &Name) -> Vec<Vec<u8>> {
    let mut labels: Vec<Vec<u8>> = name.labels().map(<[u8]>::to_ascii_lowercase).collect();
    labels.reverse();
    labels
}

impl Zone {
    /// Every fault in words, of this zone and those below.
    pub(super) fn tell(&self, faults: &mut Vec<String>) {
        faults.extend(self.faults.iter().map(|fault| format!("{}: {}", self.apex, fault.words())));
        self.zones.iter().for_each(|zone| zone.tell(faults));
    }

    /// All faults, of this zone and those below.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.len() + self.zones.iter().map(Self::fault_count).sum::<usize>()
    }

    /// All zones, this one included.
    pub(super) fn count(&self) -> usize {
        1 + self.zones.iter().map(Self::count).sum::<usize>()
    }

    /// Whether `name` is the apex of this zone or of one below.
    pub(super) fn holds(&self, name: &Name) -> bool {
        self.apex == *name || self.zones.iter().any(|zone| zone.holds(name))
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
