//! Tunnels: one caller's streams, one after another, each verified and admitted as if it came alone.
//!
//! ```text
//! handshake ─▶ Waiting ──header──▶ verify, admit, forward ──▶ Carrying ──both directions ended──▶ Waiting
//!                │                          └─ refused ─▶ reset        └─ broken off ─▶ reset
//!                └─ idle too long, or no new work is taken ─▶ closed in good order
//! ```
//!
//! A tunnel that waits holds nothing up: it counts as no open connection, and a drain closes it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{timeout, timeout_at};

use super::accept::{AcceptError, Allowance, Arrived, Introduction};
use super::admit::OwnService;
use super::{Inbound, InboundError, Passage};
use crate::model::token::{Admitted, WorkloadId};
use crate::model::{Name, UnixSeconds};
use crate::net::copy::{self, Stop};
use crate::net::tls::ServerStream;
use crate::net::tunnel::{Party, Tunnel};
use crate::ops::access_log::Line;
use crate::ops::clock;
use crate::ops::drain::{Guard, Watch};
use crate::ops::metrics::Direction;
use crate::sidecar::report::{Carriage, Open};
use crate::trust::{LEEWAY, Verifier};
use crate::wire::proxy_header;

/// How long a tunnel waits for its next stream. Callers give theirs up well before.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// How long a caller has to close a tunnel as well that we have closed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Our end of a caller's tunnel: the tokens that came through it.
pub(super) struct Callee {
    verifier: Arc<Verifier>,
    service: Name,
    /// The last token, to be referred to, and how many have come.
    last: Box<[u8]>,
    tokens: u32,
    /// Whom the present stream was admitted for; nobody where the policy only counts.
    admitted: Option<WorkloadId>,
    /// Unix second at which the present stream ends unless the token is renewed.
    good_until: Arc<AtomicU64>,
}

impl Callee {
    pub(super) fn new(verifier: &Arc<Verifier>, service: &Name) -> Self {
        Self {
            verifier: Arc::clone(verifier),
            service: service.clone(),
            last: Box::default(),
            tokens: 0,
            admitted: None,
            good_until: Arc::default(),
        }
    }

    fn came(&mut self, token: &[u8]) {
        self.last = token.into();
        self.tokens += 1;
    }

    /// Notes the token in a header, or puts the one in that it refers to.
    fn resolve(&mut self, introduction: &mut Introduction) -> Result<(), InboundError> {
        match (&introduction.token, introduction.token_reference) {
            (Some(token), None) => self.came(token),
            (None, Some(number)) if self.tokens > 0 && number == self.tokens - 1 => {
                introduction.token = Some(self.last.clone());
            }
            (None, None) => {}
            (Some(_), Some(number)) | (None, Some(number)) => {
                return Err(InboundError::TokenReference { number, tokens: self.tokens });
            }
        }
        Ok(())
    }

    fn admit(&mut self, passage: &Passage) {
        self.admitted = match passage {
            Passage::Admitted(admitted) => Some(Admitted::id(admitted).clone()),
            Passage::ByAddress(_) | Passage::Tolerated => None,
        };
        self.good_until.store(passage.good_until(), Ordering::Relaxed);
    }
}

impl Party for Callee {
    fn renewed(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn renew(&mut self, token: &[u8]) -> Result<(), &'static str> {
        self.came(token);
        let Some(admitted) = &self.admitted else { return Ok(()) };
        let caller = self.verifier.verify(Some(token), &self.service, clock::now()).map_err(|error| error.reason())?;
        if caller.id() != admitted {
            return Err("token-subject-changed");
        }
        self.good_until.store(good_until(caller.until()), Ordering::Relaxed);
        Ok(())
    }
}

/// A stream, or a whole connection where that is one, outlives its token for as long as the same token would let a new one in. Callers renew theirs when half of
/// its life is over.
pub(super) fn good_until(expires: UnixSeconds) -> u64 {
    expires.0.saturating_add(LEEWAY.as_secs())
}

/// Waits until the token has been dead for as long as is forgiven; a renewed one puts that off.
pub(super) async fn token_dead(good_until: &AtomicU64) -> Stop {
    loop {
        let left = good_until.load(Ordering::Relaxed).saturating_sub(clock::now().0);
        if left == 0 {
            return Stop::TokenExpired;
        }
        tokio::time::sleep(Duration::from_secs(left)).await;
    }
}

/// A tunnel of a caller that has shaken hands and introduced itself for no stream yet.
pub(super) struct Accepted<'a> {
    pub(super) tunnel: Tunnel<ServerStream, Callee>,
    pub(super) own: &'a OwnService,
    pub(super) arrived: Arrived,
    pub(super) allowance: Allowance,
}

/// What a stream is reported by, from its first octet to its end.
pub(super) struct Reported {
    pub(super) line: Box<Line>,
    pub(super) _guard: Guard,
    pub(super) _open: Open,
}

/// Whether a further stream begins.
enum Next {
    Begins,
    /// Nothing more comes: the caller has ended the tunnel, or we are about to.
    Over {
        ended: bool,
    },
}

impl Inbound {
    /// Carries the streams of a tunnel. `first` reports the first one, which has begun with the connection.
    pub(super) async fn carry_tunnel(&self, mut accepted: Box<Accepted<'_>>, first: Reported, mut watch: Watch) {
        let mut first = Some(first);
        loop {
            if first.is_none() {
                match self.next_stream(&mut accepted, &mut watch).await {
                    Next::Begins => {}
                    Next::Over { ended: true } => return,
                    Next::Over { ended: false } => {
                        let _ = timeout(LAST_WORDS, accepted.tunnel.close_and_wait()).await;
                        return;
                    }
                }
            }
            let first_allowance = first.as_ref().map(|_| accepted.allowance);
            let reported = first.take().unwrap_or_else(|| self.begun(&accepted, &watch));
            if !self.carry_stream(&mut accepted, first_allowance, reported, &mut watch).await {
                return;
            }
        }
    }

    /// Waits for the first octet of a further stream.
    async fn next_stream(&self, accepted: &mut Accepted<'_>, watch: &mut Watch) -> Next {
        let Accepted { tunnel, arrived, .. } = accepted;
        if !tunnel.ahead().is_empty() {
            return Next::Begins;
        }
        let _waiting = self.report.waiting();
        tokio::select! {
            came = timeout(LONGEST_IDLE, tunnel.more_ahead()) => match came {
                Ok(Ok(octets)) if octets > 0 => Next::Begins,
                Ok(Ok(_) | Err(_)) => Next::Over { ended: true },
                Err(_) => Next::Over { ended: false },
            },
            () = watch.graceful() => Next::Over { ended: false },
            // The caller's next connection finds the new owner.
            () = self.left(arrived) => Next::Over { ended: false },
        }
    }

    /// Waits until the slice is another pod's.
    async fn left(&self, arrived: &Arrived) {
        match (&self.leased, arrived.addresses()) {
            (Some(leased), Some((_, destination))) => leased.slices.left(destination).await,
            (None, _) | (Some(_), None) => std::future::pending().await,
        }
    }

    fn begun(&self, accepted: &Accepted<'_>, watch: &Watch) -> Reported {
        let mut line = Line::open(Direction::Inbound, accepted.arrived.client);
        line.orig_dst = Some(accepted.arrived.destination);
        line.service = Some(accepted.own.name.to_string());
        line.mode = Some("tunnel");
        Reported { line: Box::new(line), _guard: watch.guard(), _open: self.report.opened(Direction::Inbound) }
    }

    /// Carries one stream to its end; says whether another may follow.
    async fn carry_stream(
        &self,
        accepted: &mut Accepted<'_>,
        allowance: Option<Allowance>,
        reported: Reported,
        watch: &mut Watch,
    ) -> bool {
        let Reported { mut line, .. } = reported;
        let entered = tokio::select! {
            entered = Box::pin(self.let_stream_in(accepted, allowance, &mut line)) => entered,
            () = watch.forced() => return false,
        };
        let application = match entered {
            Ok(application) => application,
            Err(refusal) => {
                self.report.refused(*line, Direction::Inbound, &refusal);
                return false;
            }
        };
        self.report.carrying(&line, Direction::Inbound, Carriage::Tunnel);
        let good_until = Arc::clone(&accepted.tunnel.party().good_until);
        let stop = async {
            tokio::select! {
                () = watch.forced() => Stop::Told,
                stop = token_dead(&good_until) => stop,
            }
        };
        let transferred = copy::both_ways(&mut accepted.tunnel, application, Vec::new(), stop).await;
        let goes_on = transferred.end.is_ok() && accepted.tunnel.is_free();
        self.report.ended(*line, Direction::Inbound, &transferred);
        goes_on
    }

    /// The phases for one stream: its header, who calls, whether it may, the application.
    async fn let_stream_in(
        &self,
        accepted: &mut Accepted<'_>,
        allowance: Option<Allowance>,
        line: &mut Line,
    ) -> Result<tokio::net::TcpStream, InboundError> {
        let allowance = allowance.unwrap_or_else(|| Allowance::of(self.handshake_timeout));
        let mut introduction = introduced(&mut accepted.tunnel, allowance).await?;
        line.generation = introduction.generation;
        let resolved = accepted.tunnel.party().resolve(&mut introduction);
        let admitted = match resolved {
            Ok(()) => self.admit(&introduction, accepted.own, &accepted.arrived).await,
            Err(refusal) => Err(refusal),
        };
        let passage = match admitted {
            Ok(admitted) => Passage::Admitted(admitted),
            Err(refusal) => self.tolerate(refusal)?,
        };
        accepted.tunnel.party().admit(&passage);
        self.forward(&passage, Some(accepted.own), &accepted.arrived, Some(&introduction), line).await
    }
}

/// Reads the header by which a stream begins.
async fn introduced(
    tunnel: &mut Tunnel<ServerStream, Callee>,
    allowance: Allowance,
) -> Result<Introduction, AcceptError> {
    loop {
        if let Some((header, length)) = proxy_header::parse(tunnel.ahead())? {
            let introduction = Introduction::from(header);
            tunnel.accept(length);
            return Ok(introduction);
        }
        let more = timeout_at(allowance.until(), tunnel.more_ahead());
        match more.await.map_err(|_| allowance.too_slow("PROXY header"))? {
            Ok(0) => return Err(AcceptError::HeaderEnded(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(AcceptError::HeaderEnded(error)),
        }
    }
}
