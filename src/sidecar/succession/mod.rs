//! One sidecar after another: a new program takes the place of the running one, and no call notices.
//!
//! ```text
//! SIGUSR2 ─▶ the program is started anew ══ sockets ══▶ it reads its files, learns its rules
//!                │                          ◀═ prepared ═╯
//!                ├─ takes nothing new ══ stand-ins ═════▶ it serves
//!                │                          ◀═ serving ══╯
//!                ╰─ what is under way finishes here
//! ```
//!
//! Listening sockets are given, not closed and bound again, so what waits in them is served by the one or the other. Until
//! the successor is prepared nothing has changed: where it is not, all goes on as before. Both speak over a socket pair
//! whose other end is the successor's standard input; each says lines of JSON.
//!
//! Whoever started the first sidecar still sees that one: it stays until its last successor ends ([`retire()`]).

mod estate;
mod heir;
mod predecessor;
mod retire;

pub(super) use estate::{Estate, datagrams, listener};
pub(super) use heir::{Heir, Program};
pub(super) use predecessor::Predecessor;
pub(super) use retire::{Office, retire};

use std::io;
use std::net::Ipv4Addr;

use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::model::Name;

/// Why no new program has taken the place of this one.
#[derive(Debug, thiserror::Error)]
pub(in crate::sidecar) enum SuccessionError {
    /// It cannot be started.
    #[error("{program} cannot be started: {cause}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// What is said between the two did not arrive; mostly because the other has ended.
    #[error("the other sidecar is gone or cannot be understood: {0}")]
    Said(#[from] io::Error),
    /// The new one was not prepared in time.
    #[error("it was not prepared within {0} s; its log says what it waited for")]
    Late(u64),
}

/// What the first says of the sockets that it has just given, in their order.
#[derive(Debug, Deserialize, Serialize)]
struct Given {
    sockets: Vec<estate::Described>,
    /// One more was given after them: the conversation with the very first sidecar.
    first: bool,
}

/// What is known that the successor cannot find out.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(in crate::sidecar) struct Known {
    /// Programs keep the addresses that they were given.
    pub(in crate::sidecar) stand_ins: Vec<(Name, Ipv4Addr)>,
}

/// What the successor says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// It could serve.
    Prepared,
    /// It serves.
    Serving {
        /// The number of its process.
        process: i32,
    },
}

impl Word {
    fn serving() -> Self {
        Self::Serving { process: rustix::process::getpid().as_raw_nonzero().get() }
    }

    fn process(&self) -> Option<Pid> {
        match self {
            Self::Prepared => None,
            Self::Serving { process } => Pid::from_raw(*process),
        }
    }
}

async fn say<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), word: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// The next word. Not cancel safe, except between words.
async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<T> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
