//! From a message that the application sent to the message it gets back.
//!
//! Owns what a name gets: a stand-in for a service, Peak's own answer for any other name below Peak's zones, and
//! whatever the upstream name servers say for all the rest, octet for octet. How messages come and go is
//! [`super::serve`]'s.
//!
//! A service has a stand-in for A and AAAA, and for ANY, which gets one RRset (RFC 8482 §4.1); or an address of its own for
//! AAAA and ANY. Its HTTPS and SVCB records are kept back: their hints would lead past the sidecar. All else is as Peak has
//! it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use super::metrics::{Origin, Proto, RcodeLabel};
use super::upstream::Upstream;
use super::{Computed, StandIns, StubMetrics, reverse};
use crate::model::Name;
use crate::net::dns_client::Transport;
use crate::ops::metrics::Reason;
use crate::sidecar::resolve::seldom::Seldom;
use crate::sidecar::resolve::{Answer, Fact, Found, Known, ResolveError, Resolver, seconds_left};
use crate::wire::dns::{Class, Header, Message, Opcode, Question, Rcode, Record, Type};

/// A stand-in never changes, but whether its name is a service may.
const STAND_IN_TTL: u32 = 60;
/// A computed address is drawn for one use; a rule may also have it change with time, faster than a service does.
const COMPUTED_TTL: u32 = 5;
const HEADER_OCTETS: usize = 12;
/// Without EDNS (RFC 1035 §4.2.1).
const LEAST_UDP: u16 = 512;
/// More than this is never sent in a datagram, whatever the application says it takes.
const MOST_UDP: u16 = 4096;
const MOST_TCP: usize = 65_535;

/// Gives answers. Holds no socket of the application's.
#[derive(Debug)]
pub(super) struct Answerer {
    pub(super) resolver: Resolver,
    pub(super) stand_ins: Arc<StandIns>,
    pub(super) computed: Option<Computed>,
    pub(super) upstream: Upstream,
    pub(super) metrics: StubMetrics,
    /// Warns of services without a stand-in.
    pub(super) no_stand_in: Seldom,
}

/// An answer made here, and where it comes from.
struct Made {
    message: Message,
    origin: Origin,
}

impl Answerer {
    /// The answer to `query`; none for what must not be answered: a reply, or less than a header.
    pub(super) async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let header = match Header::parse(query) {
            Ok(header) if query.len() >= HEADER_OCTETS => header,
            Ok(_) | Err(_) => return self.drop_silently("too-short"),
        };
        if header.response {
            return self.drop_silently("reply");
        }
        let proto = match transport {
            Transport::Udp => Proto::Udp,
            Transport::Tcp => Proto::Tcp,
        };
        let asked = match Message::parse(query) {
            Ok(asked) => asked,
            Err(_) => {
                self.count(proto, Origin::Nobody, Rcode::FORMERR);
                return Some(refusal(header, Rcode::FORMERR).encode(LEAST_UDP.into()));
            }
        };
        let made = match self.make(&asked).await {
            Some(made) => made,
            None => match self.upstream.forward(transport, query).await {
                Ok(octets) => {
                    let rcode = Header::parse(&octets).map_or(Rcode::SERVFAIL, |header| header.rcode);
                    self.count(proto, Origin::Upstream, rcode);
                    return Some(octets);
                }
                Err(error) => self.failure(&asked, Origin::Upstream, error.reason()),
            },
        };
        self.count(proto, made.origin, made.message.header.rcode);
        Some(made.message.encode(limit(&asked, transport)))
    }

    fn count(&self, proto: Proto, origin: Origin, rcode: Rcode) {
        self.metrics.answers.increment(&(proto, origin, RcodeLabel(rcode)));
    }

    /// SERVFAIL for a question that there is no room to think about.
    pub(super) fn too_busy(&self, query: &[u8], proto: Proto) -> Option<Vec<u8>> {
        let header = Header::parse(query).ok().filter(|header| !header.response && query.len() >= HEADER_OCTETS)?;
        self.metrics.failures.increment(&Reason("too-many-questions"));
        self.count(proto, Origin::Nobody, Rcode::SERVFAIL);
        let message = Message::parse(query)
            .map_or_else(|_| refusal(header, Rcode::SERVFAIL), |asked| asked.response(Rcode::SERVFAIL));
        Some(message.encode(LEAST_UDP.into()))
    }

    fn drop_silently(&self, reason: &'static str) -> Option<Vec<u8>> {
        self.metrics.dropped.increment(&Reason(reason));
        None
    }

    /// The answer, where it is made here; none for what upstream answers.
    async fn make(&self, asked: &Message) -> Option<Made> {
        let [question] = asked.questions.as_slice() else {
            // No question, or several of which nobody could tell which one an answer is to (RFC 9619).
            return Some(Made { message: asked.response(Rcode::FORMERR), origin: Origin::Nobody });
        };
        let in_class = matches!(question.class, Class::IN | Class::ANY);
        if in_class && self.resolver.is_in_peak(&question.name) {
            return Some(self.below_peak(asked, question).await);
        }
        let addr = reverse::address(&question.name).filter(|addr| in_class && self.stand_ins.is_stand_in(*addr))?;
        Some(Made { message: self.pointer(asked, question, addr), origin: Origin::StandIn })
    }

    async fn below_peak(&self, asked: &Message, question: &Question) -> Made {
        let refused = |rcode| Made { message: asked.response(rcode), origin: Origin::Nobody };
        if asked.edns.as_ref().is_some_and(|edns| edns.version > 0) {
            return refused(Rcode::BADVERS);
        }
        if asked.header.opcode != Opcode::QUERY {
            return refused(Rcode::NOTIMP);
        }
        match question.rtype {
            Type::A | Type::AAAA | Type::ANY | Type::HTTPS | Type::SVCB => self.host(asked, question).await,
            Type::AXFR | Type::IXFR => refused(Rcode::REFUSED),
            rtype if rtype.is_meta() => refused(Rcode::NOTIMP),
            _ => self.as_published(asked, question).await,
        }
    }

    /// A type that says where to connect.
    async fn host(&self, asked: &Message, question: &Question) -> Made {
        match self.resolver.find(&question.name).await {
            Ok(found) => match &self.computed {
                Some(computed) => self.computed(computed, asked, question, &found).await,
                None => self.stand_in(asked, question, &found).await,
            },
            Err(ResolveError::NotInPeak { .. } | ResolveError::NoName { .. } | ResolveError::Legacy { .. }) => {
                self.as_published(asked, question).await
            }
            Err(
                error @ (ResolveError::Unreachable { .. }
                | ResolveError::ServerFailure { .. }
                | ResolveError::Glueless { .. }
                | ResolveError::TooManyReferrals { .. }
                | ResolveError::AliasLoop { .. }
                | ResolveError::Busy { .. }),
            ) => {
                tracing::debug!(%error, reason = error.reason(), "the application gets SERVFAIL");
                self.failure(asked, Origin::Peak, error.reason())
            }
        }
    }

    async fn stand_in(&self, asked: &Message, question: &Question, found: &Found) -> Made {
        let (ipv4, ipv6) = match self.stand_ins.assign(&question.name) {
            Ok(pair) => pair,
            Err(error) => {
                if let Some(left_out) = self.no_stand_in.due(Instant::now()) {
                    tracing::warn!(%error, reason = error.reason(), left_out, "a service has no stand-in");
                }
                return self.failure(asked, Origin::StandIn, error.reason());
            }
        };
        self.metrics.stand_ins.set(i64::try_from(self.stand_ins.in_use()).unwrap_or(i64::MAX));
        let ttl = seconds_left(found.until, Instant::now()).min(STAND_IN_TTL);
        let record = |rtype, octets: &[u8]| Record::new(question.name.clone(), rtype, ttl, octets);
        let mut message = recursive(asked, Rcode::NOERROR);
        match question.rtype {
            Type::A => message.answers.push(record(Type::A, &ipv4.octets())),
            Type::AAAA | Type::ANY => message.answers.push(record(Type::AAAA, &ipv6.octets())),
            _ => message.authorities.extend(self.negative_soa(question).await),
        }
        Made { message, origin: Origin::StandIn }
    }

    /// The service's own address, which is of IPv6 alone: to any other question there is no answer.
    async fn computed(&self, computed: &Computed, asked: &Message, question: &Question, found: &Found) -> Made {
        let mut message = recursive(asked, Rcode::NOERROR);
        if !matches!(question.rtype, Type::AAAA | Type::ANY) {
            message.authorities.extend(self.negative_soa(question).await);
            return Made { message, origin: Origin::Computed };
        }
        match computed.address(&found.service, &question.name).await {
            Ok(address) => {
                let ttl = seconds_left(found.until, Instant::now()).min(COMPUTED_TTL);
                message.answers.push(Record::new(question.name.clone(), Type::AAAA, ttl, address.octets()));
                Made { message, origin: Origin::Computed }
            }
            Err(error) => {
                tracing::debug!(%error, reason = error.reason(), "the application gets SERVFAIL");
                self.failure(asked, Origin::Computed, error.reason())
            }
        }
    }

    /// The SOA that lets a resolver keep our NODATA, where Peak has no such records either.
    async fn negative_soa(&self, question: &Question) -> Option<Record> {
        let answer = self.resolver.query(&question.name, question.rtype).await.ok()?;
        soa(answer.last.as_deref()?, Instant::now())
    }

    /// What Peak says, whatever it is.
    async fn as_published(&self, asked: &Message, question: &Question) -> Made {
        let answer = match self.resolver.query(&question.name, question.rtype).await {
            Ok(answer) => answer,
            Err(error) => return self.failure(asked, Origin::Peak, error.reason()),
        };
        let mut message = recursive(asked, Rcode::NOERROR);
        let now = Instant::now();
        for alias in &answer.aliases {
            message.answers.extend(published(alias, now));
        }
        let Some(last) = &answer.last else {
            return self.beyond_peak(message, asked, question, &answer).await;
        };
        message.answers.extend(published(last, now));
        message.authorities.extend(soa(last, now));
        if matches!(last.fact, Fact::NoName(_)) && !self.is_label_of_a_service(question).await {
            message.header.rcode = Rcode::NXDOMAIN;
        }
        Made { message, origin: Origin::Peak }
    }

    /// A label below a service may exist for the stub alone; NXDOMAIN for one type would deny it for all.
    async fn is_label_of_a_service(&self, question: &Question) -> bool {
        self.resolver.find(&question.name).await.is_ok()
    }

    /// Goes on with upstream where an alias leads out of Peak's zones.
    async fn beyond_peak(&self, mut message: Message, asked: &Message, question: &Question, answer: &Answer) -> Made {
        match self.upstream.ask(&answer.canonical, question.rtype).await {
            Ok(rest) => {
                message.header.rcode = rest.header.rcode;
                message.answers.extend(rest.answers);
                message.authorities.extend(rest.authorities.into_iter().filter(|record| record.rtype == Type::SOA));
                Made { message, origin: Origin::Upstream }
            }
            Err(error) => self.failure(asked, Origin::Upstream, error.reason()),
        }
    }

    fn pointer(&self, asked: &Message, question: &Question, addr: IpAddr) -> Message {
        let Some(name) = self.stand_ins.name_of(addr) else { return recursive(asked, Rcode::NXDOMAIN) };
        let mut message = recursive(asked, Rcode::NOERROR);
        if matches!(question.rtype, Type::PTR | Type::ANY) {
            message.answers.push(Record::new(question.name.clone(), Type::PTR, STAND_IN_TTL, name.wire()));
        }
        message
    }

    fn failure(&self, asked: &Message, origin: Origin, reason: &'static str) -> Made {
        self.metrics.failures.increment(&Reason(reason));
        Made { message: recursive(asked, Rcode::SERVFAIL), origin }
    }
}

/// The beginning of an answer from a server that asks on for its clients.
fn recursive(asked: &Message, rcode: Rcode) -> Message {
    let mut message = asked.response(rcode);
    message.header.recursion_available = true;
    message
}

/// An answer to what could not be read beyond its header: no more than the header (RFC 8906 §3).
fn refusal(asked: Header, rcode: Rcode) -> Message {
    let header = Header {
        id: asked.id,
        response: true,
        opcode: asked.opcode,
        recursion_desired: asked.recursion_desired,
        rcode,
        ..Header::default()
    };
    Message { header, ..Message::default() }
}

/// The records with what is left of their TTL.
fn published(known: &Known, now: Instant) -> Vec<Record> {
    let left = seconds_left(known.until, now);
    let with_ttl = |record: &Record| Record { ttl: record.ttl.min(left), ..record.clone() };
    match &known.fact {
        Fact::Records(records) => records.iter().map(with_ttl).collect(),
        Fact::Alias { record, .. } => vec![with_ttl(record)],
        Fact::NoData(_) | Fact::NoName(_) => Vec::new(),
    }
}

/// The SOA of a negative answer, with what is left of its time (RFC 2308 §5).
fn soa(known: &Known, now: Instant) -> Option<Record> {
    match &known.fact {
        Fact::NoData(soa) | Fact::NoName(soa) => {
            soa.clone().map(|soa| Record { ttl: soa.ttl.min(seconds_left(known.until, now)), ..soa })
        }
        Fact::Records(_) | Fact::Alias { .. } => None,
    }
}

/// How long the answer may be: what the application says it takes (RFC 6891 §6.2.5).
fn limit(asked: &Message, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => MOST_TCP,
        Transport::Udp => {
            let takes = asked.edns.as_ref().map_or(LEAST_UDP, |edns| edns.udp_size);
            takes.clamp(LEAST_UDP, MOST_UDP).into()
        }
    }
}

/// Name servers that are this stub itself: asking them would never end.
pub(super) fn without_ourselves(upstream: Vec<SocketAddr>, ours: &[SocketAddr]) -> Vec<SocketAddr> {
    let (ourselves, others): (Vec<_>, Vec<_>) = upstream.into_iter().partition(|server| ours.contains(server));
    for server in ourselves {
        tracing::warn!(%server, "this upstream name server is the stub itself, and is left out");
    }
    others
}

/// A question for upstream.
pub(super) fn question_for(name: &Name, rtype: Type) -> Message {
    let mut query = Message::query(0, name.clone(), rtype);
    query.header.recursion_desired = true;
    query
}
