//! Walking a hierarchy of zones from one server down.
//!
//! Owns who is asked what. The walk begins at the zone that the first server has authority for, asks every server of
//! it, learns the cuts by a transfer where one is allowed and else by asking for the zones that the caller named, and
//! goes on below each cut. It ends: every step goes to a longer name, and the number of zones is bounded.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::survey::{
    Below, Delegation, Fault, Server, Standing, Zone, addresses, differences, judge, referral, sort_key, standing,
};
use super::transfer;
use crate::model::Name;
use crate::net::dns_client::{AskError, DnsClient};
use crate::wire::dns::tsig::Key;
use crate::wire::dns::{Class, Message, Question, Rcode, Type};

/// Zones that are walked at most.
const MOST_ZONES: usize = 10_000;
/// Servers of a zone, or zones below one zone, that are asked at once.
const AT_ONCE: usize = 8;
/// Servers that are asked for one server's address.
const MOST_REFERRALS: usize = 16;

/// How to ask, and where to begin.
#[derive(Clone, Debug)]
pub(super) struct Guide {
    pub(super) client: DnsClient,
    /// The server that is asked first.
    pub(super) first: SocketAddr,
    /// Where servers that NS records name listen.
    pub(super) port: u16,
    /// The only family of addresses that is asked; none: both are.
    pub(super) family: Option<Family>,
    /// For one question, TCP included.
    pub(super) patience: Duration,
    /// What signs transfers.
    pub(super) key: Option<Arc<Key>>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }
}

/// Why there is nothing to draw.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Nothing came back, or nothing that can be read.
    #[error("the walk cannot begin: {cause}")]
    Silent {
        /// Why.
        #[source]
        cause: AskError,
    },
    /// It is a server of something else.
    #[error("{server} has authority for no zone at or above {name}: give --server a server of one")]
    NoAuthority {
        /// Who was asked.
        server: SocketAddr,
        /// For what.
        name: Name,
    },
}

/// Walks from the zone that holds `name`, and looks for those in `hints` where no transfer is allowed.
///
/// # Errors
/// When the first server cannot be asked, or has no authority over the name.
pub(super) async fn walk(guide: &Guide, name: &Name, hints: &[Name]) -> Result<Zone, WalkError> {
    let top = guide.apex_above(name).await?;
    let mut hints = hints.to_vec();
    if top != *name {
        hints.push(name.clone());
    }
    let answer = guide.ask(guide.first, &top, Type::NS).await;
    let (ns, glue) = answer.map_or_else(|_| Default::default(), |answer| (answer.answers, answer.additionals));
    let start = Delegation::of(&top, &ns, &glue, false);
    let walk = Walk { guide, top, hints, walked: AtomicUsize::new(1) };
    let mut zone = walk.zone(start).await;
    if walk.walked.load(Ordering::Relaxed) > MOST_ZONES {
        zone.faults.push(Fault::TooMany { walked: MOST_ZONES });
    }
    let lost = walk.hints.into_iter().filter(|hint| !zone.holds(hint)).map(|zone| Fault::NotFound { zone });
    zone.faults.extend(lost.collect::<Vec<_>>());
    Ok(zone)
}

impl Guide {
    async fn ask(&self, server: SocketAddr, name: &Name, rtype: Type) -> Result<Message, AskError> {
        let question = Question { name: name.clone(), rtype, class: Class::IN };
        self.client.ask(server, &question, self.patience).await
    }

    /// The apex of the zone for which the first server has authority, at `name` or the nearest above.
    async fn apex_above(&self, name: &Name) -> Result<Name, WalkError> {
        let mut candidate = Some(name.clone());
        while let Some(apex) = candidate {
            let answer = self.ask(self.first, &apex, Type::SOA).await;
            if matches!(standing(&apex, &answer), Standing::Serves { .. }) {
                return Ok(apex);
            }
            if let Err(cause) = answer {
                return Err(WalkError::Silent { cause });
            }
            candidate = apex.parent();
        }
        Err(WalkError::NoAuthority { server: self.first, name: name.clone() })
    }

    /// One server's standing, at one address.
    async fn visit(&self, apex: &Name, name: Option<Name>, addr: Option<SocketAddr>) -> Server {
        let standing = match addr {
            None => Standing::Unknown,
            Some(addr) if self.family.is_some_and(|family| !family.has(addr.ip())) => Standing::NotAsked,
            Some(addr) => standing(apex, &self.ask(addr, apex, Type::SOA).await),
        };
        Server { name, addr, standing }
    }

    /// The delegation of `apex` that `server` gives when it is asked for the zone's servers.
    async fn servers_named(&self, server: SocketAddr, apex: &Name) -> Option<Delegation> {
        let answer = self.ask(server, apex, Type::NS).await.ok()?;
        Some(Delegation::of(apex, &answer.answers, &answer.additionals, false))
    }

    /// The cut below `apex` on the way to `hint`.
    async fn cut_above(&self, server: SocketAddr, apex: &Name, hint: &Name) -> Option<Delegation> {
        let answer = self.ask(server, hint, Type::NS).await.ok()?;
        if let Some(cut) = referral(&answer) {
            let below = cut != apex && cut.is_at_or_below(apex) && hint.is_at_or_below(cut);
            return below.then(|| Delegation::of(cut, &answer.authorities, &answer.additionals, true));
        }
        // The server serves the zone below as well, and so never says what the one above holds.
        let own = Delegation::of(hint, &answer.answers, &answer.additionals, false);
        (answer.header.authoritative && !own.servers.is_empty()).then_some(own)
    }

    /// A name's addresses of one family, from the first server down; none when nobody there knows about the name.
    async fn addresses(&self, name: &Name, rtype: Type) -> Option<Vec<IpAddr>> {
        let mut servers = vec![self.first];
        let mut asked = HashSet::new();
        while asked.len() < MOST_REFERRALS {
            let server = servers.pop()?;
            if !asked.insert(server) {
                continue;
            }
            let Ok(answer) = self.ask(server, name, rtype).await else { continue };
            match referral(&answer) {
                Some(cut) if name.is_at_or_below(cut) => {
                    let cut = Delegation::of(cut, &answer.authorities, &answer.additionals, true);
                    let glued = cut.servers.iter().flat_map(|(_, found)| found);
                    servers.extend(glued.map(|ip| SocketAddr::new(*ip, self.port)));
                }
                None if [Rcode::NOERROR, Rcode::NXDOMAIN].contains(&answer.header.rcode) => {
                    return Some(addresses(name, &answer.answers));
                }
                Some(_) | None => {}
            }
        }
        None
    }

    /// A name's addresses, as this machine finds names.
    async fn addresses_elsewhere(&self, name: &Name) -> Vec<IpAddr> {
        let asked = timeout(self.patience, tokio::net::lookup_host((name.to_string(), self.port))).await;
        let found = asked.ok().and_then(Result::ok).into_iter().flatten();
        let mut found: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A walk under way.
#[derive(Debug)]
struct Walk<'g> {
    guide: &'g Guide,
    /// The first zone.
    top: Name,
    hints: Vec<Name>,
    /// Zones so far.
    walked: AtomicUsize,
}

impl Walk<'_> {
    /// One zone and what is below it. Boxed, for it calls itself.
    fn zone(&self, delegation: Delegation) -> Pin<Box<dyn Future<Output = Zone> + '_>> {
        Box::pin(async move {
            let apex = &delegation.apex;
            let mut faults = delegation.missing_glue();
            let mut servers = self.visit_all(apex, &delegation.servers).await;
            if *apex == self.top && !servers.iter().any(|server| server.addr == Some(self.guide.first)) {
                servers.push(self.guide.visit(apex, None, Some(self.guide.first)).await);
            }
            if let Some(server) = serving(&servers).first()
                && let Some(own) = self.guide.servers_named(*server, apex).await
            {
                faults.extend(differences(&delegation, &own));
                servers.extend(self.visit_all(apex, &unknown_to(&servers, own)).await);
            }
            servers.sort_by_cached_key(|server| (server.name.as_ref().map(sort_key), server.addr));
            let of_servers: Vec<Fault> = judge(&servers).into_iter().filter(|fault| !told(fault, &faults)).collect();
            faults.extend(of_servers);
            let (below, cuts) = self.cuts(&serving(&servers), apex).await;
            let zones = self.zones(cuts).await;
            Zone { apex: delegation.apex, servers, faults, below, zones }
        })
    }

    async fn zones(&self, cuts: Vec<Delegation>) -> Vec<Zone> {
        let within = cuts.into_iter().take_while(|_| self.walked.fetch_add(1, Ordering::Relaxed) < MOST_ZONES);
        let within: Vec<_> = within.map(|cut| self.zone(cut)).collect();
        stream::iter(within).buffered(AT_ONCE).collect().await
    }

    /// The servers, each asked at each of its addresses.
    async fn visit_all(&self, apex: &Name, named: &[(Name, Vec<IpAddr>)]) -> Vec<Server> {
        let located: Vec<_> = named.iter().map(|(name, glue)| self.located(name, glue)).collect();
        let places: Vec<_> = stream::iter(located).buffered(AT_ONCE).collect().await;
        let visits: Vec<_> =
            places.into_iter().flatten().map(|(name, addr)| self.guide.visit(apex, Some(name), addr)).collect();
        stream::iter(visits).buffered(AT_ONCE).collect().await
    }

    /// A server's name with each of its addresses, or with none.
    async fn located(&self, name: &Name, glue: &[IpAddr]) -> Vec<(Name, Option<SocketAddr>)> {
        let found = if glue.is_empty() { self.addresses_of(name).await } else { glue.to_vec() };
        if found.is_empty() {
            return vec![(name.clone(), None)];
        }
        found.into_iter().map(|ip| (name.clone(), Some(SocketAddr::new(ip, self.guide.port)))).collect()
    }

    async fn addresses_of(&self, name: &Name) -> Vec<IpAddr> {
        if !name.is_at_or_below(&self.top) {
            return self.guide.addresses_elsewhere(name).await;
        }
        let (four, six) = tokio::join!(self.guide.addresses(name, Type::A), self.guide.addresses(name, Type::AAAA));
        [four.unwrap_or_default(), six.unwrap_or_default()].concat()
    }

    /// The cuts of a zone, asked of those that serve it.
    async fn cuts(&self, serving: &[SocketAddr], apex: &Name) -> (Below, Vec<Delegation>) {
        for server in serving {
            let Guide { key, patience, .. } = self.guide;
            if let Some(cuts) = transfer::cuts(*server, apex, key.as_ref(), *patience).await {
                return (Below::Transferred, cuts);
            }
        }
        let Some(server) = serving.first() else { return (Below::Unknown, Vec::new()) };
        let mut cuts: Vec<Delegation> = Vec::new();
        for hint in self.hints.iter().filter(|hint| hint.is_at_or_below(apex) && *hint != apex) {
            if !cuts.iter().any(|cut| hint.is_at_or_below(&cut.apex)) {
                cuts.extend(self.guide.cut_above(*server, apex, hint).await);
            }
        }
        cuts.sort_by_cached_key(|cut| sort_key(&cut.apex));
        (Below::Asked, cuts)
    }
}

fn serving(servers: &[Server]) -> Vec<SocketAddr> {
    let serves = |server: &&Server| matches!(server.standing, Standing::Serves { .. });
    servers.iter().filter(serves).filter_map(|server| server.addr).collect()
}

/// The servers that only the zone itself names.
fn unknown_to(servers: &[Server], own: Delegation) -> Vec<(Name, Vec<IpAddr>)> {
    let known = |name: &Name| servers.iter().any(|server| server.name.as_ref() == Some(name));
    own.servers.into_iter().filter(|(name, _)| !known(name)).collect()
}

/// Whether a fault's cause is told already: a server without glue has no address for the same reason.
fn told(fault: &Fault, before: &[Fault]) -> bool {
    match fault {
        Fault::NoAddress { server } => before.contains(&Fault::MissingGlue { server: server.clone() }),
        Fault::Lame { .. }
        | Fault::Behind { .. }
        | Fault::MissingGlue { .. }
        | Fault::NotInZone { .. }
        | Fault::NotInDelegation { .. }
        | Fault::NobodyServes
        | Fault::NotFound { .. }
        | Fault::TooMany { .. } => false,
    }
}
