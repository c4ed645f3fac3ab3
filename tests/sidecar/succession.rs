//! A new program takes the place of a running sidecar.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::bed::*;
use crate::life::Process;

const SETTINGS: &str = "inbound: { listen: \"127.0.0.1:0\" }\n";
const TAKEN_OVER: &str = "a new sidecar has taken over";

/// An application that says back what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    at
}

/// A connection to `application` that the sidecar carries.
async fn carried(sidecar: SocketAddr, application: SocketAddr) -> std::io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(sidecar).await?;
    tcp.write_all(format!("CONNECT {application} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = [0; 39];
    tcp.read_exact(&mut answer).await?;
    if &answer != b"HTTP/1.1 200 Connection Established\r\n\r\n" {
        return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(tcp)
}

async fn says_back(tcp: &mut TcpStream) -> std::io::Result<()> {
    tcp.write_all(b"are you there?").await?;
    let mut heard = [0; 14];
    tcp.read_exact(&mut heard).await?;
    Ok(())
}

/// Calls, each over a connection of its own, one after the other until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(sidecar: SocketAddr, application: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = |_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut tcp = carried(sidecar, application).await.expect("a call that is refused");
                    says_back(&mut tcp).await.expect("a call that breaks off");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let callers = (0..4).map(caller).collect();
        Self { stop, done, callers }
    }

    /// Waits for so many more calls.
    async fn goes_on(&self, calls: u64) {
        let until = self.done.load(Ordering::Relaxed) + calls;
        within(async {
            while self.done.load(Ordering::Relaxed) < until && !self.has_failed() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!self.has_failed());
    }

    fn has_failed(&self) -> bool {
        self.callers.iter().any(JoinHandle::is_finished)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            within(caller).await.unwrap();
        }
    }
}

fn signal(process: Pid, signal: Signal) {
    kill_process(process, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_programs_take_over_one_after_another_and_no_call_notices() {
    let authority = Authority::new();
    let application = echo().await;
    let more = format!("{SETTINGS}drain: 20s\n");
    let mut sidecar = Process::start_explicit(&authority, &more).await;
    let explicit = sidecar.explicit.unwrap();
    let first = sidecar.pid();
    let mut long = carried(explicit, application).await.unwrap();
    let load = Load::start(explicit, application);
    load.goes_on(20).await;

    let mut processes = vec![first];
    for _ in 0..3 {
        // Always the first is told, whoever serves: it is the one that people know.
        signal(first, Signal::USR2);
        let prepares = sidecar.says("a new sidecar prepares to take over").await;
        processes.push(Pid::from_raw(prepares["process"].as_i64().unwrap() as i32).unwrap());
        sidecar.says(TAKEN_OVER).await;
        load.goes_on(20).await;
        says_back(&mut long).await.unwrap();
    }
    load.end().await;
    // One that was neither first nor last has nothing left to do.
    within(async {
        while test_kill_process(processes[2]).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(sidecar.get("/ready").await.starts_with("HTTP/1.1 200"), "the ports are where they were");
    assert!(sidecar.get("/metrics").await.contains("funicular_upgrade_failures_total 0"));

    drop(long);
    sidecar.terminate();
    assert!(within(sidecar.child.wait()).await.unwrap().success());
    assert!(processes.into_iter().all(|process| test_kill_process(process).is_err()), "none is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_take_over_leaves_all_as_it_was() {
    let authority = Authority::new();
    let application = echo().await;
    let mut sidecar = Process::start_explicit(&authority, SETTINGS).await;
    let load = Load::start(sidecar.explicit.unwrap(), application);
    let file = authority.path("sidecar.yaml");
    let good = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, good.replace("inbound:", "inbuond:")).unwrap();
    signal(sidecar.pid(), Signal::USR2);
    sidecar.says("no new sidecar takes over, this one goes on: the other sidecar is gone").await;

    load.goes_on(20).await;
    load.end().await;
    assert!(sidecar.get("/metrics").await.contains("funicular_upgrade_failures_total 1"));
    std::fs::write(&file, good).unwrap();
    signal(sidecar.pid(), Signal::USR2);
    sidecar.says(TAKEN_OVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_dies_ends_the_one_that_people_know() {
    let authority = Authority::new();
    let mut sidecar = Process::start_explicit(&authority, SETTINGS).await;
    signal(sidecar.pid(), Signal::USR2);
    let prepares = sidecar.says("a new sidecar prepares to take over").await;
    sidecar.says(TAKEN_OVER).await;

    signal(Pid::from_raw(prepares["process"].as_i64().unwrap() as i32).unwrap(), Signal::KILL);

    // As a shell says it, so that whoever restarts what fails restarts it.
    assert_eq!(within(sidecar.child.wait()).await.unwrap().code(), Some(128 + 9));
}
