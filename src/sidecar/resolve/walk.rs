//! From the main servers down to whoever knows: iterative resolution (RFC 1034 §5.3.3) inside Peak's zones.
//!
//! Owns the cache of answers and delegations. What an answer says and what of it may be believed is [`super::verdict`]'s,
//! whom to ask first is [`super::health`]'s. Nothing is kept past its TTL; a failure is kept for a second, so that a
//! burst of connections does not become a burst of questions (RFC 9520 §3.2).
//!
//! ```text
//!  main servers ──referral──▶ cluster's servers ──referral──▶ … ──▶ answer | alias | NODATA | NXDOMAIN
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::cache::Cache;
use super::flight::Flights;
use super::health::Health;
use super::race::{Pace, Reply, first_good};
use super::seldom::Seldom;
use super::verdict::{self, Delegation, Unusable, Verdict};
use super::{ResolveError, ResolveMetrics, Settings};
use crate::model::Name;
use crate::net::dns_client::{AskError, DnsClient};
use crate::ops::metrics::Reason;
use crate::wire::dns::{Class, Question, Record, Type};

/// An authoritative server answers from memory: silence is a lost datagram or a dead server. When all are silent, no
/// caller is made to wait for what the one before waited for in vain.
const PACE: Pace = Pace {
    attempt: Duration::from_millis(1000),
    deadline: Duration::from_millis(2500),
    deadline_when_all_fail: Duration::ZERO,
};
/// How long everything for one question may take, all servers of all zones on the way together.
const WALK_DEADLINE: Duration = Duration::from_secs(4);
/// How long a failure is remembered.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// How many zones one question may ask, the lookups of name servers' addresses included.
const MOST_STEPS: u32 = 24;
/// How deep lookups of name servers' addresses may nest.
const MOST_NESTED: u8 = 3;
/// How many name servers without an address are looked up for one zone.
const MOST_GLUELESS: usize = 3;
/// How many aliases may follow one another.
const MOST_ALIASES: usize = 8;
const MOST_ANSWERS: usize = 16_384;
const MOST_DELEGATIONS: usize = 1_024;
const MOST_FLIGHTS: usize = 4_096;

/// What is known about one name and type.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Known {
    pub(in crate::sidecar) fact: Fact,
    /// When it stops being true.
    pub(in crate::sidecar) until: Instant,
}

/// What DNS says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::sidecar) enum Fact {
    Records(Vec<Record>),
    Alias {
        record: Record,
        target: Name,
    },
    /// With the zone's SOA, where it came.
    NoData(Option<Record>),
    /// With the zone's SOA, where it came.
    NoName(Option<Record>),
}

/// The whole answer to a question.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Answer {
    /// The aliases on the way, in order.
    pub(in crate::sidecar) aliases: Vec<Arc<Known>>,
    /// The name that they lead to.
    pub(in crate::sidecar) canonical: Name,
    /// What is known of that name; none when it lies in none of Peak's zones.
    pub(in crate::sidecar) last: Option<Arc<Known>>,
}

impl Answer {
    /// When the first part of it stops being true; none when there is no part.
    pub(super) fn until(&self) -> Option<Instant> {
        self.aliases.iter().chain(&self.last).map(|known| known.until).min()
    }
}

type Outcome = Result<Arc<Known>, ResolveError>;

/// See the module.
#[derive(Debug)]
pub(super) struct Walker {
    settings: Settings,
    client: DnsClient,
    metrics: ResolveMetrics,
    health: Arc<Health>,
    no_socket: Arc<Seldom>,
    delegations: Mutex<Cache<Name, Arc<Delegation>>>,
    answers: Mutex<Cache<(Name, Type), Outcome>>,
    /// NXDOMAIN counts for every type.
    missing: Mutex<Cache<Name, Arc<Known>>>,
    flights: Arc<Flights<(Name, Type), Outcome>>,
}

/// Who is asked next.
enum Authority {
    /// The main servers, for a zone of the configuration.
    Main(Name),
    Delegated {
        delegation: Arc<Delegation>,
        /// It may have changed since.
        remembered: bool,
    },
}

impl Authority {
    fn zone(&self) -> &Name {
        match self {
            Self::Main(zone) => zone,
            Self::Delegated { delegation, .. } => &delegation.zone,
        }
    }
}

/// What one question may still cost (against delegations made to multiply questions).
#[derive(Debug)]
struct Budget(AtomicU32);

impl Budget {
    fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Walker {
    pub(super) fn new(settings: Settings, client: DnsClient, metrics: ResolveMetrics) -> Self {
        Self {
            settings,
            client,
            metrics,
            health: Arc::default(),
            no_socket: Arc::default(),
            delegations: Mutex::new(Cache::new(MOST_DELEGATIONS)),
            answers: Mutex::new(Cache::new(MOST_ANSWERS)),
            missing: Mutex::new(Cache::new(MOST_ANSWERS)),
            flights: Arc::new(Flights::new(MOST_FLIGHTS)),
        }
    }

    /// The longest of Peak's zones that holds `name`.
    pub(super) fn zone_of(&self, name: &Name) -> Option<&Name> {
        let holding = self.settings.zones.iter().filter(|zone| name.is_at_or_below(zone));
        holding.max_by_key(|zone| zone.wire().len())
    }

    /// The answer to a question, aliases followed as far as Peak's zones go.
    pub(super) async fn query(self: &Arc<Self>, name: &Name, rtype: Type) -> Result<Answer, ResolveError> {
        let mut answer = Answer { aliases: Vec::new(), canonical: name.clone(), last: None };
        if self.zone_of(name).is_none() {
            return Err(ResolveError::NotInPeak { name: name.clone() });
        }
        while self.zone_of(&answer.canonical).is_some() {
            let known = self.known(&answer.canonical, rtype).await?;
            let Fact::Alias { target, .. } = &known.fact else {
                answer.last = Some(known);
                return Ok(answer);
            };
            answer.canonical = target.clone();
            answer.aliases.push(known);
            if answer.aliases.len() > MOST_ALIASES {
                return Err(ResolveError::AliasLoop { name: name.clone() });
            }
        }
        Ok(answer)
    }

    async fn known(self: &Arc<Self>, name: &Name, rtype: Type) -> Outcome {
        if let Some(outcome) = self.remembered(name, rtype) {
            return outcome;
        }
        let busy = || Err(ResolveError::Busy { name: name.clone() });
        let fetch = || {
            let (walker, name) = (self.clone(), name.clone());
            async move { walker.fetch(name, rtype).await }
        };
        self.flights.join((name.clone(), rtype), fetch).await.unwrap_or_else(busy)
    }

    fn remembered(&self, name: &Name, rtype: Type) -> Option<Outcome> {
        let now = Instant::now();
        if let Some(known) = self.missing.lock().get(name, now) {
            return Some(Ok(known.clone()));
        }
        self.answers.lock().get(&(name.clone(), rtype), now).cloned()
    }

    async fn fetch(self: Arc<Self>, name: Name, rtype: Type) -> Outcome {
        let budget = Budget(AtomicU32::new(MOST_STEPS));
        let outcome = match timeout(WALK_DEADLINE, self.walk(&name, rtype, &budget, 0)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ResolveError::Unreachable { zone: self.start(&name).zone().clone(), name: name.clone() }),
        };
        if outcome.is_err() {
            let now = Instant::now();
            self.answers.lock().insert((name, rtype), outcome.clone(), now + FAILURE_KEPT, now);
        }
        outcome
    }

    /// Goes from zone to zone until somebody knows, and remembers what they say.
    async fn walk(&self, name: &Name, rtype: Type, budget: &Budget, nested: u8) -> Outcome {
        let mut authority = self.start(name);
        loop {
            if !budget.spend() {
                return Err(ResolveError::TooManyReferrals { name: name.clone() });
            }
            let asked = self.ask_zone(&authority, name, rtype, budget, nested).await;
            authority = match (asked, authority) {
                (Ok(Verdict::Referral(delegation)), _) => self.follow(delegation),
                (Ok(verdict), _) => return Ok(self.remember(name, rtype, verdict)),
                (Err(_), Authority::Delegated { delegation, remembered: true }) if nested == 0 => {
                    // The cluster may have moved its name servers since; those above know.
                    self.delegations.lock().remove(&delegation.zone);
                    self.start(name)
                }
                (Err(error), Authority::Delegated { .. } | Authority::Main(_)) => return Err(error),
            };
        }
    }

    /// The deepest zone above `name` whose servers are known.
    fn start(&self, name: &Name) -> Authority {
        let main = self.zone_of(name).cloned().unwrap_or_else(Name::root);
        let now = Instant::now();
        let delegations = self.delegations.lock();
        let mut zone = Some(name.clone());
        while let Some(candidate) = zone.filter(|candidate| candidate.wire().len() > main.wire().len()) {
            if let Some(delegation) = delegations.get(&candidate, now) {
                return Authority::Delegated { delegation: delegation.clone(), remembered: true };
            }
            zone = candidate.parent();
        }
        Authority::Main(main)
    }

    fn follow(&self, delegation: Delegation) -> Authority {
        self.metrics.refused_glue.add(delegation.glue_refused);
        let now = Instant::now();
        let delegation = Arc::new(delegation);
        self.delegations.lock().insert(delegation.zone.clone(), delegation.clone(), now + delegation.ttl, now);
        Authority::Delegated { delegation, remembered: false }
    }

    fn remember(&self, name: &Name, rtype: Type, verdict: Verdict) -> Arc<Known> {
        let now = Instant::now();
        let (fact, ttl) = match verdict {
            Verdict::Records { records, ttl } => (Fact::Records(records), ttl),
            Verdict::Alias { record, target, ttl } => (Fact::Alias { record, target }, ttl),
            Verdict::NoData { soa, ttl } => (Fact::NoData(soa), ttl),
            Verdict::NoName { soa, ttl } => (Fact::NoName(soa), ttl),
            Verdict::Referral(_) => unreachable!("a referral is followed, never remembered as an answer"),
        };
        let known = Arc::new(Known { fact, until: now + ttl });
        if matches!(known.fact, Fact::NoName(_)) {
            self.missing.lock().insert(name.clone(), known.clone(), known.until, now);
        } else {
            self.answers.lock().insert((name.clone(), rtype), Ok(known.clone()), known.until, now);
        }
        known
    }

    /// One question to the servers of one zone.
    async fn ask_zone(
        &self,
        authority: &Authority,
        name: &Name,
        rtype: Type,
        budget: &Budget,
        nested: u8,
    ) -> Result<Verdict, ResolveError> {
        let zone = authority.zone();
        let servers = match authority {
            Authority::Main(_) => self.settings.servers.clone(),
            Authority::Delegated { delegation, .. } => self.addresses(delegation, budget, nested).await?,
        };
        let question = Question { name: name.clone(), rtype, class: Class::IN };
        let ask = |server| {
            ask(self.client, self.metrics.clone(), self.no_socket.clone(), server, question.clone(), zone.clone())
        };
        first_good(&self.health, &servers, PACE, ask, || self.metrics.failovers.increment()).await.map_err(|failure| {
            let (name, zone) = (name.clone(), zone.clone());
            match failure.unusable {
                Some(unusable) => {
                    tracing::debug!(%name, %zone, %unusable, "no name server gave a usable answer");
                    ResolveError::ServerFailure { name, zone }
                }
                None => ResolveError::Unreachable { name, zone },
            }
        })
    }

    /// The addresses of a delegated zone's servers: their glue, or else what their names lead to inside Peak's zones.
    async fn addresses(
        &self,
        delegation: &Delegation,
        budget: &Budget,
        nested: u8,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut found: Vec<IpAddr> = delegation.servers.iter().flat_map(|server| server.glue.iter().copied()).collect();
        if found.is_empty() && nested < MOST_NESTED {
            // A server inside the zone that it serves cannot be found without glue.
            let outside = delegation.servers.iter().filter(|server| !server.name.is_at_or_below(&delegation.zone));
            let in_peak = outside.filter(|server| self.zone_of(&server.name).is_some());
            for server in in_peak.take(MOST_GLUELESS) {
                found.extend(self.host(&server.name, budget, nested + 1).await);
                if !found.is_empty() {
                    break;
                }
            }
        }
        found.dedup();
        if found.is_empty() {
            return Err(ResolveError::Glueless { zone: delegation.zone.clone() });
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, self.settings.delegated_port)).collect())
    }

    /// The addresses of a name server. Not by a flight: two name servers that each need the other would wait forever.
    async fn host(&self, name: &Name, budget: &Budget, nested: u8) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for rtype in [Type::AAAA, Type::A] {
            let known = match self.remembered(name, rtype) {
                Some(outcome) => outcome,
                None => Box::pin(self.walk(name, rtype, budget, nested)).await,
            };
            if let Ok(known) = known
                && let Fact::Records(records) = &known.fact
            {
                addresses.extend(records.iter().filter_map(verdict::address));
            }
        }
        addresses
    }
}

/// One question to one server of `zone`, judged.
async fn ask(
    client: DnsClient,
    metrics: ResolveMetrics,
    no_socket: Arc<Seldom>,
    server: SocketAddr,
    question: Question,
    zone: Name,
) -> Reply<Verdict, Unusable> {
    metrics.questions.increment();
    let judged = match client.ask(server, &question, PACE.attempt).await {
        Ok(message) => verdict::judge(&message, &zone, &question.name, question.rtype),
        Err(AskError::Malformed { .. }) => Err(Unusable::Broken),
        Err(error @ AskError::NoSocket { .. }) => {
            if let Some(left_out) = no_socket.due(Instant::now()) {
                tracing::warn!(%error, left_out, "a name server of Peak's cannot be asked");
            }
            return Reply::NotAsked;
        }
        Err(error @ (AskError::Timeout { .. } | AskError::Io { .. } | AskError::NoQuestion { .. })) => {
            tracing::debug!(%error, reason = error.reason(), "name server did not answer");
            return Reply::Silent;
        }
    };
    match judged {
        Ok(verdict) => Reply::Good(verdict),
        Err(unusable) => {
            metrics.unusable_answers.increment(&Reason(unusable.reason()));
            Reply::Unusable(unusable)
        }
    }
}
