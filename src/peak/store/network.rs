//! How openraft reaches the other nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable as Away,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::{AnyError, OptionalSend};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::disk::aside;
use super::lease::Lease;
use super::message::{Ask, Lane, Network, No, Tell, Unreached};
use super::types::{
    AppendRequest, AppendResponse, LogId, NodeId, Peer, Snapshot, SnapshotResponse, TypeConfig, Vote, VoteRequest,
    VoteResponse,
};

/// Octets of a snapshot in one message.
const PART: usize = 1 << 20;
/// How long one part of a snapshot may take, the last one with its installation.
const PART_TIME: Duration = Duration::from_secs(60);
/// How long entries may be on their way.
const ENTRIES: Duration = Duration::from_secs(30);
/// How long nobody is asked who could not be reached.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a line to each node.
#[derive(Clone)]
pub(super) struct Lines {
    pub(super) network: Arc<dyn Network>,
    pub(super) lease: Arc<Lease>,
}

/// The line to one node.
pub(super) struct Line {
    lines: Lines,
    node: NodeId,
    address: String,
    /// Entries on their way.
    sent: Option<Sent>,
}

/// Entries that are on their way. openraft gives a message up after one heartbeat, and asks for the same entries again;
/// a large one, or one for a slow disk, would be sent over and over. So it goes on, and who asks again waits for it.
struct Sent {
    vote: Vote,
    prev: Option<LogId>,
    last: LogId,
    asked: Instant,
    answer: JoinHandle<Result<Tell, Unreached>>,
}

impl RaftNetworkFactory<TypeConfig> for Lines {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Line {
        Line { lines: self.clone(), node: target, address: peer.address.clone(), sent: None }
    }
}

impl Line {
    async fn ask(&self, lane: Lane, ask: Ask, within: Duration) -> Result<Tell, Failed> {
        told(self.lines.network.ask(&self.address, lane, self.to(ask), within).await)
    }

    fn to(&self, ask: Ask) -> Ask {
        Ask::To { node: self.node, ask: Box::new(ask) }
    }

    /// The answer to entries or to a heartbeat that were asked for at `asked`.
    fn appended(&self, told: Tell, vote: Vote, asked: Instant) -> Option<AppendResponse> {
        let Tell::Append(response) = told else { return None };
        if matches!(response, AppendResponse::Success | AppendResponse::PartialSuccess(_)) {
            self.lines.lease.acknowledged(vote, self.node, asked);
        }
        Some(response)
    }
}

fn told(answer: Result<Tell, Unreached>) -> Result<Tell, Failed> {
    match answer {
        Ok(Tell::No(no)) => Err(Failed::No(no)),
        Ok(tell) => Ok(tell),
        Err(unreached) => Err(Failed::Away(Away::new(&unreached))),
    }
}

enum Failed {
    Away(Away),
    No(No),
}

impl Failed {
    fn rpc<E: std::error::Error>(self) -> RPCError<NodeId, Peer, E> {
        match self {
            Self::Away(away) => RPCError::Unreachable(away),
            Self::No(no) => RPCError::Network(NetworkError::new(&no)),
        }
    }
}

fn strange<E: std::error::Error>() -> RPCError<NodeId, Peer, E> {
    RPCError::Network(NetworkError::from(AnyError::error("an answer to another question")))
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<NodeId, Peer, RaftError<NodeId>>> {
        self.lines.lease.acts();
        let (vote, prev, now) = (request.vote, request.prev_log_id, Instant::now());
        let Some(last) = request.entries.last().map(|entry| entry.log_id) else {
            let answer = self.ask(Lane::Log, Ask::Append(request), option.hard_ttl()).await;
            return self.appended(answer.map_err(Failed::rpc)?, vote, now).ok_or_else(strange);
        };
        if self.sent.as_ref().is_none_or(|sent| (sent.vote, sent.prev) != (vote, prev)) {
            let (network, address) = (Arc::clone(&self.lines.network), self.address.clone());
            let ask = self.to(Ask::Append(request));
            let ask = async move { network.ask(&address, Lane::Log, ask, ENTRIES).await };
            self.sent = Some(Sent { vote, prev, last, asked: now, answer: tokio::spawn(ask) });
        }
        let Some(sent) = &mut self.sent else { return Err(strange()) };
        let answer = (&mut sent.answer).await;
        let (asked, sent_last) = (sent.asked, sent.last);
        self.sent = None;
        let told = match answer {
            Ok(answer) => told(answer).map_err(Failed::rpc)?,
            Err(_) => return Err(strange()),
        };
        match self.appended(told, vote, asked).ok_or_else(strange)? {
            // What was sent when it was asked for first may end elsewhere.
            AppendResponse::Success if sent_last != last => {
                Ok(AppendResponse::PartialSuccess(Some(last.min(sent_last))))
            }
            response @ (AppendResponse::Success
            | AppendResponse::PartialSuccess(_)
            | AppendResponse::Conflict
            | AppendResponse::HigherVote(_)) => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<NodeId, Peer, RaftError<NodeId>>> {
        match self.ask(Lane::Pulse, Ask::Vote(request), option.hard_ttl()).await {
            Ok(Tell::Vote(response)) => Ok(response),
            Ok(_) => Err(strange()),
            Err(failed) => Err(failed.rpc()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig, Fatal<NodeId>>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send(vote, snapshot) => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PAUSE))
    }
}

impl Line {
    async fn send(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let away = |error: &std::io::Error| StreamingError::Unreachable(Away::new(error));
        let file = snapshot.snapshot.file;
        let length = file.len().map_err(|error| away(&error))?;
        let mut at = 0;
        loop {
            let mut octets = vec![0; PART.min((length - at) as usize)];
            aside(|| file.read(at, &mut octets)).map_err(|error| away(&error))?;
            let last = at + octets.len() as u64 == length;
            let part = Ask::Snapshot { vote, meta: snapshot.meta.clone(), at, octets: octets.into_boxed_slice(), last };
            match self.ask(Lane::Bulk, part, PART_TIME).await {
                Ok(Tell::Snapshot(Some(response))) => return Ok(response),
                Ok(Tell::Snapshot(None)) if !last => at += PART as u64,
                Ok(_) => return Err(StreamingError::Network(NetworkError::from(AnyError::error("a strange answer")))),
                Err(Failed::Away(away)) => return Err(StreamingError::Unreachable(away)),
                Err(Failed::No(no)) => return Err(StreamingError::Network(NetworkError::new(&no))),
            }
        }
    }
}
