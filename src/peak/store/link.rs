//! Connections to other nodes: one for each lane, made when it is first needed and again when it has broken.
//!
//! ```text
//! frame: length u32, number u64, octets        the first on each side: Hello │ Welcome, number 0
//! ```
//!
//! Many questions are on their way at once; an answer has the number of its question. What waits to be written goes out
//! together. With TLS, each side proves the cluster's name by a certificate of the cluster's own authority; without, a
//! node listens on loopback alone.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::message::{Answer, Ask, Lane, Network, Tell, Unreached};
use super::types::NodeId;
use crate::model::Name;
use crate::model::registry::SCHEMA;
use crate::net::tls::{ClientTls, NoHostName, ServerTls, TlsFileError, host_name};
use crate::net::vanished::give_up_after;

/// The protocol's name in TLS (RFC 7301).
pub(super) const PROTOCOL: &str = "funicular-raft/1";
/// How long a connection and its handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_millis(1_500);
/// How long what was sent may go without the other end's system having it.
const SILENT: Duration = Duration::from_secs(2);
/// The most octets of a frame: an entry with a whole zone.
const LONGEST: usize = 256 << 20;
/// Octets that are written together.
const TOGETHER: usize = 256 << 10;

/// What a connection begins with, from who made it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    /// 0 from a node that belongs to none.
    pub(super) cluster: u128,
    pub(super) node: NodeId,
    pub(super) lane: Lane,
    pub(super) schema: u8,
}

/// What it is answered.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Welcome {
    /// Whether the two may talk.
    pub(super) taken: bool,
    pub(super) schema: u8,
}

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How nodes prove to each other that they belong together. Clones share what was read from the files last.
#[derive(Clone)]
pub struct Security {
    files: Arc<[PathBuf; 3]>,
    proofs: Arc<ArcSwap<Proofs>>,
    /// The name that every node's certificate proves.
    pub(super) name: Name,
    pub(super) host: String,
}

/// What a node proves itself with, and by which it believes others.
pub(super) struct Proofs {
    pub(super) client: ClientTls,
    pub(super) server: ServerTls,
}

impl Proofs {
    fn read([authorities, certificate, key]: &[PathBuf; 3]) -> Result<Self, TlsFileError> {
        Ok(Self {
            client: ClientTls::with_identity(authorities, certificate, key)?,
            server: ServerTls::for_proven(authorities, certificate, key, &[PROTOCOL])?,
        })
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why nodes cannot prove anything to each other.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file does not serve.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// The cluster's name cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NoHostName),
}

impl Security {
    /// Nodes that have certificates for `name` by the authorities in a file that serves nothing else.
    ///
    /// # Errors
    /// What is wrong with the files or the name.
    pub fn from_files(authorities: &Path, certificate: &Path, key: &Path, name: Name) -> Result<Self, SecurityError> {
        let files = [authorities, certificate, key].map(Path::to_owned);
        let proofs = Arc::new(ArcSwap::from_pointee(Proofs::read(&files)?));
        Ok(Self { files: Arc::new(files), proofs, host: host_name(&name)?, name })
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// What is wrong with them; then those read before still count.
    pub fn reload(&self) -> Result<(), SecurityError> {
        self.proofs.store(Arc::new(Proofs::read(&self.files)?));
        Ok(())
    }

    pub(super) fn proofs(&self) -> Arc<Proofs> {
        self.proofs.load_full()
    }
}

/// The connections of a node to all others. Clones share them.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    security: Option<Security>,
    /// Who asks: the node, once it knows, and its cluster.
    node: AtomicU64,
    cluster: Arc<Mutex<u128>>,
    slots: Mutex<HashMap<(Box<str>, Lane), Slot>>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

/// What there is of a connection.
enum Slot {
    Open(Arc<Connection>),
    /// Being made; all who want it wait for the same.
    Making(watch::Receiver<Option<Made>>),
}

/// A connection, or why there is none.
type Made = Result<Arc<Connection>, Box<str>>;

struct Connection {
    next: AtomicU64,
    outgoing: mpsc::UnboundedSender<(u64, Vec<u8>)>,
    /// Who waits for which answer; none once the connection has broken.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Vec<u8>>>>>,
}

impl Links {
    /// No connection yet. `cluster` is shared with the store, which knows the number.
    #[must_use]
    pub fn new(security: Option<Security>, cluster: Arc<Mutex<u128>>) -> Self {
        Self(Arc::new(Inner { security, node: AtomicU64::new(0), cluster, slots: Mutex::default() }))
    }

    /// Says who asks, from the next connection on.
    pub fn introduce(&self, node: NodeId) {
        self.0.node.store(node, Ordering::Relaxed);
    }

    fn connection(&self, address: &str, lane: Lane) -> watch::Receiver<Option<Made>> {
        let mut slots = self.0.slots.lock();
        let key = (Box::from(address), lane);
        match slots.get(&key) {
            Some(Slot::Open(open)) if open.waiting.lock().is_some() => {
                return watch::channel(Some(Ok(Arc::clone(open)))).1;
            }
            Some(Slot::Making(made)) => return made.clone(),
            Some(Slot::Open(_)) | None => {}
        }
        let (sender, made) = watch::channel(None);
        slots.insert(key.clone(), Slot::Making(made.clone()));
        let inner = Arc::clone(&self.0);
        // On a task of its own: who asks may give up before the connection is there, and the next shall find it.
        tokio::spawn(async move {
            let late = || Err(Box::from("no connection in time"));
            let connected = timeout(HANDSHAKE, inner.connect(&key.0, lane)).await.unwrap_or_else(|_| late());
            let mut slots = inner.slots.lock();
            match &connected {
                Ok(open) => slots.insert(key, Slot::Open(Arc::clone(open))),
                Err(_) => slots.remove(&key),
            };
            sender.send_replace(Some(connected));
        });
        made
    }
}

impl Inner {
    async fn connect(&self, address: &str, lane: Lane) -> Made {
        let text = |error: &dyn fmt::Display| Box::from(error.to_string());
        let tcp = TcpStream::connect(address).await.map_err(|error| text(&error))?;
        prepare(&tcp).map_err(|error| text(&error))?;
        let mut stream: Box<dyn Stream> = match &self.security {
            Some(security) => {
                let connected = security.proofs().client.connect(tcp, &security.name, PROTOCOL).await;
                Box::new(connected.map_err(|error| text(&error))?)
            }
            None => Box::new(tcp),
        };
        let cluster = *self.cluster.lock();
        let hello = Hello { cluster, node: self.node.load(Ordering::Relaxed), lane, schema: SCHEMA };
        write_frame(&mut stream, 0, &hello).await.map_err(|error| text(&error))?;
        let (_, octets) = read_frame(&mut stream).await.map_err(|error| text(&error))?;
        match postcard::from_bytes(&octets) {
            Ok(Welcome { taken: true, .. }) => Ok(carry(stream)),
            Ok(Welcome { taken: false, .. }) => Err("it is a node of another cluster".into()),
            Err(_) => Err("it is no node".into()),
        }
    }
}

/// Small messages go out at once, and a connection whose other end is silent is given up: after a partition a new one is
/// sooner there than the old one.
pub(super) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    give_up_after(tcp, SILENT)
}

/// Reads and writes a connection from now on.
fn carry(stream: Box<dyn Stream>) -> Arc<Connection> {
    let (mut reading, writing) = tokio::io::split(stream);
    let (outgoing, queue) = mpsc::unbounded_channel();
    let connection =
        Arc::new(Connection { next: AtomicU64::new(1), outgoing, waiting: Mutex::new(Some(HashMap::new())) });
    tokio::spawn(write_all(writing, queue));
    let reader = Arc::clone(&connection);
    tokio::spawn(async move {
        while let Ok((number, octets)) = read_frame(&mut reading).await {
            let waiting = reader.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
            if let Some(waiting) = waiting {
                // Who has given up is not told.
                drop(waiting.send(octets));
            }
        }
        *reader.waiting.lock() = None;
    });
    connection
}

/// Writes frames as they come, those that wait together.
pub(super) async fn write_all(
    mut writing: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<(u64, Vec<u8>)>,
) {
    let mut buffer = Vec::new();
    while let Some((number, octets)) = queue.recv().await {
        buffer.clear();
        append_frame(&mut buffer, number, &octets);
        while buffer.len() < TOGETHER
            && let Ok((number, octets)) = queue.try_recv()
        {
            append_frame(&mut buffer, number, &octets);
        }
        if writing.write_all(&buffer).await.is_err() || writing.flush().await.is_err() {
            return;
        }
    }
    // The peer may have gone before us.
    drop(writing.shutdown().await);
}

fn append_frame(buffer: &mut Vec<u8>, number: u64, octets: &[u8]) {
    buffer.extend_from_slice(&(octets.len() as u32).to_be_bytes());
    buffer.extend_from_slice(&number.to_be_bytes());
    buffer.extend_from_slice(octets);
}

/// Writes one frame at once.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    number: u64,
    body: &impl Serialize,
) -> io::Result<()> {
    let octets = postcard::to_stdvec(body).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(12 + octets.len());
    append_frame(&mut frame, number, &octets);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one frame.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u64, Vec<u8>)> {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let (length, number) = head.split_at(4);
    let number = number.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
    let length = length.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets)) as usize;
    if length > LONGEST {
        return Err(io::Error::other("a frame is longer than any node sends"));
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets).await?;
    Ok((number, octets))
}

impl Connection {
    async fn ask(&self, octets: Vec<u8>) -> Option<Tell> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().as_mut()?.insert(number, answer);
        // Who asks may give up: then nobody waits for this answer.
        let _forget = Forget { connection: self, number };
        self.outgoing.send((number, octets)).ok()?;
        postcard::from_bytes(&answered.await.ok()?).ok()
    }
}

struct Forget<'c> {
    connection: &'c Connection,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.connection.waiting.lock().as_mut() {
            waiting.remove(&self.number);
        }
    }
}

impl Network for Links {
    fn ask<'a>(&'a self, address: &'a str, lane: Lane, ask: Ask, within: Duration) -> Answer<'a> {
        Box::pin(async move {
            let refused = |cause: Box<str>| Unreached::Refused { address: address.into(), cause };
            let asked = async {
                let mut made = self.connection(address, lane);
                let connection = match made.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Ok(open))) => Arc::clone(open),
                    Ok(Some(Err(cause))) => return Err(refused(cause.clone())),
                    Ok(None) | Err(_) => return Err(refused("the connection was given up".into())),
                };
                let octets = postcard::to_stdvec(&ask).map_err(|error| refused(error.to_string().into()))?;
                // A connection that breaks says nothing of what became of the question, nor of the node.
                let late = || Unreached::Late { address: address.into(), waited: within };
                connection.ask(octets).await.ok_or_else(late)
            };
            let late = || Unreached::Late { address: address.into(), waited: within };
            timeout(within, asked).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
