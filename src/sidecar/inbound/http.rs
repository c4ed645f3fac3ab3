//! Callers that speak HTTP: each request is verified and admitted as if it came alone.
//!
//! ```text
//! handshake ─▶ request ─▶ token ─▶ address, with the content key ─▶ caller ─▶ ours out, Peak-Caller in ─▶ application
//!                            └─ 403          └─ 421                    └─ 403                        └─ 502, 503
//! ```
//!
//! **Each caller's connection has its own to the application.** What one caller sends can never become the beginning of
//! what another is believed to have sent, whatever the application makes of it, and an answer can reach nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::accept::Arrived;
use super::admit::{self, OwnService};
use super::forward::ForwardError;
use super::tunnel::Reported;
use super::{Inbound, InboundError, Policy};
use crate::model::UnixSeconds;
use crate::model::ssa::Rule;
use crate::model::token::Caller;
use crate::net::copy::{self, BrokenOff, OverTcp as _, Stop, Transferred};
use crate::net::tls::ServerStream;
use crate::ops::clock;
use crate::ops::drain::Watch;
use crate::ops::metrics::Direction;
use crate::sidecar::http::answer::{BadRequest, refusal};
use crate::sidecar::http::body::Body;
use crate::sidecar::http::client::{Exchanged, Sender};
use crate::sidecar::http::fields::{CALLER, FORWARDED, TOKEN};
use crate::sidecar::http::golden::Golden;
use crate::sidecar::http::message::{Prepared, Question, answered};
use crate::sidecar::http::pace::Pace;
use crate::sidecar::http::prefixed::Prefixed;
use crate::sidecar::http::serve::{ServeError, serve};
use crate::sidecar::http::{Seen, Version, upgrade};
use crate::sidecar::report::{Carriage, Refusal};
use crate::sidecar::resolve::Service;
use crate::trust::Unverifiable;

/// How long a connection may ask for nothing. Callers give theirs up well before.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// How long the application may have been left alone before a request that cannot be repeated gets a fresh connection: the
/// application may be about to close this one.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);
/// How often a request is sent again that the application certainly has not seen.
const MOST_TURNS: u32 = 3;

/// A caller that has shaken hands and speaks HTTP.
pub(super) struct Accepted {
    pub(super) stream: ServerStream,
    pub(super) version: Version,
    pub(super) own: OwnService,
    pub(super) arrived: Arrived,
}

/// Why a request is not answered by the application.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The request is not passed on.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// The caller, or where it calls.
    #[error(transparent)]
    Refused(#[from] InboundError),
    /// The application broke off before it answered.
    #[error("the application's connection ended before it answered: {0}")]
    Lost(hyper::Error),
    /// The answer is not passed on.
    #[error("the application's answer is not passed on: {0}")]
    Answer(BadRequest),
}

impl Refusal for Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::Bad(error) => error.reason(),
            Self::Refused(error) => error.reason(),
            Self::Lost(_) => "application-lost",
            Self::Answer(_) => "answer-malformed",
        }
    }
}

impl Failure {
    /// What the caller learns: the status, and the reason once we know who it is.
    fn answer(&self) -> Response<Body> {
        let told = |status, text: &str| refusal(status, self.reason(), text);
        match self {
            Self::Bad(error) => told(error.status(), &error.to_string()),
            Self::Lost(_) | Self::Answer(_) => told(StatusCode::BAD_GATEWAY, "the application failed"),
            Self::Refused(error) => match error {
                InboundError::Misaddressed(_) | InboundError::NotIpv6 { .. } | InboundError::NotOurs { .. } => {
                    told(StatusCode::MISDIRECTED_REQUEST, "the address is not one of this service for this request")
                }
                InboundError::NotAllowed(_) => told(StatusCode::FORBIDDEN, "the service does not allow this caller"),
                InboundError::RulesUnknown(_) => {
                    told(StatusCode::SERVICE_UNAVAILABLE, "the service's rules are not known")
                }
                InboundError::Forward(ForwardError::Unreached { .. } | ForwardError::Header { .. }) => {
                    told(StatusCode::SERVICE_UNAVAILABLE, "the application is not there")
                }
                InboundError::Forward(ForwardError::Unspoken { .. }) => {
                    told(StatusCode::BAD_GATEWAY, "the application speaks no HTTP of this version")
                }
                InboundError::Forward(ForwardError::Reserved { .. }) => {
                    told(StatusCode::FORBIDDEN, "the port is not the application's")
                }
                InboundError::Intercept(_)
                | InboundError::TooMany { .. }
                | InboundError::TooManyHandshakes { .. }
                | InboundError::Plaintext
                | InboundError::ForeignTls
                | InboundError::NoCertificate
                | InboundError::UnknownService { .. }
                | InboundError::Accept(_)
                | InboundError::NotRelayed
                | InboundError::Relayer { .. }
                | InboundError::Lapsed { .. }
                | InboundError::Authority { .. }
                | InboundError::Source { .. }
                | InboundError::TokenField { .. }
                | InboundError::TokenReference { .. }
                | InboundError::Verify(_) => {
                    refusal(StatusCode::FORBIDDEN, "token-refused", "the caller does not prove who it is")
                }
            },
        }
    }
}

/// A caller's token that was accepted, and what it was held against. It is looked at again every second, as the time, the
/// keys and the rules may be others then.
#[derive(Clone)]
struct Known {
    token: HeaderValue,
    service: Arc<Service>,
    caller: Option<Caller>,
    /// What the application is told.
    named: Option<HeaderValue>,
    at: UnixSeconds,
}

/// One connection of a caller, and what its requests share.
struct Conversation {
    inbound: Arc<Inbound>,
    own: OwnService,
    arrived: Arrived,
    version: Version,
    golden: Arc<Golden>,
    pace: Arc<Pace>,
    known: Mutex<Option<Known>>,
    application: Mutex<Option<(Sender, Instant)>>,
    /// Held while a connection is made that all will ask.
    opening: tokio::sync::Mutex<()>,
    upgraded: Mutex<JoinSet<()>>,
    watch: Watch,
    /// Who was let in last.
    caller: Mutex<Option<String>>,
    requests: AtomicU64,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Inbound {
    /// Answers the requests of a caller's connection until it ends, and reports it.
    pub(super) async fn converse(self: Arc<Self>, accepted: Accepted, reported: Reported, watch: Watch) {
        let Accepted { stream, version, own, arrived } = accepted;
        let Reported { mut line, _guard, _open } = reported;
        let report = self.report.clone();
        report.carrying(&line, Direction::Inbound, Carriage::Header);
        copy::finish_on_drop(stream.tcp());
        let pace = Pace::new(self.handshake_timeout, LONGEST_IDLE);
        let mut caller = Prefixed::new(Bytes::new(), stream);
        if version == Version::One {
            // Of HTTP/2 much comes that begins no request.
            caller = caller.paced(Arc::clone(&pace));
        }
        let conversation = Arc::new(Conversation {
            golden: report.requests.of(Direction::Inbound, &own.name),
            inbound: self,
            own,
            arrived,
            version,
            pace,
            known: Mutex::default(),
            application: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            upgraded: Mutex::default(),
            watch,
            caller: Mutex::default(),
            requests: AtomicU64::new(0),
            sent: Arc::default(),
            received: Arc::default(),
        });
        let end = conversation.serve(caller).await;
        line.caller = conversation.caller.lock().take();
        line.requests = Some(conversation.requests.load(Ordering::Relaxed));
        let octets = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
        let transferred =
            Transferred { sent_bytes: octets(&conversation.sent), received_bytes: octets(&conversation.received), end };
        report.ended(*line, Direction::Inbound, &transferred);
    }
}

impl Conversation {
    async fn serve(self: &Arc<Self>, caller: Prefixed<ServerStream>) -> Result<(), BrokenOff> {
        let answering = Arc::clone(self);
        let answer = move |request| Arc::clone(&answering).answer(request);
        let (mut graceful, mut forced) = (self.watch.clone(), self.watch.clone());
        let orderly = async {
            tokio::select! {
                () = graceful.graceful() => {}
                () = self.pace.idle() => {}
            }
        };
        let at_once = async {
            tokio::select! {
                () = forced.forced() => {}
                () = self.pace.slow() => {}
            }
        };
        let ended = serve(caller, self.version, answer, orderly, at_once).await;
        let mut upgraded = std::mem::take(&mut *self.upgraded.lock());
        while upgraded.join_next().await.is_some() {}
        ended.map_err(|error| match error {
            ServeError::Broken(error) => BrokenOff::Client(std::io::Error::other(error)),
            ServeError::Stopped => BrokenOff::Stopped,
        })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let busy = self.pace.asked();
        let mut underway = self.golden.begin();
        let answer = self.exchange(request).await.unwrap_or_else(|failure| {
            self.inbound.report.refused_request(Direction::Inbound, &failure);
            failure.answer()
        });
        underway.answered(answer.status());
        answer.map(|body| body.holding((underway, busy)).counted(&self.received))
    }

    /// Lets a request in, and finds the application's answer to it.
    async fn exchange(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let named = self.let_in(&request).await?;
        let Prepared { mut request, survey, turning } = Prepared::from(request)?;
        self.tell(request.headers_mut(), named);
        let question = Question::of(request, survey, self.version, &self.sent);
        let shutting = question.shutting();
        let (answer, application) = self.ask(question).await?;
        let (answer, turned) = answered(answer, turning).map_err(Failure::Answer)?;
        if let Some((ours, theirs)) = turned {
            self.carry(ours, theirs);
            return Ok(answer.map(|_| Body::empty()));
        }
        *self.application.lock() = Some((application, Instant::now()));
        Ok(answer.map(|incoming| Body::carried(incoming).holding_some(shutting)))
    }

    /// Checks who calls, where the request arrived, and whether it may, in this order; gives what the application may be
    /// told.
    async fn let_in(&self, request: &Request<Incoming>) -> Result<Option<HeaderValue>, InboundError> {
        match self.admit(request).await {
            Ok(named) => Ok(named),
            Err(refusal) => {
                let without_token = matches!(refusal, InboundError::Verify(Unverifiable::Missing));
                if self.inbound.policy == Policy::Permissive && without_token {
                    self.inbound.report.tolerated(&refusal);
                    return Ok(None);
                }
                self.inbound.tolerate(refusal).map(|_passage| None)
            }
        }
    }

    async fn admit(&self, request: &Request<Incoming>) -> Result<Option<HeaderValue>, InboundError> {
        let now = clock::now();
        let known = self.know(token(request.headers())?, now).await?;
        let not_ipv6 = InboundError::NotIpv6 { client: self.arrived.client, destination: self.arrived.destination };
        let (from, destination) = self.arrived.addresses().ok_or(not_ipv6)?;
        let key = |rule: &Rule| {
            rule.reads_content().then(|| rule.content_source().key(&Seen(request), &self.own.name).into_owned().into())
        };
        let fitting = admit::fits(&known.service, destination, from, &self.inbound.secrets, now, &key)?;
        if let Some(caller) = known.caller {
            admit::admitted(fitting, caller, &self.own)?;
            self.remember(known.token, known.service, known.named.clone(), now);
        }
        Ok(known.named)
    }

    /// Whose token that is.
    async fn know(&self, token: Option<&HeaderValue>, now: UnixSeconds) -> Result<Known, InboundError> {
        let known = self.known.lock().clone();
        if let (Some(known), Some(token)) = (known, token)
            && known.at == now
            && known.token == *token
        {
            return Ok(known);
        }
        // Apart, as it is long and every request would have room for it.
        Box::pin(self.verify(token, now)).await
    }

    async fn verify(&self, token: Option<&HeaderValue>, now: UnixSeconds) -> Result<Known, InboundError> {
        let octets = token.and_then(|token| token.as_bytes().get(BEARER.len()..));
        let caller = self.inbound.verifier.verify(octets, &self.own.name, now)?;
        let service = self.inbound.directory.lookup(&self.own.name).await.map_err(InboundError::RulesUnknown)?;
        let name = caller.id().to_string();
        let named = HeaderValue::try_from(&name).ok();
        *self.caller.lock() = Some(name);
        let token = token.cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        Ok(Known { token, service, caller: Some(caller), named, at: now })
    }

    /// A caller that was admitted need not be for the rest of this second.
    fn remember(&self, token: HeaderValue, service: Arc<Service>, named: Option<HeaderValue>, at: UnixSeconds) {
        *self.known.lock() = Some(Known { token, service, caller: None, named, at });
    }

    fn tell(&self, headers: &mut HeaderMap, named: Option<HeaderValue>) {
        if let Some(named) = named.filter(|_| self.own.told.caller) {
            headers.insert(CALLER, named);
        }
        if self.own.told.forwarded
            && let Ok(forwarded) = HeaderValue::try_from(format!("for=\"[{}]\";proto=https", self.arrived.client.ip()))
        {
            headers.append(FORWARDED, forwarded);
        }
    }

    /// Asks the application until there is an answer.
    async fn ask(&self, mut question: Question) -> Result<(Response<Incoming>, Sender), Failure> {
        let mut may_reuse = true;
        for turn in 1.. {
            let mut application = self.application(may_reuse, question.repeatable).await?;
            let may_repeat = turn < MOST_TURNS;
            let exchanged = application.exchange(question.request, &question.gate, question.repeatable).await;
            question.request = match exchanged {
                Exchanged::Answered(answer, _) => return Ok((answer, application)),
                Exchanged::Unsent(unsent, _) if may_repeat => unsent,
                // It may have been closing the connection; on a fresh one it has had its say.
                Exchanged::Lost(_, Some(again)) if may_reuse && again.method().is_idempotent() => again,
                Exchanged::Unsent(_, error) | Exchanged::Lost(error, _) => return Err(Failure::Lost(error)),
            };
            may_reuse = false;
            self.inbound.report.repeated();
        }
        unreachable!("the last turn ends in an answer or a failure")
    }

    /// The conversation's connection to the application.
    async fn application(&self, may_reuse: bool, repeatable: bool) -> Result<Sender, InboundError> {
        if may_reuse && let Some(sender) = self.application_again(repeatable) {
            return Ok(sender);
        }
        // Apart, as it is long and every request would have room for it.
        Box::pin(self.another_application(may_reuse, repeatable)).await
    }

    async fn another_application(&self, may_reuse: bool, repeatable: bool) -> Result<Sender, InboundError> {
        let _opening = if self.version == Version::Two { Some(self.opening.lock().await) } else { None };
        if may_reuse && let Some(sender) = self.application_again(repeatable) {
            return Ok(sender);
        }
        let tcp = self.inbound.dial(Some(&self.own), &self.arrived, None).await?;
        let sender = Sender::over(Prefixed::new(Bytes::new(), tcp), self.version).await;
        let port = self.own.local_port(self.arrived.destination.port());
        let sender = sender.map_err(|cause| ForwardError::Unspoken { port, cause })?;
        *self.application.lock() = sender.shared().map(|shared| (shared, Instant::now()));
        Ok(sender)
    }

    fn application_again(&self, repeatable: bool) -> Option<Sender> {
        let mut application = self.application.lock();
        let (sender, since) = application.take()?;
        if !sender.is_open() || (!repeatable && sender.version() == Version::One && since.elapsed() > FRESH_ENOUGH) {
            return None;
        }
        *application = sender.shared().map(|shared| (shared, since));
        Some(sender)
    }

    /// Carries what two requests have become, on a task of its own.
    fn carry(self: &Arc<Self>, ours: OnUpgrade, theirs: OnUpgrade) {
        let (conversation, mut watch, busy) = (Arc::clone(self), self.watch.clone(), self.pace.asked());
        let carrying = async move {
            let _busy = busy;
            let told = async {
                watch.forced().await;
                Stop::Told
            };
            if let Some(carried) = upgrade::carry::<ServerStream, TcpStream>(ours, theirs, told).await {
                conversation.sent.fetch_add(carried.sent_bytes, Ordering::Relaxed);
                conversation.received.fetch_add(carried.received_bytes, Ordering::Relaxed);
            }
        };
        let mut upgraded = self.upgraded.lock();
        while upgraded.try_join_next().is_some() {}
        upgraded.spawn(carrying);
    }
}

/// RFC 6750 §2.1; the scheme without regard to case (RFC 9110 §11.1).
const BEARER: &str = "Bearer ";

/// The field with the token, which stands there once or not at all.
fn token(headers: &HeaderMap) -> Result<Option<&HeaderValue>, InboundError> {
    let mut fields = headers.get_all(TOKEN).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let is_bearer = first.as_bytes().get(..BEARER.len()).is_some_and(|it| it.eq_ignore_ascii_case(BEARER.as_bytes()));
    match fields.count() {
        0 if is_bearer => Ok(Some(first)),
        others => Err(InboundError::TokenField { found: others + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, F: Future>(_of: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_is_moved_with_little_room() {
        let room = room(Conversation::answer);
        assert!(room <= 4_096, "{room} octets");
    }
}
