//! A network that loses, delays, doubles and overtakes messages, in one direction or both, between whom it likes.

use std::sync::Arc;
use std::time::Duration;

use funicular::peak::store::{Answer, Ask, Lane, Network, Node, Tell, Unreached};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::random::{below, between, chance};

/// The most nodes of a run.
pub(super) const MOST: usize = 5;

/// After so long a connection to a machine that has stopped is broken, whatever was asked on it.
const SILENT: Duration = Duration::from_secs(5);

/// How the network treats messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(super) lost: u64,
    /// Of a thousand questions so many come twice.
    pub(super) doubled: u64,
    /// The longest delay in milliseconds; most messages take up to 2.
    pub(super) slowest: u64,
}

impl Weather {
    pub(super) const FAIR: Self = Self { lost: 0, doubled: 0, slowest: 2 };
}

#[derive(Debug)]
struct State {
    /// The nodes that run, each with the life it is in.
    running: [Option<(u64, Arc<Node>)>; MOST],
    /// Whether nothing gets from one to the other.
    cut: [[bool; MOST]; MOST],
    weather: Weather,
}

/// All nodes' network.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Mutex<State>>);

impl Wire {
    pub(super) fn new() -> Self {
        let state = State { running: Default::default(), cut: Default::default(), weather: Weather::FAIR };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The way in and out of one node in one of its lives.
    pub(super) fn port(&self, node: usize, life: u64, cluster: Arc<Mutex<u128>>) -> Arc<dyn Network> {
        Arc::new(Port { wire: self.clone(), node, life, cluster })
    }

    pub(super) fn start(&self, at: usize, life: u64, node: Arc<Node>) {
        self.0.lock().running[at] = Some((life, node));
    }

    pub(super) fn stop(&self, at: usize) {
        self.0.lock().running[at] = None;
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    /// From now on exactly these directions are cut.
    pub(super) fn cut(&self, cut: impl Fn(usize, usize) -> bool) {
        let mut state = self.0.lock();
        for from in 0..MOST {
            for to in 0..MOST {
                state.cut[from][to] = cut(from, to);
            }
        }
    }

    fn node(&self, at: usize) -> Option<Arc<Node>> {
        self.0.lock().running[at].as_ref().map(|(_, node)| Arc::clone(node))
    }

    fn is_running(&self, at: usize, life: u64) -> bool {
        self.0.lock().running[at].as_ref().is_some_and(|(running, _)| *running == life)
    }

    /// How long a message takes from one to the other; none when it is lost.
    fn passes(&self, from: usize, to: usize) -> Option<Duration> {
        let (cut, weather) = {
            let state = self.0.lock();
            (state.cut[from][to], state.weather)
        };
        if cut || chance(weather.lost) {
            return None;
        }
        let slowest = if chance(200) { weather.slowest } else { weather.slowest.min(2) };
        Some(Duration::from_micros(between(100, slowest.max(1) * 1_000)))
    }
}

#[derive(Debug)]
struct Port {
    wire: Wire,
    node: usize,
    life: u64,
    cluster: Arc<Mutex<u128>>,
}

/// The name by which the others reach a node.
pub(super) fn address(node: usize) -> String {
    format!("node-{node}:7444")
}

fn place(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.strip_suffix(":7444")?.parse().ok()
}

impl Network for Port {
    fn ask<'a>(&'a self, address: &'a str, lane: Lane, ask: Ask, within: Duration) -> Answer<'a> {
        Box::pin(async move {
            let late = Instant::now() + within;
            let told = async {
                let to = place(address).filter(|to| *to < MOST)?;
                self.to(to, lane, ask).await
            };
            tokio::select! {
                biased;
                told = told => match told {
                    Some(Some(tell)) => return Ok(tell),
                    Some(None) => {
                        return Err(Unreached::Refused { address: address.into(), cause: "nobody listens".into() });
                    }
                    None => sleep_until(late).await,
                },
                () = sleep_until(late) => {}
            }
            Err(Unreached::Late { address: address.into(), waited: within })
        })
    }
}

impl Port {
    /// None: nothing comes back. An inner none: nobody listens there, which the asker is told.
    async fn to(&self, to: usize, lane: Lane, ask: Ask) -> Option<Option<Tell>> {
        if !self.wire.is_running(self.node, self.life) {
            return None;
        }
        let doubled = { self.wire.0.lock().weather.doubled };
        if chance(doubled)
            && let Some(delay) = self.wire.passes(self.node, to)
        {
            let (wire, ask, cluster) = (self.wire.clone(), ask.clone(), *self.cluster.lock());
            tokio::spawn(async move {
                sleep(delay * (1 + below(20) as u32)).await;
                if let Some(node) = wire.node(to).filter(|node| is_taken(cluster, node, lane)) {
                    drop(node.answer(ask).await);
                }
            });
        }
        sleep(self.wire.passes(self.node, to)?).await;
        let Some(node) = self.wire.node(to) else {
            sleep(self.wire.passes(to, self.node)?).await;
            return Some(None);
        };
        if !is_taken(*self.cluster.lock(), &node, lane) {
            return Some(None);
        }
        // Who gives up waiting does not keep the other from doing what it was asked.
        let (done, mut answer) = oneshot::channel();
        let life = { self.wire.0.lock().running[to].as_ref().map(|(life, _)| *life)? };
        tokio::spawn(async move { drop(done.send(node.answer(ask).await)) });
        let tell = loop {
            match timeout(SILENT, &mut answer).await {
                Ok(Ok(tell)) if self.wire.is_running(to, life) => break tell,
                Err(_) if self.wire.is_running(to, life) => {}
                // What a machine has found out while it stopped is never told.
                Ok(_) | Err(_) => {
                    sleep(SILENT).await;
                    return Some(None);
                }
            }
        };
        sleep(self.wire.passes(to, self.node)?).await;
        self.wire.is_running(self.node, self.life).then_some(Some(tell))
    }
}

/// As the real door decides: members of a cluster talk among each other, and a node without one may ask to join.
fn is_taken(cluster: u128, node: &Node, lane: Lane) -> bool {
    cluster == node.cluster() || (cluster == 0 && lane == Lane::Forward)
}
