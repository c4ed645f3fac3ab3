//! This pod's slices: registered with Peak, renewed, claimed of the node, handed over before the pod goes.
//!
//! ```text
//! Peak ══ shares ══▶ keep ── table ──▶ inbound: is this connection mine?
//!      ◀═ reports ══   │  ◀─ open connections ──┘
//!                      └── claims ──▶ the node's agent: routes
//! ```
//!
//! A lease runs from when its renewal was *sent*, by this pod's monotonic clock, and ends [`MARGIN`] of its life before
//! the leader lets it end: clocks may run that differently fast before two pods would hold a slice. When it lapses,
//! what happens is the operator's choice ([`Lapsed`](crate::config::slices::Lapsed)): to serve what still arrives, or
//! to refuse it. Routes stay as they are either way: whoever is given the slices outbids them, and nobody else does.

mod going;
mod link;
mod steps;
mod table;

pub use going::{Handle, Leaver};
pub use steps::Has;
pub use table::{Guard, Slices, Standing};

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use self::going::{Going, Here};
use self::link::{Link, LinkError};
use self::steps::{InPlace, Tell};
use super::outbound::Identity;
use super::outbound::authenticate::{Credential, NoCredential};
use crate::model::Name;
use crate::model::registry::lease::{HandoverId, Holder, Share, Step};
use crate::net::agent::AgentLink;
use crate::ops::metrics::{Counters, Gauge, Reason, Registry};
use crate::ops::{clock, entropy};
use crate::wire::agent::State;
use crate::wire::lease::{FromPeak, FromSidecar, Register, Token};

/// The part of a lease's life by which it ends sooner here than at the leader: one of so many.
const MARGIN: u32 = 10;
/// Of a lease's life, how often it is renewed.
const RENEWALS: u32 = 3;
/// How long to wait before Peak is called again: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many slices' load is told with a renewal.
const MOST_LOAD: usize = 16;
/// How long routers may go on sending to a pod what has left it. Before that no handover ends here, though no connection
/// is open: one that is just being opened here would lose what carries it.
const NEWS_SPREADS: Duration = Duration::from_secs(1);
/// A pod that drains and of which nobody takes anything for so long is the last one.
const NOBODY_COMES: Duration = Duration::from_secs(2);

/// What a sidecar asks for.
pub struct Wanted {
    /// Peak's nodes.
    pub servers: Vec<SocketAddr>,
    /// What they prove.
    pub peak: Name,
    /// The pod's name.
    pub pod: String,
    /// Where other sidecars reach this one; with the address `::`, where Peak sees it.
    pub inbound: (Ipv6Addr, u16),
    /// Its share.
    pub weight: u32,
    /// The services that it serves.
    pub services: Vec<Name>,
    /// The node's agent.
    pub agent: Option<PathBuf>,
    /// How long connections of slices that have left may go on.
    pub drain: Duration,
    /// The mark of our own connections.
    pub mark: Option<u32>,
}

/// What is counted.
#[derive(Clone)]
pub struct LeaseMetrics {
    held: Gauge,
    failures: Counters<Reason>,
}

impl LeaseMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            held: registry.gauge("funicular_lease_prefixes", "Prefixes of slices that this pod has."),
            failures: registry.counters("funicular_lease_failures_total", "Connections to Peak that ended, by reason."),
        }
    }
}

/// Begins to keep the lease, once the pod is `ready` to serve. It goes on until the runtime ends; drop the handle and it still does.
#[must_use]
pub fn keep(
    wanted: Wanted,
    identity: Arc<Identity>,
    slices: Arc<Slices>,
    metrics: LeaseMetrics,
    ready: Arc<Notify>,
) -> Handle {
    let (going, told) = watch::channel(Going::Stays);
    let (tell, here) = watch::channel(Here::Something);
    let agent = wanted.agent.clone().map(|path| AgentLink::open(path, clock::now().0));
    let count = wanted.services.len();
    let keeper = Keeper {
        holder: Holder(entropy::draw()),
        has: vec![Has::default(); count],
        known: vec![false; count],
        wanted,
        identity,
        slices,
        metrics,
        agent,
        claimed: None,
        withdrawn: HashMap::new(),
        told: HashSet::new(),
        going: told,
        here: tell,
        next: 0,
    };
    let task = tokio::spawn(async move {
        let mut going = keeper.going.clone();
        let comes = tokio::select! {
            () = ready.notified() => true,
            // It goes before it has come.
            _ = going.changed() => false,
        };
        if comes {
            keeper.run().await;
        } else {
            keeper.here.send_replace(Here::Returned);
        }
    });
    Handle { task: task.abort_handle(), going, here }
}

/// Why a conversation with one node ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("another node leads")]
    Elsewhere(Option<SocketAddr>),
    #[error("Peak refused: {0}")]
    Refused(Box<str>),
    #[error("no token for Peak: {0}")]
    Token(#[from] NoCredential),
    #[error("the lease was given back")]
    Returned,
}

impl Ended {
    fn reason(&self) -> &'static str {
        match self {
            Self::Link(error) => error.reason(),
            Self::Elsewhere(_) => "peak-not-leading",
            Self::Refused(_) => "peak-refused",
            Self::Token(error) => error.reason(),
            Self::Returned => "lease-returned",
        }
    }
}

struct Keeper {
    holder: Holder,
    wanted: Wanted,
    identity: Arc<Identity>,
    slices: Arc<Slices>,
    metrics: LeaseMetrics,
    agent: Option<AgentLink>,
    /// What the pod has, by service.
    has: Vec<Has>,
    /// Whether Peak has said so.
    known: Vec<bool>,
    /// The number of the claim that stands for `has`.
    claimed: Option<u64>,
    /// Since when nothing leads here any more, by handover.
    withdrawn: HashMap<HandoverId, Instant>,
    /// What this conversation has told already.
    told: HashSet<(usize, Tell)>,
    going: watch::Receiver<Going>,
    here: watch::Sender<Here>,
    /// The server to ask next.
    next: usize,
}

/// One conversation's renewals.
struct Renewals {
    life: Duration,
    number: u64,
    /// When those not answered yet were sent, the oldest first.
    sent: Vec<(u64, Instant)>,
    credential: Credential,
    due: Instant,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut hint = None;
        loop {
            let server = hint.take().unwrap_or_else(|| self.server());
            let began = Instant::now();
            let ended = self.converse(server).await;
            self.metrics.failures.increment(&Reason(ended.reason()));
            match ended {
                Ended::Returned => {
                    self.here.send_replace(Here::Returned);
                    return;
                }
                Ended::Elsewhere(leader) => {
                    tracing::debug!(%server, "does not lead");
                    hint = leader;
                }
                ended @ (Ended::Link(_) | Ended::Refused(_) | Ended::Token(_)) => {
                    tracing::warn!(%server, reason = ended.reason(), "no lease from here: {ended}");
                }
            }
            if *self.going.borrow() == Going::Leaves {
                // Whoever cannot give the lease back lets it run out.
                self.here.send_replace(Here::Returned);
                return;
            }
            pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            // Not all of a node's pods at the same moment.
            sleep(pause.mul_f64(0.5 + (entropy::draw() as u8 as f64) / 512.0)).await;
        }
    }

    fn server(&mut self) -> SocketAddr {
        let server = self.wanted.servers[self.next % self.wanted.servers.len()];
        self.next += 1;
        server
    }

    /// Talks with one of Peak's nodes for as long as that goes.
    async fn converse(&mut self, server: SocketAddr) -> Ended {
        match self.registered(server).await {
            Ok((link, renewals)) => self.hold(link, renewals).await,
            Err(ended) => ended,
        }
    }

    async fn registered(&mut self, server: SocketAddr) -> Result<(Link, Renewals), Ended> {
        let node = self.node().await;
        let credential = self.identity.tokens.authenticate(&self.wanted.peak, clock::now())?;
        let mut link = Link::open(server, &self.wanted.peak, &self.identity.tls, self.wanted.mark).await?;
        let register = Register {
            token: Token(credential.octets().into()),
            holder: self.holder,
            instance: self.wanted.pod.as_str().into(),
            node,
            inbound: self.wanted.inbound,
            weight: self.wanted.weight,
            services: self.wanted.services.clone(),
        };
        let sent = Instant::now();
        link.say(&FromSidecar::Register(Box::new(register))).await?;
        loop {
            match link.next().await? {
                FromPeak::Registered { pod, life_ms } => {
                    let life = Duration::from_millis(life_ms.into());
                    tracing::info!(%server, %pod, seconds = life.as_secs_f64(), "this pod holds a lease");
                    self.slices.renewed(lapses(sent, life));
                    self.told.clear();
                    let due = sent + life / RENEWALS;
                    return Ok((link, Renewals { life, number: 0, sent: Vec::new(), credential, due }));
                }
                FromPeak::Elsewhere { leader } => return Err(Ended::Elsewhere(leader)),
                FromPeak::Refused { reason } => return Err(Ended::Refused(reason)),
                FromPeak::Renewed { .. } | FromPeak::Share { .. } => {}
            }
        }
    }

    /// Where the node's agent takes strays; waits for the agent where there is to be one.
    async fn node(&self) -> Option<Ipv6Addr> {
        let mut seen = self.agent.as_ref()?.seen();
        let welcomed = seen.wait_for(|seen| seen.welcome.is_some()).await.ok()?;
        welcomed.welcome.as_ref().map(|welcome| welcome.node)
    }

    /// Holds the lease until the conversation ends.
    async fn hold(&mut self, mut link: Link, mut renewals: Renewals) -> Ended {
        let mut endings = self.slices.endings();
        let mut going = self.going.clone();
        let mut seen = self.agent.as_ref().map(AgentLink::seen);
        let mut goes = Going::Stays;
        let mut asked_to_go = Instant::now();
        loop {
            if *going.borrow_and_update() > goes {
                goes = *going.borrow();
                asked_to_go = Instant::now();
                let word = if goes == Going::Leaves { FromSidecar::Return } else { FromSidecar::Drain };
                if let Err(error) = link.say(&word).await {
                    return error.into();
                }
                if goes == Going::Leaves {
                    return Ended::Returned;
                }
            }
            if let Err(error) = self.report(&mut link).await {
                return error.into();
            }
            if goes == Going::HandsOver && self.is_handed_over(asked_to_go) {
                self.here.send_if_modified(|here| std::mem::replace(here, Here::Nothing) != Here::Nothing);
            }
            let alarm = self.alarm(renewals.due, (goes == Going::HandsOver).then_some(asked_to_go));
            let heard = tokio::select! {
                word = link.next() => match word {
                    Ok(word) => Some(word),
                    Err(error) => return error.into(),
                },
                () = sleep_until(alarm) => None,
                _ = endings.changed(), if !self.withdrawn.is_empty() => None,
                _ = going.changed() => None,
                () = changed(&mut seen) => None,
            };
            if let Some(word) = heard
                && let Err(ended) = self.hear(word, &mut renewals)
            {
                return ended;
            }
            if Instant::now() >= renewals.due
                && let Err(ended) = self.renew(&mut link, &mut renewals).await
            {
                return ended;
            }
        }
    }

    /// When something has to be looked at though nothing has been heard.
    fn alarm(&self, renewal: Instant, asked_to_go: Option<Instant>) -> Instant {
        let ends = |&since: &Instant| [since + NEWS_SPREADS, since + self.wanted.drain];
        let freed = self.withdrawn.values().flat_map(ends).filter(|at| *at > Instant::now());
        let nobody = asked_to_go.map(|at| at + NOBODY_COMES).filter(|at| *at > Instant::now());
        freed.chain(nobody).chain([renewal]).min().unwrap_or(renewal)
    }

    fn is_handed_over(&self, asked: Instant) -> bool {
        let leaves = self.has.iter().any(|has| !has.share.leaving.is_empty());
        steps::is_handed_over(&self.has) || (!leaves && asked.elapsed() >= NOBODY_COMES)
    }

    fn hear(&mut self, word: FromPeak, renewals: &mut Renewals) -> Result<(), Ended> {
        match word {
            FromPeak::Renewed { number } => {
                if let Some(&(_, sent)) = renewals.sent.iter().find(|(sent, _)| *sent == number) {
                    self.slices.renewed(lapses(sent, renewals.life));
                }
                renewals.sent.retain(|(sent, _)| *sent > number);
                Ok(())
            }
            FromPeak::Share { service, space, slice_length, share } => {
                let place = usize::from(service);
                if let Some(has) = self.has.get_mut(place) {
                    *has = Has { space, slice_length, share };
                    self.known[place] = true;
                    self.has_changed();
                }
                Ok(())
            }
            FromPeak::Elsewhere { leader } => Err(Ended::Elsewhere(leader)),
            FromPeak::Refused { reason } => Err(Ended::Refused(reason)),
            FromPeak::Registered { .. } => Ok(()),
        }
    }

    /// Tells the data path and the node of new shares, once all services' are known.
    fn has_changed(&mut self) {
        let now = Instant::now();
        let leaving = |has: &Has| -> Vec<HandoverId> {
            let share: &Share = &has.share;
            let withdrawn = share.leaving.iter().filter(|leaving| leaving.step == Step::Withdrawn);
            withdrawn.map(|leaving| leaving.id).collect()
        };
        let ids: HashSet<HandoverId> = self.has.iter().flat_map(leaving).collect();
        self.withdrawn.retain(|id, _| ids.contains(id));
        for id in ids {
            self.withdrawn.entry(id).or_insert(now);
        }
        if !self.known.iter().all(|known| *known) {
            return;
        }
        self.metrics.held.set(self.has.iter().map(|has| has.share.held.len() as i64).sum());
        self.slices.replace(&self.has);
        if let Some(agent) = &mut self.agent {
            self.claimed = Some(agent.claim(self.has.iter().flat_map(steps::claims).collect()));
        }
    }

    /// How far the node is with what is claimed now.
    fn in_place(&self) -> InPlace {
        let Some(agent) = &self.agent else { return InPlace::All };
        let Some(claimed) = self.claimed else { return InPlace::NotYet };
        let seen = agent.seen();
        let seen = seen.borrow();
        match seen.report.as_ref().filter(|report| report.number >= claimed).map(|report| &report.state) {
            None => InPlace::NotYet,
            Some(State::InPlace) => InPlace::All,
            Some(State::Waiting { text, .. }) => InPlace::AllButArriving(text.as_str().into()),
            Some(State::Refused { text, .. }) => InPlace::Nothing(text.as_str().into()),
        }
    }

    /// Tells Peak what has been done, each thing once.
    async fn report(&mut self, link: &mut Link) -> Result<(), LinkError> {
        if !self.known.iter().all(|known| *known) {
            return Ok(());
        }
        let in_place = self.in_place();
        let now = Instant::now();
        let is_free = |id: HandoverId, prefixes: &[ipnet::Ipv6Net]| {
            let since = self.withdrawn.get(&id).map_or(Duration::ZERO, |since| now - *since);
            since >= NEWS_SPREADS && (self.slices.open_in(prefixes) == 0 || since >= self.wanted.drain)
        };
        let mut words = Vec::new();
        for (place, has) in self.has.iter().enumerate() {
            for tell in steps::tell(has, &in_place, is_free) {
                if self.told.insert((place, tell.clone())) {
                    let service = place as u16;
                    words.push(match tell {
                        Tell::Done(handover, reported) => FromSidecar::Report { service, handover, reported },
                        Tell::Waits(handover, waits) => FromSidecar::Wait { service, handover, waits },
                    });
                }
            }
        }
        for word in words {
            link.say(&word).await?;
        }
        Ok(())
    }

    async fn renew(&mut self, link: &mut Link, renewals: &mut Renewals) -> Result<(), Ended> {
        let credential = self.identity.tokens.authenticate(&self.wanted.peak, clock::now())?;
        let token = (!credential.is(&renewals.credential)).then(|| Token(credential.octets().into()));
        renewals.credential = credential;
        renewals.number += 1;
        let now = Instant::now();
        let mut load = Vec::new();
        for (place, has) in self.has.iter().enumerate() {
            let busiest = self.slices.load(&has.space, has.slice_length, MOST_LOAD);
            load.extend(busiest.into_iter().map(|(slice, begun)| (place as u16, slice, begun)));
        }
        link.say(&FromSidecar::Renew { number: renewals.number, token, load }).await?;
        renewals.sent.push((renewals.number, now));
        renewals.due = now + renewals.life / RENEWALS;
        Ok(())
    }
}

/// When a lease lapses here that was asked for at `sent`.
fn lapses(sent: Instant, life: Duration) -> Instant {
    sent + life - life / MARGIN
}

/// Waits until something is new of the agent; for ever where there is none.
async fn changed(seen: &mut Option<watch::Receiver<crate::net::agent::Seen>>) {
    match seen {
        Some(seen) => match seen.changed().await {
            Ok(()) => {}
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_lapses_here_before_the_leader_lets_it_end() {
        let sent = Instant::now();
        let life = Duration::from_secs(5);
        assert_eq!(lapses(sent, life), sent + Duration::from_millis(4_500));
        // The leader counts from when it arrived, which was not before it was sent.
        assert!(lapses(sent, life) < sent + life);
    }
}
