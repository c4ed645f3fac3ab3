//! Callers that know one address, the stand-in that their sidecar gave for a name, and nothing else: HTTP requests of a
//! connection each at a steady rate.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use funicular::net::namespace::NetNs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bed::until;
use super::town::{PORT, SERVICE};

/// How long one request may take. Whoever waits longer counts it as failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// One request: when it began and ended, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) answer: Result<String, String>,
}

/// What callers have asked, and what came of it.
pub(crate) struct Heard(pub(crate) Vec<Asked>);

impl Heard {
    /// Nothing failed, except what was under way during one of these: what a pod had in hand when it died, or was sent while
    /// it was cut off and nobody could know, is lost with it.
    pub(crate) fn assert_whole(&self, deaths: &[RangeInclusive<Instant>]) {
        let meets = |asked: &Asked, death: &RangeInclusive<Instant>| {
            asked.began <= *death.end() && *death.start() <= asked.ended
        };
        let in_hand = |asked: &&Asked| deaths.iter().any(|death| meets(asked, death));
        let (lost, strange): (Vec<_>, Vec<_>) = self.0.iter().filter(|asked| asked.answer.is_err()).partition(in_hand);
        let slowest = self.0.iter().map(|asked| asked.ended - asked.began).max().unwrap_or_default();
        eprintln!(
            "{} requests, {} lost in the hands of pods that died, {} failed; the slowest took {slowest:?}",
            self.0.len(),
            lost.len(),
            strange.len()
        );
        let since = |at: Instant| self.0.first().map_or(Duration::ZERO, |first| at - first.began);
        let first = strange.iter().take(8).map(|asked| (since(asked.began), since(asked.ended), &asked.answer));
        assert!(strange.is_empty(), "{} failed: {:#?}", strange.len(), first.collect::<Vec<_>>());
    }
}

/// Callers at work.
pub(crate) struct Callers {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Callers {
    /// Begins, with so many requests a second.
    pub(crate) fn start(namespace: NetNs, stand_in: Ipv6Addr, rate: u32) -> Self {
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let (of_thread, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let work = move || {
            namespace.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
                let mut tasks = tokio::task::JoinSet::new();
                while !stopped.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let asked = Arc::clone(&of_thread);
                    tasks.spawn(async move {
                        let began = Instant::now();
                        let answer = get(stand_in).await.map_err(|error| error.to_string());
                        asked.lock().unwrap().push(Asked { began, ended: Instant::now(), answer });
                    });
                    while tasks.try_join_next().is_some() {}
                }
                while tasks.join_next().await.is_some() {}
            });
        };
        Self { asked, stop, thread: Some(std::thread::spawn(work)) }
    }

    /// Waits until so many more have been answered, or have failed.
    pub(crate) async fn pass(&self, more: usize) {
        let before = self.asked.lock().unwrap().len();
        until("requests", || self.asked.lock().unwrap().len() >= before + more).await;
    }

    /// Waits until so many pods have answered from now on.
    pub(crate) async fn hear_from(&self, pods: usize) {
        let before = self.asked.lock().unwrap().len();
        let answered = || {
            let asked = self.asked.lock().unwrap();
            let names = asked[before..].iter().filter_map(|asked| asked.answer.as_deref().ok());
            names.collect::<BTreeSet<_>>().len()
        };
        until("answers of all pods", || answered() >= pods).await;
    }

    /// Lets everything under way finish.
    pub(crate) fn finish(mut self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        Heard(self.asked.lock().unwrap().clone())
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn get(stand_in: Ipv6Addr) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect((stand_in, PORT)).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {SERVICE}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim().to_owned()),
            Some(_) | None => Err(std::io::Error::other(format!("not an answer: {answer:?}"))),
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}
