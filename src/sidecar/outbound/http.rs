//! `token=header`: a conversation in HTTP between an application and a service.
//!
//! ```text
//! request ─▶ look through ─▶ standing ─▶ connection ─▶ token in, hop's own out ─▶ ask ─▶ answer
//!                            service,    the last one,        ▲                    │
//!                            rule,       else an idle one,    └── once more ───────┘ no octet came, and nothing was begun;
//!                            token       else a fresh one                            or 421: computed anew, once
//! ```
//!
//! Where the rule reads the request (`content`, `content-hash`), each request goes to the address computed for it. Where it
//! does not, a conversation stays with one connection, and so with one endpoint, for as long as a connection is used at all:
//! then the next address is drawn.

mod failure;
mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::{Bytes, Incoming};
use hyper::header::{COOKIE, HOST, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::failure::Failure;
use self::standing::Standing;
use super::health::Failure as Failing;
use super::reach::{Attempts, Reach};
use super::recognise::Called;
use super::transport::http::{Peer, Peers, ServerIo, Wanted};
use super::transport::pool::LONGEST_IDLE;
use super::transport::{Call, Remote, Way};
use super::{NoCredential, Outbound, OutboundError};
use crate::model::ssa::Known;
use crate::net::copy::{self, BrokenOff, Stop, Transferred};
use crate::ops::access_log::Line;
use crate::ops::clock;
use crate::ops::drain::Watch;
use crate::ops::metrics::Direction;
use crate::sidecar::http::answer::{BadRequest, refusal};
use crate::sidecar::http::body::Body;
use crate::sidecar::http::client::Exchanged;
use crate::sidecar::http::fields::{REFUSAL, TOKEN};
use crate::sidecar::http::golden::Golden;
use crate::sidecar::http::message::{Prepared, Question, answered};
use crate::sidecar::http::prefixed::Prefixed;
use crate::sidecar::http::serve::{ServeError, serve};
use crate::sidecar::http::{Version, upgrade};
use crate::sidecar::report::{Refusal as _, Report};

/// What HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a request is sent again that was certainly not sent.
const MOST_TURNS: u32 = 4;

/// What conversations share.
pub struct Shared {
    /// Connections to servers that wait for a request.
    pub(super) peers: Peers,
}

impl Shared {
    /// No connections yet.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        Self { peers: report.peers() }
    }
}

/// One connection of the application, and what its requests share.
struct Conversation {
    outbound: Arc<Outbound>,
    called: Called,
    client_port: u16,
    version: Version,
    golden: Arc<Golden>,
    standing: Mutex<Option<Arc<Standing>>>,
    /// The connection that was asked last; in HTTP/2 the one that all ask.
    last: Mutex<Option<Peer>>,
    /// Held while a connection is made that all will ask.
    opening: tokio::sync::Mutex<()>,
    /// What requests have become that are HTTP no longer.
    upgraded: Mutex<JoinSet<()>>,
    watch: Watch,
    attempts: Mutex<Attempts>,
    requests: AtomicU64,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Outbound {
    /// Answers the requests of one of the application's connections until it ends, and reports it.
    pub(super) async fn converse(
        self: Arc<Self>,
        mut app: TcpStream,
        early: Vec<u8>,
        called: Called,
        client_port: u16,
        mut line: Line,
        mut watch: Watch,
    ) {
        let report = self.report.clone();
        let begun = tokio::select! {
            begun = first_octets(&mut app, early) => begun,
            () = watch.forced() => return,
        };
        let (version, early) = match begun {
            Ok(begun) => begun,
            Err(error) => return report.ended(line, Direction::Outbound, &nothing(Err(BrokenOff::Client(error)))),
        };
        copy::finish_on_drop(&app);
        let conversation = Arc::new(Conversation {
            golden: report.requests.of(Direction::Outbound, &called.service.name),
            outbound: self,
            called,
            client_port,
            version,
            standing: Mutex::default(),
            last: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            upgraded: Mutex::default(),
            watch: watch.clone(),
            attempts: Mutex::default(),
            requests: AtomicU64::new(0),
            sent: Arc::default(),
            received: Arc::default(),
        });
        let end = conversation.serve(Prefixed::new(early, app), &mut watch).await;
        conversation.put_away();
        {
            let attempts = conversation.attempts.lock();
            (line.attempts, line.server) = (attempts.count, attempts.server);
        }
        line.requests = Some(conversation.requests.load(Ordering::Relaxed));
        let octets = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
        let transferred =
            Transferred { sent_bytes: octets(&conversation.sent), received_bytes: octets(&conversation.received), end };
        report.ended(line, Direction::Outbound, &transferred);
    }
}

fn nothing(end: Result<(), BrokenOff>) -> Transferred {
    Transferred { sent_bytes: 0, received_bytes: 0, end }
}

/// Reads until it is clear which version the application speaks.
async fn first_octets(app: &mut TcpStream, mut octets: Vec<u8>) -> std::io::Result<(Version, Bytes)> {
    while PREFACE.starts_with(&octets) && octets.len() < PREFACE.len() {
        if app.read_buf(&mut octets).await? == 0 {
            return Ok((Version::One, octets.into()));
        }
    }
    let version = if octets.starts_with(PREFACE) { Version::Two } else { Version::One };
    Ok((version, octets.into()))
}

impl Conversation {
    async fn serve(self: &Arc<Self>, app: Prefixed<TcpStream>, watch: &mut Watch) -> Result<(), BrokenOff> {
        let answering = Arc::clone(self);
        let answer = move |request| Arc::clone(&answering).answer(request);
        let forced = async { watch.forced().await };
        let ended = serve(app, self.version, answer, std::future::pending(), forced).await;
        let mut upgraded = std::mem::take(&mut *self.upgraded.lock());
        while upgraded.join_next().await.is_some() {}
        ended.map_err(|error| match error {
            ServeError::Broken(error) => BrokenOff::Client(std::io::Error::other(error)),
            ServeError::Stopped => BrokenOff::Stopped,
        })
    }

    /// Leaves the connection that was asked last to others.
    fn put_away(&self) {
        if let Some(peer) = self.last.lock().take()
            && peer.is_ready()
        {
            self.outbound.http.peers.keep(peer.rested());
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut underway = self.golden.begin();
        let answer = self.exchange(request).await.unwrap_or_else(|failure| {
            self.outbound.report.refused_request(Direction::Outbound, &failure);
            refusal(failure.status(), failure.reason(), &failure.to_string())
        });
        underway.answered(answer.status());
        answer.map(|body| body.holding(underway).counted(&self.received))
    }

    /// Finds the service's answer to a request.
    async fn exchange(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let Prepared { request, survey, turning } = Prepared::from(request)?;
        let wanted = Wanted { version: self.version, to_upgrade: turning.is_some() };
        self.outbound.retries.call(&self.called.service.name);
        let standing = self.standing().await?;
        let key = standing.key(&request);
        let question = Question::of(request, survey, self.version, &self.sent);
        let shutting = question.shutting();
        let (answer, peer) = self.ask(question, standing, key.as_deref(), wanted).await?;
        let refused = answer.headers().get(REFUSAL).cloned();
        let (mut answer, turned) = answered(answer, turning).map_err(Failure::Answer)?;
        if let Some(refused) = refused {
            answer.headers_mut().insert(REFUSAL, refused);
        }
        if let Some((ours, theirs)) = turned {
            self.carry(ours, theirs);
            return Ok(answer.map(|_| Body::empty()));
        }
        let back = self.rest(peer);
        Ok(answer.map(|incoming| Body::carried(incoming).holding_some(shutting).holding_some(back)))
    }

    /// Asks until there is an answer that is no reason to ask once more.
    async fn ask(
        self: &Arc<Self>,
        mut question: Question,
        mut standing: Arc<Standing>,
        key: Option<&[u8]>,
        wanted: Wanted,
    ) -> Result<(Response<Incoming>, Peer), Failure> {
        let (mut may_reuse, mut misdirected) = (true, false);
        for turn in 1.. {
            let mut peer = self.peer(&standing, key, wanted, may_reuse).await?;
            let mut request = formed(question.request, peer.version(), &self.called)?;
            request.headers_mut().insert(TOKEN, standing.token());
            let may_repeat = turn < MOST_TURNS;
            let exchanged = peer.sender().exchange(request, &question.gate, question.repeatable).await;
            self.learn(&peer, &exchanged);
            question.request = match exchanged {
                Exchanged::Answered(answer, Some(again)) if is_misdirected(&answer) && !misdirected => {
                    misdirected = true;
                    self.forget();
                    again
                }
                Exchanged::Answered(answer, _) => return Ok((answer, peer)),
                Exchanged::Unsent(unsent, _) if may_repeat => unsent,
                Exchanged::Lost(_, Some(again)) if may_repeat && self.may_be_repeated(&again) => again,
                Exchanged::Unsent(_, error) | Exchanged::Lost(error, _) => return Err(Failure::Lost(error)),
            };
            may_reuse = false;
            self.outbound.report.repeated();
            standing = self.standing().await?;
        }
        unreachable!("the last turn ends in an answer or a failure")
    }

    /// A server that breaks off without a word is one to stay away from.
    fn learn(&self, peer: &Peer, exchanged: &Exchanged) {
        let Some(place) = peer.place() else { return };
        match exchanged {
            Exchanged::Answered(..) if peer.is_asked_first() => self.outbound.health.served(place),
            Exchanged::Lost(..) => self.outbound.health.failed(place, Failing::Serving, Instant::now()),
            Exchanged::Answered(..) | Exchanged::Unsent(..) => {}
        }
    }

    /// Whether a request may be sent twice although the server may have seen it (RFC 9110 §9.2.2).
    fn may_be_repeated(&self, request: &Request<Body>) -> bool {
        request.method().is_idempotent() && self.outbound.retries.may(&self.called.service.name)
    }

    /// Carries what two requests have become, on a task of its own.
    fn carry(self: &Arc<Self>, ours: OnUpgrade, theirs: OnUpgrade) {
        let (conversation, mut watch) = (Arc::clone(self), self.watch.clone());
        let carrying = async move {
            let told = async {
                watch.forced().await;
                Stop::Told
            };
            if let Some(carried) = upgrade::carry::<TcpStream, ServerIo>(ours, theirs, told).await {
                conversation.sent.fetch_add(carried.sent_bytes, Ordering::Relaxed);
                conversation.received.fetch_add(carried.received_bytes, Ordering::Relaxed);
            }
        };
        let mut upgraded = self.upgraded.lock();
        while upgraded.try_join_next().is_some() {}
        upgraded.spawn(carrying);
    }

    /// Lays a connection ready for the next request. One that answers one request at a time, among many that are asked at
    /// once, goes back when its answer has been read.
    fn rest(self: &Arc<Self>, peer: Peer) -> Option<GiveBack> {
        match (self.version, peer.version()) {
            (Version::Two, Version::One) => {
                return Some(GiveBack { conversation: Arc::clone(self), peer: Some(peer) });
            }
            (Version::One, _) | (Version::Two, Version::Two) => {}
        }
        *self.last.lock() = Some(peer.rested());
        None
    }

    /// A connection for a request.
    async fn peer(
        &self,
        standing: &Standing,
        key: Option<&[u8]>,
        wanted: Wanted,
        may_reuse: bool,
    ) -> Result<Peer, OutboundError> {
        if may_reuse && let Some(peer) = self.last_again(standing, key, wanted) {
            return Ok(peer);
        }
        // Apart, as it is long and every request would have room for it.
        Box::pin(self.another_peer(standing, key, wanted, may_reuse)).await
    }

    async fn another_peer(
        &self,
        standing: &Standing,
        key: Option<&[u8]>,
        wanted: Wanted,
        may_reuse: bool,
    ) -> Result<Peer, OutboundError> {
        let all_will_ask = self.version == Version::Two && key.is_none();
        let _opening = if all_will_ask { Some(self.opening.lock().await) } else { None };
        if all_will_ask
            && may_reuse
            && let Some(peer) = self.last_again(standing, key, wanted)
        {
            return Ok(peer);
        }
        let outbound = &*self.outbound;
        let identity = outbound.identity.as_ref().ok_or(NoCredential::NoIdentity)?;
        let mut candidates = outbound.candidates(standing.called(), standing.in_force().clone(), clock::now())?;
        if let Some(key) = key {
            candidates = candidates.for_content(key.to_vec());
        }
        let (way, service) = (Way::Header(&identity.tls, &outbound.http.peers, wanted), &self.called.service.name);
        let call = Call { service, client_port: self.client_port, mark: outbound.limits.mark, may_reuse };
        let deadline = Instant::now() + outbound.limits.connect_deadline;
        let mut attempts = Attempts::default();
        let reached = Reach { of: outbound, way: &way, call, deadline }.reach(candidates, &mut attempts).await;
        let mut all = self.attempts.lock();
        (all.count, all.server) = (all.count + attempts.count, attempts.server);
        drop(all);
        let reached = reached?;
        match reached.remote {
            Remote::Http(mut peer) => {
                peer.leads_to(reached.place);
                if let Some(shared) = peer.shared().filter(|_| all_will_ask) {
                    *self.last.lock() = Some(shared);
                }
                Ok(*peer)
            }
            Remote::Tunnel(_) | Remote::Pp2(..) | Remote::Plain(_) => {
                unreachable!("a way by requests leads to connections that can be asked")
            }
        }
    }

    /// The connection that was asked last, if it is right for this request as well; otherwise it is left to others.
    fn last_again(&self, standing: &Standing, key: Option<&[u8]>, wanted: Wanted) -> Option<Peer> {
        let mut last = self.last.lock();
        let (peer, now) = (last.take()?, Instant::now());
        let usable = peer.serves_on(now) && peer.idle_for(now) < LONGEST_IDLE && peer.is_by(standing.rule().text());
        if usable && wanted.accepts(&peer) && self.fits(standing, key, &peer) {
            *last = peer.shared();
            return Some(peer);
        }
        drop(last);
        if usable && peer.is_ready() {
            self.outbound.http.peers.keep(peer.rested());
        }
        None
    }

    /// Whether the rule might have given the connection's address for this request too.
    fn fits(&self, standing: &Standing, key: Option<&[u8]>, peer: &Peer) -> bool {
        if key.is_none() && !standing.rule().reads_time() {
            return true;
        }
        let known = Known {
            source: Some(peer.source()),
            content: key,
            secret: self.outbound.secrets.of(standing.rule()),
            now: Some(clock::now()),
        };
        standing.rule().check(&standing.called().service.space, *peer.destination_v6().ip(), &known).is_ok()
    }

    /// The next request is to ask again what it goes by.
    fn forget(&self) {
        *self.standing.lock() = None;
    }
}

/// Gives a connection back when an answer has been read.
struct GiveBack {
    conversation: Arc<Conversation>,
    peer: Option<Peer>,
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.conversation.outbound.http.peers.keep(peer.rested());
        }
    }
}

/// A sidecar's word that the request has come to the wrong place; an application's would have no reason beside it.
fn is_misdirected(answer: &Response<Incoming>) -> bool {
    answer.status() == StatusCode::MISDIRECTED_REQUEST && answer.headers().contains_key(REFUSAL)
}

/// The request as the connection's version writes it.
fn formed(request: Request<Body>, version: Version, called: &Called) -> Result<Request<Body>, BadRequest> {
    let (mut head, body) = request.into_parts();
    match version {
        Version::One => form_1(&mut head, called)?,
        Version::Two => form_2(&mut head, called)?,
    }
    Ok(Request::from_parts(head, body))
}

/// RFC 9112 §3.2.1: the path alone, and the target's authority in Host.
fn form_1(head: &mut Parts, called: &Called) -> Result<(), BadRequest> {
    if head.version == hyper::Version::HTTP_2 {
        // A stream that becomes something else has no form in HTTP/1.1 but the one that its own client would have used.
        if head.method == Method::CONNECT {
            return Err(BadRequest::Version);
        }
        join_cookies(head);
    }
    head.version = hyper::Version::HTTP_11;
    if head.method == Method::CONNECT {
        return Ok(());
    }
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| BadRequest::Host)?;
        head.headers.insert(HOST, host);
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    } else if !head.headers.contains_key(HOST) {
        let host = HeaderValue::try_from(host_of(called)).map_err(|_| BadRequest::Host)?;
        head.headers.insert(HOST, host);
    }
    Ok(())
}

/// RFC 9113 §8.3.1: scheme, authority and path.
fn form_2(head: &mut Parts, called: &Called) -> Result<(), BadRequest> {
    if head.version != hyper::Version::HTTP_2 {
        if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
            return Err(BadRequest::Version);
        }
        let named = head.headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let authority = match head.uri.authority().cloned().or(named) {
            Some(authority) => authority,
            None => Authority::try_from(host_of(called)).map_err(|_| BadRequest::Host)?,
        };
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        parts.path_and_query =
            Some(head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(parts).map_err(|_| BadRequest::Host)?;
    }
    head.version = hyper::Version::HTTP_2;
    Ok(())
}

/// RFC 9113 §8.2.3.
fn join_cookies(head: &mut Parts) {
    let parts: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        head.headers.insert(COOKIE, joined);
    }
}

/// The name by which the application called, for requests that say none.
fn host_of(called: &Called) -> String {
    let mut name = called.asked.to_string();
    name.pop();
    name
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
        assert!(room <= 4_608, "{room} octets");
    }
}
