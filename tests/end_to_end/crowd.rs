//! Thousands of connections through a pair of sidecars, over TLS and with tokens: idle, slow, and soon gone.
//!
//! `FUNICULAR_CROWD` says how many there are of each kind, `FUNICULAR_CROWD_SECONDS` for how long they come and go at
//! least; a soak says both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use funicular::demo::bed::Pod;
use funicular::demo::plan::{MAIL, Service, WEB};
use funicular::demo::site::Site;
use funicular::ops::process::raise_descriptor_limit;
use futures_util::StreamExt as _;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Family, Town, restart, town, until};

/// How many come of each kind unless more are asked for.
const CROWD: usize = 150;
/// How many come or go at the same time.
const ABREAST: usize = 64;
/// Where the application listens.
const PORT: u16 = 7000;
/// Longer than anything takes, also on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an idle sidecar keeps at most for later calls: connections to servers.
const SPARE_DESCRIPTORS: f64 = 160.0;
/// What is mapped or kept for good once there was anything to do, in MiB.
const SPARE_MIB: f64 = 16.0;
/// What a sidecar is to stay within with so many of a kind: what it takes by itself, and 64 KiB for each connection of two
/// kinds. In MiB.
const fn budget_mib(count: usize) -> usize {
    128 + count / 8
}

/// What an application and its callers say to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Talk {
    /// Whatever comes is said back.
    Echo,
    /// Requests and answers of HTTP/1.1.
    Http,
}

const ANSWER: &[u8] = b"still there?";

impl Talk {
    fn question(self) -> &'static [u8] {
        match self {
            Self::Echo => ANSWER,
            Self::Http => b"GET / HTTP/1.1\r\nHost: web.shop.peak\r\n\r\n",
        }
    }

    /// Answers one caller until it goes.
    async fn serve(self, mut tcp: TcpStream) -> std::io::Result<()> {
        match self {
            Self::Echo => {
                let (mut read, mut write) = tcp.split();
                tokio::io::copy(&mut read, &mut write).await?;
            }
            Self::Http => {
                while heard(&mut tcp, b"\r\n\r\n").await? {
                    tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").await?;
                    tcp.write_all(ANSWER).await?;
                }
            }
        }
        Ok(())
    }
}

/// Reads until what came ends like this; false when it ended before.
async fn heard(tcp: &mut (impl AsyncRead + Unpin), end: &[u8]) -> std::io::Result<bool> {
    let mut octets = Vec::new();
    while !octets.ends_with(end) {
        if tcp.read_buf(&mut octets).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn say(tcp: &mut (impl AsyncWrite + Unpin), octets: &[u8]) {
    tcp.write_all(octets).await.unwrap();
}

/// Waits for the answer to what was said.
async fn answered(tcp: &mut TcpStream) {
    let answered = tokio::time::timeout(PATIENCE, heard(tcp, ANSWER)).await;
    assert!(answered.expect("no answer").unwrap(), "the connection ended without an answer");
}

/// Does the same with each of a crowd, many at a time.
async fn each<T, R, F: Future<Output = R>>(crowd: impl IntoIterator<Item = T>, doing: impl FnMut(T) -> F) -> Vec<R> {
    futures_util::stream::iter(crowd).map(doing).buffer_unordered(ABREAST).collect().await
}

/// A service, its application, and who calls it.
struct Crowd<'s> {
    site: &'s Site,
    pod: &'s Pod,
    talk: Talk,
    to: SocketAddr,
    count: usize,
}

/// What a sidecar holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: f64,
    resident_mib: f64,
}

impl<'s> Crowd<'s> {
    /// Starts the application in the service's pod.
    async fn of(site: &'s Site, service: &Service, talk: Talk) -> Self {
        let pod = site.pod(service.pods[0]);
        let bound = move |_: &_| {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], PORT)).into())?;
            listener.listen(4096)?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(listener)
        };
        let listener = TcpListener::from_std(pod.within(bound).unwrap().unwrap().into()).unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(talk.serve(tcp));
            }
        });
        let stand_in = Family::Six.stand_in(site, service.name);
        Self { site, pod, talk, to: SocketAddr::new(stand_in, PORT), count: count() }
    }

    /// Both sidecars.
    fn sidecars(&self) -> [&'s Pod; 2] {
        [self.site.client(), self.pod]
    }

    /// As many connections as the crowd has, each of which has been answered.
    async fn come(&self) -> Vec<TcpStream> {
        let (count, talk, to) = (self.count, self.talk, self.to);
        let make = move |_: &_| -> std::io::Result<Vec<Socket>> {
            let made = || {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            (0..count).map(|_| made()).collect()
        };
        // A socket belongs to the pod in which it was made, wherever it is used.
        let sockets = self.site.client().within(make).unwrap().unwrap();
        each(sockets, async |socket| {
            let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
            let mut tcp = tokio::time::timeout(PATIENCE, connecting).await.expect("no connection").unwrap();
            say(&mut tcp, talk.question()).await;
            answered(&mut tcp).await;
            tcp
        })
        .await
    }

    /// All say half of something; only when each has do they say the rest.
    async fn are_slow(&self, crowd: Vec<TcpStream>) -> Vec<TcpStream> {
        let (first, rest) = self.talk.question().split_at(5);
        let crowd = each(crowd, async |mut tcp| {
            say(&mut tcp, first).await;
            tcp
        })
        .await;
        each(crowd, async |mut tcp| {
            say(&mut tcp, rest).await;
            answered(&mut tcp).await;
            tcp
        })
        .await
    }

    /// They go, every third without a word, and both sidecars have seen them go.
    async fn go(&self, crowd: Vec<TcpStream>) {
        for (number, tcp) in crowd.into_iter().enumerate() {
            if number % 3 == 0 {
                tcp.set_zero_linger().unwrap();
            }
        }
        self.are_open(0).await;
    }

    /// Waits until both sidecars have so many connections open.
    async fn are_open(&self, count: usize) {
        let outbound = [("direction", "outbound")];
        let inbound = [("direction", "inbound")];
        for (pod, labels) in self.sidecars().into_iter().zip([outbound, inbound]) {
            let open = || self.site.counted(pod, "funicular_connections_open", &labels).unwrap();
            tokio::task::block_in_place(|| {
                until("the connections that are there are open", PATIENCE, || open() == count as f64)
            });
        }
    }

    /// Waits until both sidecars hold no more than they did before anybody came, but for what serves the next.
    async fn is_gone(&self, before: &[Held; 2]) -> [Held; 2] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.held();
            let gone = |(now, before): (&Held, &Held)| {
                now.descriptors <= before.descriptors + SPARE_DESCRIPTORS
                    && now.resident_mib <= before.resident_mib + SPARE_MIB
            };
            if now.iter().zip(before).all(gone) {
                return now;
            }
            assert!(Instant::now() < deadline, "{before:?} before, and still {now:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn held(&self) -> [Held; 2] {
        self.sidecars().map(|pod| {
            let figure = |metric| tokio::task::block_in_place(|| self.site.counted(pod, metric, &[]).unwrap());
            Held {
                descriptors: figure("funicular_process_open_descriptors"),
                resident_mib: figure("funicular_process_resident_memory_bytes") / f64::from(1 << 20),
            }
        })
    }
}

/// How many there are of a kind.
fn count() -> usize {
    number("FUNICULAR_CROWD").unwrap_or(CROWD)
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// A crowd comes, is idle, slow and gone, over and over; nobody is turned away, and both sidecars are each time what they
/// were before.
fn a_crowd_leaves_nothing_behind(service: &Service, talk: Talk) {
    raise_descriptor_limit();
    let Town { site, .. } = &mut town(false);
    let memory = format!("memory: {}MiB\n", budget_mib(count()));
    let outbound = "outbound:\n  limits: { connections: 50000, pending: 50000 }\n";
    let inbound =
        "inbound:\n  limits: { connections_per_source: 50000, handshakes_per_source: 50000, handshakes: 50000 }\n";
    restart(site, Site::client, |text| memory.clone() + &text.replacen("outbound:\n", outbound, 1));
    restart(site, |site| site.pod(service.pods[0]), |text| memory.clone() + &text.replacen("inbound:\n", inbound, 1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let crowd = Crowd::of(site, service, talk).await;
        let before = crowd.held();
        let begun = Instant::now();
        let lasting = Duration::from_secs(number("FUNICULAR_CROWD_SECONDS").unwrap_or(0) as u64);
        let mut rounds = 0;
        while rounds < 2 || begun.elapsed() < lasting {
            rounds += 1;
            // Some stay and say nothing while others come and go.
            let idle = crowd.come().await;
            let others = crowd.come().await;
            crowd.are_open(2 * crowd.count).await;
            let most = crowd.held();
            drop(others);
            crowd.are_open(crowd.count).await;
            let idle = crowd.are_slow(idle).await;
            crowd.go(idle).await;
            let after = crowd.is_gone(&before).await;
            println!(
                "{talk:?}, 2 x {}: {before:?} before, {most:?} with all, {after:?} after round {rounds}",
                crowd.count
            );
            assert!(most.iter().all(|held| held.resident_mib < budget_mib(crowd.count) as f64), "{most:?}");
        }
        let refusals = tokio::task::block_in_place(|| site.refusals(site.client()).unwrap());
        assert!(refusals.is_empty(), "{refusals:?}");
    });
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_crowd_by_tunnels_is_served_idle_slow_and_gone_and_leaves_nothing_behind() {
    a_crowd_leaves_nothing_behind(&MAIL, Talk::Echo);
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_crowd_by_requests_is_served_idle_slow_and_gone_and_leaves_nothing_behind() {
    a_crowd_leaves_nothing_behind(&WEB, Talk::Http);
}
