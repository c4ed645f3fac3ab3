//! From a name to its service: the APL record set, and the first source that has a rule (SSA.md §1).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::cache::Cache;
use super::metrics::Outcome;
use super::spaces::Spaces;
use super::walk::{Answer, Fact, Walker};
use super::{Found, ResolveError, ResolveMetrics, Service, Settings};
use crate::model::Name;
use crate::model::ssa::{ContentSource, MalformedRule, Rule};
use crate::net::dns_client::DnsClient;
use crate::wire::dns::Type;
use crate::wire::dns::rdata::svcb::Svcb;
use crate::wire::dns::ssa_records::{self, Legacy, Sources};

/// How many names' services, or lack of one, are remembered.
const MOST_NAMES: usize = 16_384;
/// How long a service past its TTL is used before its name servers are asked again; also the TTL that it is passed on
/// with (RFC 8767 §5: a stale answer is not for keeping).
const STALE_FOR: Duration = Duration::from_secs(5);
/// A name's rules stand below it at this label.
const RULES_LABEL: &[u8] = b"_ssa";

/// Everything known about services.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) walker: Arc<Walker>,
    pub(super) spaces: Spaces,
    names: Mutex<Cache<Name, Result<Entry, ResolveError>>>,
    /// What was last found, for when nobody can be asked.
    last: Mutex<Cache<Name, Entry>>,
    stale: Duration,
    metrics: ResolveMetrics,
}

/// What a name itself publishes.
#[derive(Clone, Debug)]
struct Entry {
    found: Found,
    /// A rule is published for it, so that the default was not needed.
    has_rule: bool,
}

impl Entry {
    /// Whether the labels below this name belong to it (SSA.md §2, `content=label`).
    fn owns_labels(&self) -> bool {
        let reads_label = |rule: &Rule| rule.reads_content() && *rule.content_source() == ContentSource::Label;
        self.has_rule && self.found.service.rules.iter().any(reads_label)
    }
}

impl Directory {
    pub(super) fn new(settings: Settings, client: DnsClient, metrics: ResolveMetrics) -> Self {
        Self {
            stale: settings.stale,
            last: Mutex::new(Cache::new(MOST_NAMES)),
            walker: Arc::new(Walker::new(settings, client, metrics.clone())),
            spaces: Spaces::default(),
            names: Mutex::new(Cache::new(MOST_NAMES)),
            metrics,
        }
    }

    /// The service that `name` leads to, counted.
    pub(super) async fn find(&self, name: &Name) -> Result<Found, ResolveError> {
        let found = self.search(name).await;
        match &found {
            Ok(_) => self.metrics.found.increment(),
            Err(error) => self.metrics.lookups.increment(&Outcome(error.reason())),
        }
        found
    }

    async fn search(&self, name: &Name) -> Result<Found, ResolveError> {
        let own = self.own(name).await;
        match own {
            Ok(entry) if entry.has_rule => Ok(entry.found),
            Err(error) if !error.is_verdict() => Err(error),
            Ok(_) | Err(_) => match self.label_service(name).await {
                Ok(Some(found)) => Ok(found),
                // What the name says of itself counts, even where the name above it could not be asked.
                Ok(None) => own.map(|entry| entry.found),
                Err(error) => own.map(|entry| entry.found).map_err(|_| error),
            },
        }
    }

    /// The service exactly one label above `name`, when that reads its content key from there.
    async fn label_service(&self, name: &Name) -> Result<Option<Found>, ResolveError> {
        // A host name has no underscore there (RFC 8552 §1.2); our own rules do.
        let is_host = name.labels().next().is_some_and(|label| !label.starts_with(b"_"));
        let above = name.parent().filter(|above| is_host && self.walker.zone_of(above).is_some());
        let Some(above) = above else { return Ok(None) };
        match self.own(&above).await {
            Ok(entry) => Ok(entry.owns_labels().then_some(entry.found)),
            Err(error @ (ResolveError::Unreachable { .. } | ResolveError::Busy { .. })) => Err(error),
            Err(
                ResolveError::NotInPeak { .. }
                | ResolveError::NoName { .. }
                | ResolveError::Legacy { .. }
                | ResolveError::ServerFailure { .. }
                | ResolveError::Glueless { .. }
                | ResolveError::TooManyReferrals { .. }
                | ResolveError::AliasLoop { .. },
            ) => Ok(None),
        }
    }

    /// What `name` publishes itself, or by the name that it is an alias of.
    async fn own(&self, name: &Name) -> Result<Entry, ResolveError> {
        if let Some(known) = self.names.lock().get(name, Instant::now()) {
            self.metrics.cache_hits.increment();
            return known.clone();
        }
        let published = self.published(name).await;
        let now = Instant::now();
        let (outcome, until) = match published {
            Ok(published) => published,
            Err(error) => return self.stale(name, now).ok_or(error),
        };
        match &outcome {
            Ok(entry) => {
                self.spaces.put(&entry.found.service);
                self.last.lock().insert(name.clone(), entry.clone(), until + self.stale, now);
            }
            Err(_) => {
                self.spaces.remove(name);
                self.last.lock().remove(name);
            }
        }
        self.names.lock().insert(name.clone(), outcome.clone(), until, now);
        outcome
    }

    /// What was last found, past its TTL but not past its time.
    fn stale(&self, name: &Name, now: Instant) -> Option<Entry> {
        let last = self.last.lock().get(name, now)?.clone();
        let until = now + STALE_FOR;
        let entry = Entry { found: Found { until, ..last.found }, ..last };
        self.metrics.stale.increment();
        self.names.lock().insert(name.clone(), Ok(entry.clone()), until, now);
        Some(entry)
    }

    /// Asks for all that a name may publish at once; what DNS says, and until when it holds.
    async fn published(&self, name: &Name) -> Result<(Result<Entry, ResolveError>, Instant), ResolveError> {
        let (apl, svcb, txt) =
            tokio::join!(self.walker.query(name, Type::APL), self.rules(name, Type::SVCB), self.rules(name, Type::TXT));
        let apl = apl?;
        let held = apl.until().unwrap_or_else(Instant::now);
        if apl.canonical != *name && apl.last.is_some() {
            let outcome = Box::pin(self.own(&apl.canonical)).await;
            let until = outcome.as_ref().map_or(held, |entry| held.min(entry.found.until));
            return match outcome {
                Err(error) if !error.is_verdict() => Err(error),
                Ok(_) | Err(_) => Ok((outcome, until)),
            };
        }
        match apl.last.as_deref().map(|known| &known.fact) {
            Some(Fact::Records(_)) => {}
            Some(Fact::NoName(_)) => return Ok((Err(ResolveError::NoName { name: name.clone() }), held)),
            Some(Fact::NoData(_) | Fact::Alias { .. }) | None => {
                let error = ResolveError::Legacy { name: name.clone(), cause: Legacy::NoSpace };
                return Ok((Err(error), held));
            }
        }
        let svcb = svcb?;
        // The first source that has a rule is the only one read, so then nobody need know the next.
        let txt = if carries_rule(&rdatas(svcb.as_ref())) { None } else { txt? };
        let ends = [svcb.as_ref(), txt.as_ref()].into_iter().flatten().filter_map(Answer::until);
        let until = ends.fold(held, Instant::min);
        let [apl, svcb, txt] = [Some(&apl), svcb.as_ref(), txt.as_ref()].map(rdatas);
        Ok((self.judge(name, &Sources { apl: &apl, svcb: &svcb, txt: &txt, local: &[] }, until), until))
    }

    /// The records of one source of rules; none for a name so long that nothing can stand below it.
    async fn rules(&self, name: &Name, rtype: Type) -> Result<Option<Answer>, ResolveError> {
        match name.prefixed(RULES_LABEL) {
            Ok(rules) => self.walker.query(&rules, rtype).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// What the records of `name` come to.
    fn judge(&self, name: &Name, sources: &Sources<'_>, until: Instant) -> Result<Entry, ResolveError> {
        let published = ssa_records::service(sources);
        match &published {
            Ok(published) => self.note_malformed(name, &published.malformed),
            Err(Legacy::NoUsableRule { malformed }) => self.note_malformed(name, malformed),
            Err(Legacy::NoSpace | Legacy::Apl(_)) => {}
        }
        let published = published.map_err(|cause| {
            tracing::warn!(%name, error = %cause, reason = cause.reason(), "published for SSA, and not usable");
            ResolveError::Legacy { name: name.clone(), cause }
        })?;
        let service =
            Service { name: name.clone(), space: published.space, rules: published.rules, port: published.port };
        let has_rule = !sources.txt.is_empty() || carries_rule(sources.svcb);
        Ok(Entry { has_rule, found: Found { service: Arc::new(service), until } })
    }

    fn note_malformed(&self, name: &Name, malformed: &[MalformedRule]) {
        self.metrics.malformed_rules.add(malformed.len() as u64);
        for error in malformed {
            tracing::warn!(%name, %error, "a published rule is malformed, and is left out");
        }
    }
}

/// The data of the records in an answer.
fn rdatas(answer: Option<&Answer>) -> Vec<&[u8]> {
    match answer.and_then(|answer| answer.last.as_deref()).map(|known| &known.fact) {
        Some(Fact::Records(records)) => records.iter().map(|record| &*record.rdata).collect(),
        Some(Fact::Alias { .. } | Fact::NoData(_) | Fact::NoName(_)) | None => Vec::new(),
    }
}

/// Whether this source surely has a rule, so that no other is read; a doubtful record set is not taken for one.
fn carries_rule(svcb: &[&[u8]]) -> bool {
    let decoded: Result<Vec<Svcb>, _> = svcb.iter().map(|rdata| Svcb::decode(rdata)).collect();
    let carries = |svcb: &Svcb| svcb.priority() > 0 && svcb.rule().is_some() && svcb.mandatory().next().is_none();
    decoded.is_ok_and(|svcbs| svcbs.iter().any(carries))
}
