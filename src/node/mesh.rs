//! `routes: mesh`: agents tell each other which slices are on their nodes.
//!
//! Each agent calls all others, and each proves its name by its certificate before anything it says counts; who calls
//! need not prove anything, because where slices are is no secret and nothing is taken from who calls. What is said
//! stays until it is taken back, or until the agent has been silent for long: agents are replaced while everything runs.
//!
//! Where two say that they have the same slice, the later one is right: that is what a move looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use ipnet::Ipv6Net;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::heard::Heard;
use super::place::Hop;
use crate::config::node_agent::{Mesh, MeshNode};
use crate::net::agent::{AgentError, converse};
use crate::net::tls::{ClientTls, First, ServerTls, first_octets};
use crate::net::{connect, listen};
use crate::wire::agent::{Routed, VERSION};

/// The ALPN protocol.
const PROTOCOL: &str = "funicular-mesh/1";
/// How often an agent says that it is still there, and after how long a silence it is not.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(4);
/// How long a connection and a handshake may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a node that could not be reached is called again.
const CALL_AGAIN: Duration = Duration::from_millis(200);

/// What is known of other nodes' slices.
#[derive(Debug, Default)]
pub(super) struct Atlas {
    peers: BTreeMap<usize, Peer>,
    /// Counts what was said, so that later is known from earlier.
    said: u64,
}

#[derive(Debug)]
struct Peer {
    node: Ipv6Addr,
    slices: BTreeMap<Ipv6Net, u64>,
    /// Since when it is gone.
    gone: Option<Instant>,
    /// Whether what it says next is everything.
    begins: bool,
}

impl Atlas {
    /// Another agent has said something.
    pub(super) fn learn(&mut self, peer: usize, routed: Routed) {
        self.said += 1;
        let Routed { node, added, removed, .. } = routed;
        let fresh = || Peer { node, slices: BTreeMap::new(), gone: None, begins: true };
        let known = self.peers.entry(peer).or_insert_with(fresh);
        (known.node, known.gone) = (node, None);
        if std::mem::take(&mut known.begins) {
            // What it had said before and says again is not news.
            let all: BTreeSet<_> = added.iter().copied().collect();
            known.slices.retain(|prefix, _| all.contains(prefix));
        }
        for prefix in added {
            known.slices.entry(prefix).or_insert(self.said);
        }
        for prefix in removed {
            known.slices.remove(&prefix);
        }
    }

    /// Another agent is gone; what it said stays for now.
    pub(super) fn part(&mut self, peer: usize, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.begins = true;
            peer.gone.get_or_insert(now);
        }
    }

    /// Forgets agents that are gone since `before`.
    pub(super) fn forget(&mut self, before: Instant) {
        self.peers.retain(|_, peer| peer.gone.is_none_or(|since| since > before));
    }

    pub(super) fn next_to_forget(&self, linger: Duration) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.gone).min().map(|gone| gone + linger)
    }

    /// How many agents are there.
    pub(super) fn nodes(&self) -> usize {
        self.peers.values().filter(|peer| peer.gone.is_none()).count()
    }

    /// Where each slice is: of what overlaps, what was said later.
    pub(super) fn slices(&self, hops: &BTreeMap<Ipv6Addr, Hop>) -> BTreeMap<Ipv6Net, Hop> {
        let mut said: Vec<(Ipv6Net, u64, Ipv6Addr)> = Vec::new();
        for peer in self.peers.values() {
            said.extend(peer.slices.iter().map(|(prefix, when)| (*prefix, *when, peer.node)));
        }
        // Larger blocks first, so that what overrules a slice stands before it; of equal ones the later is last.
        said.sort_by_key(|(prefix, when, _)| (prefix.network(), prefix.prefix_len(), *when));
        let mut slices = BTreeMap::new();
        let mut around: Vec<(Ipv6Net, u64, Ipv6Addr)> = Vec::new();
        for (prefix, when, node) in said {
            around.retain(|(larger, _, _)| larger.contains(&prefix));
            let overruled = around.iter().any(|(_, later, other)| *later > when && *other != node);
            if !overruled && let Some(hop) = hops.get(&node) {
                slices.insert(prefix, *hop);
            }
            around.push((prefix, when, node));
        }
        slices
    }
}

/// For people.
pub(super) fn picture(atlas: &Atlas) -> serde_json::Value {
    let peers = atlas
        .peers
        .values()
        .map(|peer| serde_json::json!({ "node": peer.node, "slices": peer.slices.len(), "gone": peer.gone.is_some() }));
    peers.collect()
}

/// Begins to tell, and to call all others.
pub(super) fn start(
    mesh: &Mesh,
    own: Ipv6Addr,
    announced: &watch::Receiver<BTreeSet<Ipv6Net>>,
    keeper: &mpsc::Sender<Heard>,
) -> anyhow::Result<()> {
    let server = ServerTls::from_files(&mesh.certificate, &mesh.key, &[PROTOCOL])?;
    let client = client(&mesh.ca)?;
    let listener = listen::tcp(mesh.listen).with_context(|| format!("cannot listen on {}", mesh.listen))?;
    tracing::info!(mesh = %listener.local_addr()?, nodes = mesh.nodes.len(), "telling other agents");
    tokio::spawn(serve(listener, server, own, announced.clone()));
    for (peer, node) in mesh.nodes.iter().enumerate() {
        tokio::spawn(follow(peer, node.clone(), client.clone(), keeper.clone()));
    }
    Ok(())
}

fn client(ca: &Path) -> anyhow::Result<ClientTls> {
    Ok(ClientTls::from_file(ca)?)
}

async fn serve(listener: TcpListener, tls: ServerTls, own: Ipv6Addr, announced: watch::Receiver<BTreeSet<Ipv6Net>>) {
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let (tls, announced) = (tls.clone(), announced.clone());
                tokio::spawn(async move {
                    let ended = tell(tcp, &tls, own, announced).await;
                    tracing::debug!(%from, "another agent has gone: {ended}");
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept other agents: {error}");
                tokio::time::sleep(CALL_AGAIN).await;
            }
        }
    }
}

/// Tells one other agent, until it has gone.
async fn tell(
    tcp: TcpStream,
    tls: &ServerTls,
    own: Ipv6Addr,
    mut announced: watch::Receiver<BTreeSet<Ipv6Net>>,
) -> AgentError {
    let handshake = async {
        match first_octets(tcp).await {
            Ok(First::Tls(hello)) if hello.offers(PROTOCOL) => tls.accept(hello, PROTOCOL).await.ok(),
            Ok(_) | Err(_) => None,
        }
    };
    let Ok(Some(stream)) = timeout(PATIENCE, handshake).await else { return AgentError::HungUp };
    let (_lines, mut pen) = converse(stream);
    let mut told = BTreeSet::new();
    loop {
        let now = announced.borrow_and_update().clone();
        let added = now.difference(&told).copied().collect();
        let removed = told.difference(&now).copied().collect();
        let message = Routed { version: VERSION, node: own, added, removed };
        match timeout(PATIENCE, pen.send(&message)).await {
            Ok(Ok(())) => told = now,
            Ok(Err(error)) => return error,
            Err(_) => return AgentError::HungUp,
        }
        if let Ok(Err(_)) = timeout(HEARTBEAT, announced.changed()).await {
            return AgentError::HungUp;
        }
    }
}

/// Calls one other agent over and over, and passes on what it says.
async fn follow(peer: usize, node: MeshNode, tls: ClientTls, keeper: mpsc::Sender<Heard>) {
    let mut known = false;
    loop {
        let error = hear(peer, &node, &tls, &keeper, &mut known).await;
        if std::mem::take(&mut known) {
            tracing::warn!(node = %node.name, "another agent is gone, its slices stay for now: {error:#}");
            if keeper.send(Heard::Parted { peer }).await.is_err() {
                return;
            }
        } else {
            tracing::debug!(node = %node.name, "cannot hear another agent: {error:#}");
        }
        tokio::time::sleep(CALL_AGAIN).await;
    }
}

/// One conversation, to its end.
async fn hear(
    peer: usize,
    node: &MeshNode,
    tls: &ClientTls,
    keeper: &mpsc::Sender<Heard>,
    known: &mut bool,
) -> anyhow::Error {
    let connected = async {
        let tcp = connect::tcp(node.address, None, Instant::now() + PATIENCE).await?;
        let stream = timeout(PATIENCE, tls.connect(tcp, &node.name, PROTOCOL)).await??;
        anyhow::Ok(stream)
    };
    let stream = match connected.await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let (mut lines, _pen) = converse(stream);
    loop {
        let routed = match timeout(SILENCE, lines.next::<Routed>()).await {
            Ok(Ok(routed)) => routed,
            Ok(Err(error)) => return error.into(),
            Err(_) => return anyhow::anyhow!("it has been silent for {} s", SILENCE.as_secs()),
        };
        if routed.version > VERSION {
            return anyhow::anyhow!("it speaks version {}, and this agent knows {VERSION} alone", routed.version);
        }
        *known = true;
        if keeper.send(Heard::Routed { peer, routed }).await.is_err() {
            return anyhow::anyhow!("the agent ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn node(number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, number)
    }

    fn said(number: u16, added: &[&str], removed: &[&str]) -> Routed {
        let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect();
        Routed { version: VERSION, node: node(number), added: nets(added), removed: nets(removed) }
    }

    /// The last digits of the nodes that have each slice.
    fn owners(atlas: &Atlas) -> Vec<(String, u16)> {
        let hops = [1, 2].map(|number| (node(number), Hop::Direct(node(number)))).into();
        let number = |hop: &Hop| match hop {
            Hop::Direct(node) | Hop::Through(node) => node.segments()[7],
        };
        atlas.slices(&hops).iter().map(|(prefix, hop)| (prefix.to_string(), number(hop))).collect()
    }

    const WHOLE: &str = "2001:db8:5::/64";
    const LOW: &str = "2001:db8:5::/65";
    const HIGH: &str = "2001:db8:5:0:8000::/65";

    #[test]
    fn a_slice_that_two_claim_is_the_later_one_s_also_when_the_earlier_one_has_it_in_pieces() {
        let mut atlas = Atlas::default();
        atlas.learn(1, said(1, &[LOW, HIGH], &[]));
        atlas.learn(2, said(2, &[WHOLE], &[]));
        assert_eq!(owners(&atlas), [(WHOLE.to_owned(), 2)]);
        atlas.learn(1, said(1, &[], &[LOW, HIGH]));
        assert_eq!(owners(&atlas), [(WHOLE.to_owned(), 2)]);
        // A smaller block that is later stands inside the larger one.
        atlas.learn(1, said(1, &[HIGH], &[]));
        assert_eq!(owners(&atlas), [(WHOLE.to_owned(), 2), (HIGH.to_owned(), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_comes_back_takes_nothing_from_who_came_meanwhile() {
        let mut atlas = Atlas::default();
        atlas.learn(1, said(1, &[LOW, HIGH], &[]));
        atlas.learn(2, said(2, &[HIGH], &[]));
        atlas.part(1, Instant::now());
        assert_eq!(owners(&atlas), [(LOW.to_owned(), 1), (HIGH.to_owned(), 2)]);
        atlas.learn(1, said(1, &[HIGH], &[]));
        assert_eq!(owners(&atlas), [(HIGH.to_owned(), 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_agent_said_stays_for_a_while_when_it_is_gone() {
        let mut atlas = Atlas::default();
        atlas.learn(1, said(1, &[LOW], &[]));
        let parted = Instant::now();
        atlas.part(1, parted);
        assert_eq!(atlas.next_to_forget(Duration::from_secs(10)), Some(parted + Duration::from_secs(10)));
        atlas.forget(parted - Duration::from_millis(1));
        assert_eq!((owners(&atlas).len(), atlas.nodes()), (1, 0));
        atlas.forget(parted);
        assert_eq!(owners(&atlas), []);
    }
}
