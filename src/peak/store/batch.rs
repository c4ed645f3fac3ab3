//! Many commands, one entry: what waits while an entry is on its way to the disks shares the next one. One at a time, so that
//! as many as wait share what an entry costs three nodes.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::message::No;
use super::types::{Batch, LogId, Raft};
use crate::model::UnixMillis;
use crate::model::registry::Reply;

/// Commands in one entry at most.
const TOGETHER: usize = 4096;
/// Octets in one entry, about.
const OCTETS: usize = 1 << 20;
/// Commands that may wait; one more waits to wait.
const WAITING: usize = 1 << 16;

/// A command's reply, and the entry that it was in.
pub(super) type Done = (Reply, LogId);

/// A command's octets, and who waits for its reply.
type Waiting = (Box<[u8]>, oneshot::Sender<Result<Done, No>>);

/// The way into the log. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Batcher(mpsc::Sender<Waiting>);

impl Batcher {
    /// Starts the task that makes entries; it ends when all clones are gone. `clock` is the wall clock.
    pub(super) fn start(raft: Raft, clock: fn() -> UnixMillis) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        tokio::spawn(make(raft, waiting, clock));
        Self(sender)
    }

    /// Puts the command into the log, and gives its reply once it is applied here.
    pub(super) async fn propose(&self, command: Box<[u8]>, within: Duration) -> Result<Done, No> {
        let (done, reply) = oneshot::channel();
        let proposed = async {
            self.0.send((command, done)).await.map_err(|_| No::Failed)?;
            reply.await.unwrap_or(Err(No::NotLeader))
        };
        // An entry whose fate is open when its leader is deposed has no reply: who waits asks the next leader again.
        tokio::time::timeout(within, proposed).await.unwrap_or(Err(No::NotLeader))
    }
}

async fn make(raft: Raft, mut waiting: mpsc::Receiver<Waiting>, clock: fn() -> UnixMillis) {
    let mut metrics = raft.metrics();
    while let Some(first) = waiting.recv().await {
        let mut octets = first.0.len();
        let mut together = vec![first];
        while together.len() < TOGETHER
            && octets < OCTETS
            && let Ok(next) = waiting.try_recv()
        {
            octets += next.0.len();
            together.push(next);
        }
        let batch = Batch::new(clock(), together.iter().map(|(command, _)| &**command));
        let (leader, term) = {
            let metrics = metrics.borrow_and_update();
            (metrics.current_leader, metrics.current_term)
        };
        let replies = match raft.client_write_ff(batch).await {
            Err(_) => Err(No::Failed),
            // What a deposed leader had begun may never be answered.
            Ok(answer) => tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(_)) | Err(_) => Err(No::NotLeader),
                },
                _ = metrics.wait_for(|now| (now.current_leader, now.current_term) != (leader, term)) => Err(No::NotLeader),
            },
        };
        match replies {
            Ok(response) => {
                for ((_, done), reply) in together.into_iter().zip(response.data) {
                    // Who has gone meanwhile will ask again.
                    drop(done.send(Ok((reply, response.log_id))));
                }
            }
            Err(no) => together.into_iter().for_each(|(_, done)| drop(done.send(Err(no)))),
        }
    }
}
