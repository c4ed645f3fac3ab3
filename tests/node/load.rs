//! Servers that answer with their name, and clients that count what they are answered: requests of a connection each
//! at a steady rate, and long connections with a request now and then.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use funicular::net::listen;
use funicular::net::namespace::NetNs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const PORT: u16 = 8080;
/// How long an answer may take. A connection whose packets went astray would wait for a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests on a long connection.
const PULSE: Duration = Duration::from_millis(50);
/// Every so manieth request on a long connection is larger than any packet.
const LARGE_EVERY: usize = 8;
const LARGE: usize = 4_000;

/// Answers every request in `namespace`, to whatever address, with `name`; ends with the test's process.
pub(crate) fn serve(namespace: &NetNs, name: &'static str) {
    let namespace = namespace.clone();
    let (ready, listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        namespace.enter().unwrap();
        runtime().block_on(async {
            let listener = listen::tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))).unwrap();
            ready.send(()).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream, name));
            }
        });
    });
    listening.recv().unwrap();
}

/// A request is its length, two octets, and as many octets more; the answer is the name and a newline.
async fn answer(mut stream: TcpStream, name: &'static str) {
    let _ = stream.set_nodelay(true);
    let mut octets = vec![0; LARGE];
    while let Ok(length) = stream.read_u16().await {
        let body = &mut octets[..usize::from(length)];
        if stream.read_exact(body).await.is_err() || stream.write_all(format!("{name}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn ask(stream: &mut TcpStream, length: usize) -> std::io::Result<String> {
    let mut request = vec![b'x'; 2 + length];
    request[..2].copy_from_slice(&(length as u16).to_be_bytes());
    let exchange = async {
        stream.write_all(&request).await?;
        let mut name = String::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => return Ok(name),
                octet => name.push(char::from(octet)),
            }
        }
    };
    timeout(PATIENCE, exchange).await.map_err(std::io::Error::from)?
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// Requests answered, by whom, since the last [`Load::turn_page`].
    pub(crate) answers: BTreeMap<String, usize>,
    /// Requests that were not answered, and why.
    pub(crate) failures: Vec<String>,
    /// How long requests took, connection included, since the last [`Load::turn_page`].
    pub(crate) took: Vec<Duration>,
    /// Requests in all.
    pub(crate) requests: usize,
    /// Long connections that ended, or were answered by somebody else than before.
    pub(crate) lost: Vec<String>,
    /// Requests answered on long connections, by whom.
    pub(crate) pulses: BTreeMap<String, usize>,
    /// Long connections that have had a first answer.
    pub(crate) long: usize,
}

impl Counted {
    /// Nothing failed and nothing was lost.
    pub(crate) fn assert_whole(&self) {
        let first: Vec<_> = self.failures.iter().chain(&self.lost).take(5).collect();
        let (failed, lost) = (self.failures.len(), self.lost.len());
        assert!(failed == 0 && lost == 0, "{failed} of {} failed, {lost} long ones lost: {first:?}", self.requests);
    }
}

/// Clients at work.
pub(crate) struct Load {
    counted: Arc<Mutex<Counted>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins: `rate` requests a second to addresses all over the space, and `long` long connections.
    pub(crate) fn start(namespace: &NetNs, space: ipnet::Ipv6Net, rate: u32, long: usize) -> Self {
        let (counted, stop) = (Arc::<Mutex<Counted>>::default(), Arc::new(AtomicBool::new(false)));
        let namespace = namespace.clone();
        let (of_thread, stopped) = (Arc::clone(&counted), Arc::clone(&stop));
        let work = move || {
            namespace.enter().unwrap();
            runtime().block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for number in 0..long {
                    // A prime step spreads them over all slices.
                    let to = address(space, number as u64 * 7_919);
                    tasks.spawn(hold(to, number, Arc::clone(&of_thread), Arc::clone(&stopped)));
                }
                let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut number = 0;
                while !stopped.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    if rate > 0 {
                        number += 1;
                        tasks.spawn(request(address(space, number * 104_729), Arc::clone(&of_thread)));
                    }
                    while tasks.try_join_next().is_some() {}
                }
                while tasks.join_next().await.is_some() {}
            });
        };
        let thread = std::thread::spawn(work);
        Self { counted, stop, thread: Some(thread) }
    }

    /// What has been counted so far.
    pub(crate) fn so_far(&self) -> Counted {
        self.counted.lock().unwrap().clone()
    }

    /// Begins to count answers and times anew; gives those of before.
    pub(crate) fn turn_page(&self) -> Counted {
        let mut counted = self.counted.lock().unwrap();
        let page = counted.clone();
        counted.answers.clear();
        counted.took.clear();
        counted.pulses.clear();
        page
    }

    /// Waits until this many requests more have been answered.
    pub(crate) async fn pass(&self, more: usize) {
        let before = self.so_far().requests;
        super::bed::until("load", || self.counted.lock().unwrap().requests >= before + more).await;
    }

    /// Waits until this many long connections stand.
    pub(crate) async fn standing(&self, long: usize) {
        super::bed::until("long connections", || self.counted.lock().unwrap().long >= long).await;
    }

    /// Lets everything under way finish; gives what was counted.
    pub(crate) fn finish(mut self) -> Counted {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The address whose first 24 host bits of a /64 are those of `number`, mixed, so that neighbours lie far apart.
fn address(space: ipnet::Ipv6Net, number: u64) -> Ipv6Addr {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Ipv6Addr::from_bits(space.network().to_bits() | u128::from(mixed))
}

async fn request(to: Ipv6Addr, counted: Arc<Mutex<Counted>>) {
    let began = Instant::now();
    let answered = async {
        let mut stream = timeout(PATIENCE, TcpStream::connect((to, PORT))).await??;
        stream.set_nodelay(true)?;
        ask(&mut stream, 1).await
    };
    let answered = answered.await;
    let mut counted = counted.lock().unwrap();
    counted.requests += 1;
    match answered {
        Ok(name) => {
            counted.took.push(began.elapsed());
            *counted.answers.entry(name).or_default() += 1;
        }
        Err(error) => counted.failures.push(format!("{to}: {error}")),
    }
}

/// One long connection, to the end of the load.
async fn hold(to: Ipv6Addr, number: usize, counted: Arc<Mutex<Counted>>, stop: Arc<AtomicBool>) {
    let held = async {
        let mut stream = timeout(PATIENCE, TcpStream::connect((to, PORT))).await??;
        stream.set_nodelay(true)?;
        let mut first = None;
        // Not all at the same moment.
        tokio::time::sleep(PULSE * (number % 16) as u32 / 16).await;
        for pulse in number.. {
            let name = ask(&mut stream, if pulse % LARGE_EVERY == 0 { LARGE } else { 1 }).await?;
            let same = first.get_or_insert_with(|| name.clone());
            if *same != name {
                return Err(std::io::Error::other(format!("{same} became {name}")));
            }
            {
                let mut counted = counted.lock().unwrap();
                counted.long += usize::from(pulse == number);
                *counted.pulses.entry(name).or_default() += 1;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(PULSE).await;
        }
        Ok(())
    };
    if let Err(error) = held.await {
        counted.lock().unwrap().lost.push(format!("{to}: {error}"));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
