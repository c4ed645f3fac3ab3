//! One question to several name servers: the first usable answer wins.
//!
//! Owns the one retry policy there is. The best server is asked first; when its patience is over the next is asked as
//! well, while the first may still answer. Who stays silent is asked once more (a datagram may be lost), who spoke is
//! not. A caller that goes away ends all of it but the probe.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::health::{Health, Plan};

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::sidecar) struct Pace {
    /// For one server.
    pub(in crate::sidecar) attempt: Duration,
    /// For all of them together.
    pub(in crate::sidecar) deadline: Duration,
    /// For all of them together when each failed a moment ago. Zero: nobody is asked then but one whose time has come
    /// to be tried again.
    pub(in crate::sidecar) deadline_when_all_fail: Duration,
}

/// What came of asking one server.
#[derive(Debug)]
pub(in crate::sidecar) enum Reply<T, U> {
    /// An answer to go on with.
    Good(T),
    /// It spoke, but this cannot be used; another may do better.
    Unusable(U),
    /// It did not speak.
    Silent,
    /// It was never asked, for want of a socket: nothing is learned about it.
    NotAsked,
}

/// Nobody gave a usable answer.
#[derive(Debug)]
pub(in crate::sidecar) struct NoAnswer<U> {
    /// The first unusable answer, when anyone spoke.
    pub(in crate::sidecar) unusable: Option<U>,
}

/// Asks `servers` as `health` ranks them, and tells it how they did. `failed_over` is called for each further server
/// that has to be asked.
pub(in crate::sidecar) async fn first_good<T, U, F>(
    health: &Arc<Health>,
    servers: &[SocketAddr],
    pace: Pace,
    ask: impl Fn(SocketAddr) -> F,
    failed_over: impl Fn(),
) -> Result<T, NoAnswer<U>>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Future<Output = Reply<T, U>> + Send + 'static,
{
    let start = Instant::now();
    let (order, probe, deadline) = carry_out(health.plan(servers, start), pace);
    if let Some(server) = probe {
        tokio::spawn(attempt(health.clone(), server, ask(server)));
    }
    let mut race = Race { health, order, next: 0, settled: Vec::new(), unusable: None };
    let mut waiting = FuturesUnordered::new();
    let mut patience_ends = start;
    let mut start_next = true;
    loop {
        if start_next && let Some(server) = race.next_server() {
            if race.next > 1 {
                failed_over();
            }
            patience_ends = Instant::now() + health.patience(server);
            waiting.push(attempt(health.clone(), server, ask(server)));
        } else if waiting.is_empty() {
            return Err(NoAnswer { unusable: race.unusable });
        }
        start_next = tokio::select! {
            Some((server, reply)) = waiting.next() => match race.take(server, reply) {
                Some(answer) => return Ok(answer),
                None => true,
            },
            () = sleep_until(patience_ends), if race.has_more() => true,
            () = sleep_until(start + deadline) => return Err(race.give_up()),
        };
    }
}

/// Whom to ask in earnest, whom on the side, and how long.
fn carry_out(plan: Plan, pace: Pace) -> (Vec<SocketAddr>, Option<SocketAddr>, Duration) {
    let Plan { mut alive, due, failing } = plan;
    if !alive.is_empty() {
        alive.extend(failing);
        return (alive, due, pace.deadline);
    }
    let mut order = Vec::from_iter(due);
    if !pace.deadline_when_all_fail.is_zero() {
        order.extend(failing);
        return (order, None, pace.deadline_when_all_fail);
    }
    (order, None, pace.deadline)
}

/// Asks one server and notes how it did.
async fn attempt<T, U>(
    health: Arc<Health>,
    server: SocketAddr,
    asking: impl Future<Output = Reply<T, U>>,
) -> (SocketAddr, Reply<T, U>) {
    let start = Instant::now();
    let reply = asking.await;
    let now = Instant::now();
    match &reply {
        Reply::Good(_) | Reply::Unusable(_) => health.answered(server, now - start),
        Reply::Silent => health.failed(server, now),
        Reply::NotAsked => {}
    }
    (server, reply)
}

struct Race<'a, U> {
    health: &'a Health,
    order: Vec<SocketAddr>,
    /// How many questions were sent. The order is gone through twice.
    next: usize,
    /// Servers whose say is known: asking again would change nothing.
    settled: Vec<SocketAddr>,
    unusable: Option<U>,
}

impl<U> Race<'_, U> {
    fn has_more(&self) -> bool {
        (self.next..2 * self.order.len()).any(|at| !self.settled.contains(&self.order[at % self.order.len()]))
    }

    fn next_server(&mut self) -> Option<SocketAddr> {
        while self.next < 2 * self.order.len() {
            let server = self.order[self.next % self.order.len()];
            self.next += 1;
            if !self.settled.contains(&server) {
                return Some(server);
            }
        }
        None
    }

    fn take<T>(&mut self, server: SocketAddr, reply: Reply<T, U>) -> Option<T> {
        match reply {
            Reply::Good(answer) => {
                self.note_overtaken(server);
                return Some(answer);
            }
            Reply::Unusable(unusable) => {
                self.unusable.get_or_insert(unusable);
            }
            Reply::Silent | Reply::NotAsked => {}
        }
        self.settled.push(server);
        None
    }

    /// Whoever was asked before `winner` and is still silent has failed: it used up its patience.
    fn note_overtaken(&self, winner: SocketAddr) {
        let now = Instant::now();
        let asked = self.order.iter().take(self.next);
        for server in asked.take_while(|server| **server != winner).filter(|server| !self.settled.contains(server)) {
            self.health.failed(*server, now);
        }
    }

    fn give_up(self) -> NoAnswer<U> {
        let now = Instant::now();
        let silent = self.order.iter().take(self.next).filter(|server| !self.settled.contains(server));
        silent.for_each(|server| self.health.failed(*server, now));
        NoAnswer { unusable: self.unusable }
    }
}
