//! What is read of a message and written into it, the same way in both directions.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::http::uri::Authority;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};

use super::Version;
use super::answer::BadRequest;
use super::body::{Body, Gate, Shutting};
use super::fields::Survey;

/// A request that can be passed on: nothing stands in it that was meant for us.
pub(in crate::sidecar) struct Prepared {
    pub(in crate::sidecar) request: Request<Incoming>,
    pub(in crate::sidecar) survey: Survey,
    /// What its connection becomes, if the server agrees.
    pub(in crate::sidecar) turning: Option<Turning>,
}

/// A connection that is to stop being HTTP.
pub(in crate::sidecar) struct Turning {
    ours: OnUpgrade,
    /// By CONNECT; otherwise by `Upgrade`.
    connects: bool,
}

impl Turning {
    /// Whether a server that answers with this agrees.
    fn is_agreed_by(&self, status: StatusCode) -> bool {
        if self.connects { status.is_success() } else { status == StatusCode::SWITCHING_PROTOCOLS }
    }
}

impl Prepared {
    /// Looks a request through, and takes out what goes no further.
    ///
    /// # Errors
    /// What an intermediary must not pass on.
    pub(in crate::sidecar) fn from(mut request: Request<Incoming>) -> Result<Self, BadRequest> {
        let survey = Survey::of(request.headers())?;
        well_formed(&request, survey)?;
        let protocol = survey.upgrade(request.headers());
        let connects = request.method() == Method::CONNECT;
        let turns = protocol.is_some() || connects;
        let turning = turns.then(|| Turning { ours: hyper::upgrade::on(&mut request), connects });
        survey.strip(request.headers_mut());
        say_upgrade(request.headers_mut(), protocol);
        Ok(Self { request, survey, turning })
    }
}

fn say_upgrade(headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// What an intermediary must not pass on.
fn well_formed(request: &Request<Incoming>, survey: Survey) -> Result<(), BadRequest> {
    if survey.is_coded(request.headers()) {
        return Err(BadRequest::Coding);
    }
    let target = request.uri().authority();
    let needs_host = request.version() == hyper::Version::HTTP_11;
    if survey.hosts > 1 || (needs_host && survey.hosts == 0) {
        return Err(BadRequest::Hosts { found: survey.hosts });
    }
    if !is_target_of(request) {
        return Err(BadRequest::Target);
    }
    if target.is_some_and(|target| !names_a_host(target)) {
        return Err(BadRequest::Host);
    }
    let Some(host) = request.headers().get(HOST) else { return Ok(()) };
    let host = Authority::try_from(host.as_bytes()).map_err(|_| BadRequest::Host);
    // RFC 9112 §3.2.2: of HTTP/1.1 the target's counts. RFC 9113 §8.3.1: of HTTP/2 they are to be the same.
    match (host, target) {
        (Err(_), _) if request.headers().get(HOST).is_some_and(HeaderValue::is_empty) => Ok(()),
        (Err(error), _) => Err(error),
        (Ok(host), _) if !names_a_host(&host) => Err(BadRequest::Host),
        (Ok(host), Some(target)) if request.version() == hyper::Version::HTTP_2 && host != *target => {
            Err(BadRequest::Host)
        }
        (Ok(_), _) => Ok(()),
    }
}

/// RFC 9112 §3.2: a name alone with a port is CONNECT's target, and CONNECT has no other; `*` is that of OPTIONS. What
/// HTTP/2 has instead is judged where its frames are read.
fn is_target_of(request: &Request<Incoming>) -> bool {
    let (method, target) = (request.method(), request.uri());
    let name_alone = target.authority().is_some() && target.scheme().is_none();
    match (method, request.version()) {
        (_, hyper::Version::HTTP_2) => true,
        (&Method::CONNECT, _) => name_alone && target.port_u16().is_some_and(|port| port != 0),
        (&Method::OPTIONS, _) => !name_alone,
        (_, _) => !name_alone && target.path() != "*",
    }
}

/// RFC 9110 §4.2.4 and §7.2, RFC 9113 §8.3.1: a host and perhaps a port, and no user.
fn names_a_host(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()).map(|behind| behind.split_at_checked(1)) {
        Some(None) => true,
        Some(Some((colon, port))) => colon == ":" && port.bytes().all(|octet| octet.is_ascii_digit()),
        None => false,
    }
}

/// Both ends of what has stopped being HTTP: the asking one's, the answering one's.
pub(in crate::sidecar) type Ends = (OnUpgrade, OnUpgrade);

/// An answer that can be passed on, and what the connections have become instead of HTTP.
///
/// # Errors
/// What an intermediary must not pass on.
pub(in crate::sidecar) fn answered(
    mut answer: Response<Incoming>,
    turning: Option<Turning>,
) -> Result<(Response<Incoming>, Option<Ends>), BadRequest> {
    let survey = Survey::of(answer.headers())?;
    if survey.is_coded(answer.headers()) {
        return Err(BadRequest::Coding);
    }
    let agreed = turning.filter(|turning| turning.is_agreed_by(answer.status()));
    let protocol = survey.upgrade(answer.headers()).filter(|_| agreed.is_some());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS && agreed.is_none() {
        return Err(BadRequest::Unasked);
    }
    let turned = agreed.map(|turning| (turning.ours, hyper::upgrade::on(&mut answer)));
    survey.strip(answer.headers_mut());
    say_upgrade(answer.headers_mut(), protocol);
    Ok((answer, turned))
}

/// A request on its way to somebody who answers it.
pub(in crate::sidecar) struct Question {
    pub(in crate::sidecar) request: Request<Body>,
    /// Whether nothing but its head makes it up, so that it can be sent again.
    pub(in crate::sidecar) repeatable: bool,
    /// What its content waits for.
    pub(in crate::sidecar) gate: Option<Arc<Gate>>,
}

impl Question {
    /// The octets of the content are added to `octets`. HTTP/2 has no way here to say 100 Continue; there content goes at
    /// once.
    pub(in crate::sidecar) fn of(
        request: Request<Incoming>,
        survey: Survey,
        version: Version,
        octets: &Arc<AtomicU64>,
    ) -> Self {
        let (head, content) = request.into_parts();
        let empty = content.is_end_stream();
        let gate = (survey.expect && version == Version::One && !empty).then(Arc::default);
        let repeatable = empty && !head.headers.contains_key(UPGRADE) && head.method != Method::CONNECT;
        let body = match &gate {
            Some(gate) => Body::asked(content, Arc::clone(gate)),
            None if empty => Body::empty(),
            None => Body::carried(content).counted(octets),
        };
        Self { request: Request::from_parts(head, body), repeatable, gate }
    }

    /// What lets the content go at the latest.
    pub(in crate::sidecar) fn shutting(&self) -> Option<Shutting> {
        self.gate.clone().map(Shutting)
    }
}

/// The same request once more; it has no content.
pub(super) fn copy_of(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
