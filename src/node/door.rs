//! The unix socket: who may claim, and for which pod.
//!
//! The kernel says which process is at the other end (SO_PEERCRED); the process's network namespace is the pod, and the
//! pod's address is what the namespace has and the node has a link to. So a sidecar can claim for its own pod alone,
//! whatever it says.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::heard::{Heard, Joined};
use super::metrics::NodeMetrics;
use super::place::Node;
use super::pods::PodId;
use crate::config::node_agent::Pods as Allowed;
use crate::net::agent::{AgentError, Lines, Pen, converse};
use crate::net::namespace::NetNs;
use crate::net::routes::{Family, LOOPBACK, Netlink, RouteError};
use crate::ops::metrics::Reason;
use crate::wire::agent::{BadClaim, Claim, Report, State, VERSION, Welcome};
use ipnet::{IpNet, Ipv6Net};

/// Why a sidecar, or its claim, is not heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("user {0} is none of those that sidecars run as: pods.users")]
    User(u32),
    #[error("its control group {0} is not where pods are: pods.cgroup")]
    ControlGroup(String),
    #[error("the kernel does not say which process it is, or the process has gone: {0}")]
    Unknown(io::Error),
    #[error("it is in the node's own network, and no pod")]
    NoPod,
    #[error("the pod's network cannot be looked at: {0}")]
    Network(#[from] RouteError),
    #[error("no address of the pod is on a link of this node: {0:?}")]
    NotHere(Vec<Ipv6Addr>),
    #[error("{0} is none of the spaces that this node routes: spaces")]
    Space(Ipv6Net),
    #[error(transparent)]
    Claim(#[from] BadClaim),
}

impl Turned {
    /// A stable word for reports, metrics and the log.
    fn reason(&self) -> &'static str {
        match self {
            Self::User(_) => "user-not-allowed",
            Self::ControlGroup(_) => "cgroup-not-allowed",
            Self::Unknown(_) => "process-unknown",
            Self::NoPod => "no-pod",
            Self::Network(_) => "network-unreadable",
            Self::NotHere(_) => "pod-not-here",
            Self::Space(_) => "space-not-allowed",
            Self::Claim(bad) => bad.reason(),
        }
    }
}

/// Opens the socket, in place of an earlier agent's. Whoever may enter the folder may speak; who is heard is decided
/// for each.
pub(super) fn open(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// What every conversation needs.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) allowed: Allowed,
    pub(super) node: Node,
    pub(super) netlink: Netlink,
    pub(super) keeper: mpsc::Sender<Heard>,
    pub(super) metrics: NodeMetrics,
}

impl Door {
    /// Lets sidecars in until the process ends.
    pub(super) async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = self.clone();
                    tokio::spawn(async move { door.converse(stream).await });
                }
                Err(error) => {
                    tracing::warn!("cannot accept sidecars: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(&self, stream: UnixStream) {
        let (id, address, device) = match self.recognise(&stream).await {
            Ok(pod) => pod,
            Err(turned) => return self.turn(&turned),
        };
        let (reports, mut to_tell) = mpsc::unbounded_channel();
        let (tell, connection) = tokio::sync::oneshot::channel();
        let joined = Joined { id, address, device, reports: reports.clone(), connection: tell };
        // The keeper lives as long as the agent.
        let _ = self.keeper.send(Heard::Joined(joined)).await;
        let Ok(connection) = connection.await else { return };
        let (mut lines, mut pen) = converse(stream);
        let welcome = Welcome { version: VERSION, node: self.node.address, pod: address };
        let ended = match pen.send(&welcome).await {
            Ok(()) => self.listen(id, connection, &mut lines, &mut pen, &mut to_tell, &reports).await,
            Err(error) => error,
        };
        tracing::debug!(pod = %address, "sidecar gone: {ended}");
        let _ = self.keeper.send(Heard::Left { id, connection }).await;
    }

    /// Hears claims and tells what becomes of them, to the end of the conversation.
    async fn listen(
        &self,
        id: PodId,
        connection: u64,
        lines: &mut Lines<ReadHalf<UnixStream>>,
        pen: &mut Pen<WriteHalf<UnixStream>>,
        to_tell: &mut mpsc::UnboundedReceiver<Report>,
        reports: &mpsc::UnboundedSender<Report>,
    ) -> AgentError {
        loop {
            let done = tokio::select! {
                report = to_tell.recv() => match report {
                    Some(report) => pen.send(&report).await,
                    None => return AgentError::HungUp,
                },
                claim = lines.next::<Claim>() => match claim {
                    Ok(claim) => {
                        match self.judge(&claim) {
                            Ok(()) => {
                                let _ = self.keeper.send(Heard::Claimed { id, connection, claim }).await;
                            }
                            Err(turned) => {
                                self.turn(&turned);
                                let (reason, text) = (turned.reason().to_owned(), turned.to_string());
                                let state = State::Refused { reason, text };
                                let _ = reports.send(Report { number: claim.number, state });
                            }
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn turn(&self, turned: &Turned) {
        self.metrics.refusals.with(&Reason(turned.reason())).increment();
        tracing::warn!(reason = turned.reason(), "a sidecar is not heard: {turned}");
    }

    /// Whether a claim may be followed, whatever else is claimed.
    fn judge(&self, claim: &Claim) -> Result<(), Turned> {
        claim.check()?;
        let strange = |space: &&Ipv6Net| !self.node.spaces.iter().any(|ours| ours.contains(*space));
        match claim.spaces.iter().map(|space| &space.space).find(strange) {
            Some(space) => Err(Turned::Space(*space)),
            None => Ok(()),
        }
    }

    /// Which pod is at the other end: its namespace, its address and the device that leads to it.
    async fn recognise(&self, stream: &UnixStream) -> Result<(PodId, Ipv6Addr, String), Turned> {
        let peer = stream.peer_cred().map_err(Turned::Unknown)?;
        if !self.allowed.users.contains(&peer.uid()) {
            return Err(Turned::User(peer.uid()));
        }
        let unknown = || Turned::Unknown(io::ErrorKind::NotFound.into());
        let process = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0).ok_or_else(unknown)?;
        if let Some(part) = &self.allowed.cgroup {
            let group = fs::read_to_string(format!("/proc/{process}/cgroup")).map_err(Turned::Unknown)?;
            if !group.lines().any(|line| line.contains(part.as_str())) {
                return Err(Turned::ControlGroup(group.trim_end().to_owned()));
            }
        }
        let network = NetNs::of_process(process).map_err(Turned::Unknown)?;
        let (id, own) = (network.id(), NetNs::current().and_then(|own| own.id()));
        let (id, own) = (id.map_err(Turned::Unknown)?, own.map_err(Turned::Unknown)?);
        if id == own {
            return Err(Turned::NoPod);
        }
        let addresses = addresses(&network).await?;
        for address in &addresses {
            if let Some((link, None)) = self.netlink.way_to(IpAddr::V6(*address)).await? {
                return Ok((id, *address, link.name));
            }
        }
        Err(Turned::NotHere(addresses))
    }
}

/// The addresses of a pod that others may know it by.
async fn addresses(network: &NetNs) -> Result<Vec<Ipv6Addr>, RouteError> {
    let inside = Netlink::inside(network)?;
    let mut found = Vec::new();
    for link in inside.links().await?.iter().filter(|link| link.name != LOOPBACK && link.up) {
        let addresses = inside.addresses(&link.name).await?;
        let known_by = addresses.iter().filter(|address| Family::of(address) == Family::V6).filter_map(global);
        found.extend(known_by);
    }
    Ok(found)
}

fn global(address: &IpNet) -> Option<Ipv6Addr> {
    match address {
        IpNet::V6(address) => Some(address.addr()).filter(|address| !address.is_unicast_link_local()),
        IpNet::V4(_) => None,
    }
}
