//! Slices of many pods, leased from a Peak of this build: shared, handed over, lost and taken over.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use funicular::config::slices::Lapsed;
use funicular::ops::metrics::Registry;
use funicular::sidecar::inbound::relay::Leased;
use funicular::sidecar::lease::{self, Handle, LeaseMetrics, Slices, Standing, Wanted};
use funicular::sidecar::outbound::Identity;
use funicular::sidecar::outbound::authenticate::{Proof, Signer, Tokens};
use funicular::sidecar::report::Report;
use funicular::wire::jwks::to_jwks;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::bed::*;

const PEAK: &str = "peak.shop.peak";
/// How long a lease lasts in these tests.
const LIFE: Duration = Duration::from_millis(1_500);
/// 2^8 slices of 2001:db8:5:1::/64.
const SLICES: u32 = 256;

/// A `funicular peak` of this build that leases the slices of one service, killed with the value.
struct Peak {
    child: Child,
    admin: SocketAddr,
    api: SocketAddr,
    leases: SocketAddr,
}

impl Peak {
    async fn start(authority: &Authority) -> Self {
        Self::with_leases_of(LIFE, authority).await
    }

    async fn with_leases_of(life: Duration, authority: &Authority) -> Self {
        drop(authority.server(PEAK));
        let path = |file| authority.path(file).display().to_string();
        std::fs::write(authority.path("jwks.json"), to_jwks(&[&authority.key])).unwrap();
        std::fs::write(
            authority.path("zone"),
            format!(
                "$ORIGIN shop.peak.\n\
                 @ 60 SOA ns hostmaster 1 3600 600 86400 60\n\
                 @ 60 NS ns\nns 60 AAAA ::1\n\
                 orders 3600 APL 2:2001:db8:5:1::/64\n\
                 _ssa.orders 60 TXT \"v=ssa1 layout=random:64 slices={}\"\n",
                SLICES.ilog2()
            ),
        )
        .unwrap();
        let text = format!(
            "listen: \"[::1]:0\"\nworkers: 1\n\
             zones: [{{ name: shop.peak, file: {zone} }}]\n\
             api: {{ listen: \"127.0.0.1:0\" }}\n\
             admin: {{ listen: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             log: {{ format: json, level: debug }}\n\
             slices:\n  listen: \"[::1]:0\"\n  name: {PEAK}\n  certificate: {cert}\n  key: {key}\n  lease: {life}ms\n  \
             trust: [{{ issuer: \"{ISSUER}\", jwks: {jwks} }}]\n  \
             services: [{{ name: {SERVICE}, pods: [\"spiffe://shop.example/ns/default/sa/*\"] }}]\n",
            zone = path("zone"),
            cert = path("cert.pem"),
            key = path("key.pem"),
            jwks = path("jwks.json"),
            life = life.as_millis(),
        );
        std::fs::write(authority.path("peak.yaml"), text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_funicular"))
            .args(["peak", "--config", &path("peak.yaml")])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut admin, mut api, mut leases, mut seen) = (None, None, None, String::new());
        let read = async {
            while admin.is_none() || leases.is_none() || api.is_none() {
                let Some(line) = lines.next_line().await.unwrap() else { panic!("it ended: {seen}") };
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                match said["message"].as_str() {
                    Some("admin ports are open") => admin = said["admin"].as_str().and_then(|at| at.parse().ok()),
                    Some("the API listens") => api = said["address"].as_str().and_then(|at| at.parse().ok()),
                    Some("leases of slices are given out") => {
                        leases = said["address"].as_str().and_then(|at| at.parse().ok());
                    }
                    _ => {}
                }
                seen.push_str(&line);
            }
        };
        within(read).await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, admin: admin.unwrap(), api: api.unwrap(), leases: leases.unwrap() }
    }

    /// What `GET /slices` says of the service; nothing before it is known.
    async fn shown(&self) -> Option<Value> {
        let mut tcp = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET /slices HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        tcp.write_all(request.as_bytes()).await.ok()?;
        let mut reply = String::new();
        tcp.read_to_string(&mut reply).await.ok()?;
        let (_, body) = reply.split_once("\r\n\r\n")?;
        let all: Value = serde_json::from_str(body).ok()?;
        all["services"].get(0).cloned()
    }

    /// What `funicular slices` prints, if it ends well.
    async fn slices(&self, arguments: &[&str]) -> Result<String, String> {
        let server = format!("http://{}", self.api);
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        let ran = command.arg("slices").args(arguments).args(["--server", &server]).output().await.unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        if ran.status.success() { Ok(text(ran.stdout)) } else { Err(text(ran.stderr)) }
    }

    /// Waits until what is shown is as wanted.
    async fn shows(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        within(async {
            loop {
                if let Some(shown) = self.shown().await.filter(&wanted) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Waits until so many pods have equal shares and nothing is under way.
    async fn settles(&self, pods: u32) {
        self.shows(|shown| {
            let slices = slices_of(shown);
            let fair = |&slices: &u32| (SLICES / pods..=SLICES.div_ceil(pods)).contains(&slices);
            slices.len() == pods as usize && slices.values().all(fair) && under_way(shown) == 0
        })
        .await;
    }
}

/// Slices by pod.
fn slices_of(shown: &Value) -> BTreeMap<String, u32> {
    let pods = shown["pods"].as_array().unwrap();
    pods.iter().map(|pod| (pod["name"].as_str().unwrap().to_owned(), pod["slices"].as_u64().unwrap() as u32)).collect()
}

fn under_way(shown: &Value) -> usize {
    shown["handovers"].as_array().unwrap().len()
}

/// A pod's lease, kept by a runtime of its own: dropped, it is as if killed.
struct Pod {
    slices: Arc<Slices>,
    handle: Handle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Pod {
    fn start(authority: &Authority, server: SocketAddr, number: u16) -> Self {
        Self::with(authority, server, number, Lapsed::Serve, WEB)
    }

    fn with(authority: &Authority, server: SocketAddr, number: u16, lapsed: Lapsed, who: &str) -> Self {
        let inbound = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number), 15_006);
        Self::reached_at(inbound, authority, server, number, lapsed, who)
    }

    fn reached_at(
        inbound: (Ipv6Addr, u16),
        authority: &Authority,
        server: SocketAddr,
        number: u16,
        lapsed: Lapsed,
        who: &str,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        let (slices, handle) = keep(inbound, authority, server, number, lapsed, who);
        drop(inside);
        Self { slices, handle, runtime: Some(runtime) }
    }

    /// How many slices it would serve.
    fn serves(&self) -> u32 {
        addresses().filter(|&address| self.slices.standing(address) == Standing::Here).count() as u32
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A workload that signs its own tokens.
fn identity(authority: &Authority, who: &str) -> Arc<Identity> {
    let signer = Signer {
        key: authority.key_again(),
        issuer: ISSUER.into(),
        subject: who.parse().unwrap(),
        life: Duration::from_secs(300),
    };
    let tokens = Arc::new(Tokens::new(Proof::Key(signer), Report::new(&Registry::new())));
    Arc::new(Identity { tokens, tls: authority.client() })
}

/// Keeps a lease in the runtime that this is called in.
fn keep(
    inbound: (Ipv6Addr, u16),
    authority: &Authority,
    server: SocketAddr,
    number: u16,
    lapsed: Lapsed,
    who: &str,
) -> (Arc<Slices>, Handle) {
    let registry = Registry::new();
    let identity = identity(authority, who);
    let slices = Arc::new(Slices::new(lapsed));
    let wanted = Wanted {
        servers: vec![server],
        peak: name(PEAK),
        pod: format!("orders-{number}"),
        inbound,
        weight: 1,
        services: vec![name(SERVICE)],
        agent: None,
        drain: Duration::from_secs(5),
        mark: None,
    };
    let ready = Arc::new(Notify::new());
    ready.notify_one();
    let handle = lease::keep(wanted, identity, Arc::clone(&slices), LeaseMetrics::new(&registry), ready);
    (slices, handle)
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

/// One address of each slice.
fn addresses() -> impl Iterator<Item = Ipv6Addr> {
    let first = "2001:db8:5:1::7".parse::<Ipv6Addr>().unwrap().to_bits();
    (0..SLICES).map(move |slice| Ipv6Addr::from_bits(first | u128::from(slice) << 56))
}

async fn until(wanted: impl Fn() -> bool) {
    within(async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn pods_share_the_slices_evenly_and_each_knows_its_own() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let mut pods: Vec<Pod> = (1..=3).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(3).await;
    pods.push(Pod::start(&authority, peak.leases, 4));
    peak.settles(4).await;
    until(|| pods.iter().all(|pod| pod.serves() == SLICES / 4)).await;
    let owners =
        addresses().map(|address| pods.iter().filter(|pod| pod.slices.standing(address) == Standing::Here).count());
    assert!(owners.into_iter().all(|owners| owners == 1), "each slice is one pod's");
}

#[tokio::test]
async fn a_pod_that_is_killed_is_replaced_when_its_lease_has_ended_and_not_before() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let mut pods: Vec<Pod> = (1..=3).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(3).await;
    let mut killed = pods.remove(0);
    killed.kill();
    let since = Instant::now();
    until(|| pods.iter().map(Pod::serves).sum::<u32>() == SLICES).await;
    let took = since.elapsed();
    // It renewed a third of its lease's life ago at most. The others may have had to wait for this test's processor.
    assert!(took > LIFE / 2 && took < LIFE + Duration::from_millis(700), "{took:?}");
    peak.settles(2).await;
}

#[tokio::test]
async fn a_pod_that_stops_has_handed_everything_over_before_it_goes() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let mut pods: Vec<Pod> = (1..=3).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(3).await;
    let mut stops = pods.remove(0);
    let connection = stops.slices.enter(addresses().find(|&at| stops.slices.standing(at) == Standing::Here).unwrap());
    within(stops.handle.leaver().hand_over(Duration::from_secs(10))).await;
    assert_eq!(stops.serves(), 0);
    let shown = peak.shown().await.unwrap();
    assert_eq!(slices_of(&shown)["orders-1"], 0, "nothing leads to it any more");
    assert!(under_way(&shown) > 0, "its connection is still its own");
    drop(connection);
    peak.shows(|shown| under_way(shown) == 0).await;
    within(stops.handle.give_back()).await;
    peak.settles(2).await;
    assert!(!slices_of(&peak.shown().await.unwrap()).contains_key("orders-1"));
}

#[tokio::test]
async fn the_last_pod_stops_without_waiting_for_somebody_to_take_over() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let pod = Pod::start(&authority, peak.leases, 1);
    peak.settles(1).await;
    let since = Instant::now();
    pod.handle.leaver().hand_over(Duration::from_secs(60)).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(pod.serves(), SLICES, "it serves to its end");
}

/// Carries connections to Peak until it is cut: then nothing passes either way, and nobody is told.
async fn cuttable(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let (at, cut) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let is_cut = Arc::clone(&cut);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(to).await else { continue };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out, Arc::clone(&is_cut)));
            tokio::spawn(carry(far_in, near_out, Arc::clone(&is_cut)));
        }
    });
    (at, cut)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Arc<AtomicBool>,
) {
    let mut octets = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut octets).await {
        if cut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&octets[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_pod_that_is_cut_off_stops_claiming_before_its_slices_are_given_away() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let (way, cut) = cuttable(peak.leases).await;
    let alone = Pod::with(&authority, way, 1, Lapsed::Refuse, WEB);
    let other = Pod::start(&authority, peak.leases, 2);
    peak.settles(2).await;
    until(|| alone.serves() == SLICES / 2).await;
    cut.store(true, Ordering::Relaxed);
    until(|| {
        let claimed = alone.serves();
        let given = other.serves() - SLICES / 2;
        assert!(claimed == 0 || given == 0, "{claimed} slices are claimed and {given} given away");
        given > 0
    })
    .await;
    peak.settles(1).await;
}

#[tokio::test]
async fn without_a_control_plane_everybody_goes_on_with_what_it_has() {
    let authority = Authority::new();
    let mut peak = Peak::start(&authority).await;
    let pods: Vec<Pod> = (1..=2).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(2).await;
    until(|| pods.iter().all(|pod| pod.serves() == SLICES / 2)).await;
    let before: Vec<_> = addresses().map(|address| pods[0].slices.standing(address)).collect();
    peak.child.kill().await.unwrap();
    let since = Instant::now();
    // Time has to pass: that of a lease, and as much again.
    until(|| {
        assert_eq!(before, addresses().map(|address| pods[0].slices.standing(address)).collect::<Vec<_>>());
        since.elapsed() > 2 * LIFE
    })
    .await;
}

#[tokio::test]
async fn a_hundred_pods_at_once_settle_and_no_slice_is_ever_without_a_pod() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let _first = Pod::start(&authority, peak.leases, 1);
    peak.settles(1).await;
    let _pods: Vec<Pod> = (2..=100).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    let settled = peak.settles(100);
    tokio::pin!(settled);
    loop {
        tokio::select! {
            () = &mut settled => return,
            shown = peak.shown() => {
                let owners = shown.unwrap()["owners"].as_array().unwrap().clone();
                assert!(owners.iter().all(|run| !run[2].is_null()), "{owners:?}");
            }
        }
    }
}

/// How many sidecars hold leases at once; the soak has a thousand of them.
fn many_leases() -> u16 {
    std::env::var("FUNICULAR_LEASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The processor time that a process has taken.
fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|&at| after_name[at].parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 wherever Linux runs.
    Duration::from_millis(10 * ticks)
}

#[tokio::test]
async fn standing_still_costs_peak_next_to_nothing() {
    let (authority, pods) = (Authority::new(), many_leases());
    let peak = Peak::with_leases_of(Duration::from_secs(5), &authority).await;
    let inbound = |number| (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number), 15_006);
    let _all: Vec<_> =
        (1..=pods).map(|number| keep(inbound(number), &authority, peak.leases, number, Lapsed::Serve, WEB)).collect();
    peak.settles(u32::from(pods)).await;
    let process = peak.child.id().unwrap();
    let (before, since) = (processor_time(process), Instant::now());
    // Time has to pass: that of two leases.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = (processor_time(process) - before).as_secs_f64() / since.elapsed().as_secs_f64();
    eprintln!("{pods} leases of 5 s: {:.1} % of a core", share * 100.0);
    // A debug build takes many times what a release build does, which is the one that has a target.
    let most = if cfg!(debug_assertions) { 0.3 } else { 0.05 };
    assert!(share < most, "{:.1} % of a core", share * 100.0);
    assert_eq!(slices_of(&peak.shown().await.unwrap()).len(), usize::from(pods), "and every lease is held");
}

#[tokio::test]
async fn a_workload_that_may_not_serve_gets_nothing() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let _stranger =
        Pod::with(&authority, peak.leases, 1, Lapsed::Serve, "spiffe://elsewhere.example/ns/default/sa/web");
    let _pod = Pod::start(&authority, peak.leases, 2);
    peak.settles(1).await;
    assert_eq!(slices_of(&peak.shown().await.unwrap()).into_keys().collect::<Vec<_>>(), ["orders-2"]);
}

/// Sixteen slices that are one prefix.
fn block(at: u8) -> String {
    format!("2001:db8:5:1:{at:x}000::/68")
}

/// Who owns a slice.
fn owner(shown: &Value, slice: u64) -> u64 {
    let runs = shown["owners"].as_array().unwrap();
    let inside = |run: &&Value| (0..run[1].as_u64().unwrap()).any(|at| run[0].as_u64().unwrap() + at == slice);
    runs.iter().find(inside).unwrap()[2].as_u64().unwrap()
}

/// A pod that does not have the first slice: its name and number.
fn another(shown: &Value) -> (String, u64) {
    let other = shown["pods"].as_array().unwrap().iter().find(|pod| pod["pod"] != owner(shown, 0)).unwrap();
    (other["name"].as_str().unwrap().to_owned(), other["pod"].as_u64().unwrap())
}

#[tokio::test]
async fn operators_see_and_move_slices_and_a_dry_run_moves_nothing() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let _pods: Vec<Pod> = (1..=2).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(2).await;
    let shown = peak.slices(&[SERVICE]).await.unwrap();
    assert!(shown.contains("orders-1") && shown.contains("50.0%"), "{shown}");
    let before = peak.shown().await.unwrap();
    let (other, number) = another(&before);
    let other = other.as_str();
    let moves = ["move", SERVICE, &block(0), other];
    let dry = peak.slices(&[&moves[..], &["--dry-run"]].concat()).await.unwrap();
    assert!(dry.contains("16 slices would move"), "{dry}");
    assert_eq!(owner(&peak.shown().await.unwrap(), 0), owner(&before, 0));
    peak.slices(&moves).await.unwrap();
    peak.shows(|shown| owner(shown, 0) == number && owner(shown, 15) == number && under_way(shown) == 0).await;
    peak.slices(&["drain", other]).await.unwrap();
    // Pinned slices stay as long as their pod serves, and one that drains does not.
    peak.shows(|shown| under_way(shown) == 0 && slices_of(shown)[other] <= 16).await;
    let refused = peak.slices(&["drain", "nobody"]).await.unwrap_err();
    assert!(refused.contains("slices-no-pod"), "{refused}");
}

#[tokio::test]
async fn operators_watch_pin_drain_undo_and_rebalance_and_see_first_what_would_move() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let _pods: Vec<Pod> = (1..=2).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(2).await;
    let before = peak.shown().await.unwrap();
    let (other, number) = another(&before);
    let other = other.as_str();
    let json: Value = serde_json::from_str(&peak.slices(&[SERVICE, "-o", "json"]).await.unwrap()).unwrap();
    assert_eq!(json["services"][0]["slices"], SLICES);

    let dry = peak.slices(&["pin", SERVICE, &block(0), other, "--dry-run"]).await.unwrap();
    assert!(dry.contains("16 slices would move"), "{dry}");
    peak.slices(&["pin", SERVICE, &block(0), other]).await.unwrap();
    peak.shows(|shown| owner(shown, 0) == number && owner(shown, 15) == number && under_way(shown) == 0).await;
    let text = peak.slices(&[SERVICE]).await.unwrap();
    assert!(text.contains(&format!("pinned  16 from 0 to {other}")), "{text}");
    peak.slices(&["pin", SERVICE, &block(0)]).await.unwrap();
    peak.shows(|shown| shown["pins"].as_array().unwrap().is_empty()).await;
    peak.settles(2).await;

    let dry = peak.slices(&["drain", other, "--dry-run"]).await.unwrap();
    assert!(dry.contains("128 slices would move") && dry.contains("(drained)"), "{dry}");
    let not_yet = peak.shown().await.unwrap();
    assert!(not_yet["pods"].as_array().unwrap().iter().all(|pod| pod["draining"] == false), "{not_yet}");
    peak.slices(&["drain", other]).await.unwrap();
    peak.shows(|shown| slices_of(shown)[other] == 0 && under_way(shown) == 0).await;
    peak.slices(&["drain", other, "--undo"]).await.unwrap();
    peak.settles(2).await;

    let prefixes = |shown: &Value| -> u64 {
        shown["pods"].as_array().unwrap().iter().map(|pod| pod["prefixes"].as_u64().unwrap()).sum()
    };
    let before = prefixes(&peak.shown().await.unwrap());
    let rebalanced = peak.slices(&["rebalance", SERVICE, "--dry-run", "-o", "json"]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&rebalanced).unwrap()["dry_run"], true);
    peak.slices(&["rebalance", SERVICE]).await.unwrap();
    peak.settles(2).await;
    assert!(prefixes(&peak.shown().await.unwrap()) <= before);
}

#[tokio::test]
async fn whoever_watches_sees_the_slices_again_and_again() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let _pod = Pod::start(&authority, peak.leases, 1);
    peak.settles(1).await;
    let mut watch = Command::new(env!("CARGO_BIN_EXE_funicular"))
        .args(["slices", SERVICE, "--watch", "--server", &format!("http://{}", peak.api)])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut pictures = 0;
    within(async {
        while pictures < 2 {
            pictures += usize::from(lines.next_line().await.unwrap().unwrap().contains("256 slices  1 pods"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_bears_too_much_gives_a_hot_slice_for_a_cold_one() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let pods: Vec<Pod> = (1..=2).map(|number| Pod::start(&authority, peak.leases, number)).collect();
    peak.settles(2).await;
    until(|| pods.iter().all(|pod| pod.serves() == SLICES / 2)).await;
    let hot: Vec<Ipv6Addr> =
        addresses().filter(|&address| pods[0].slices.standing(address) == Standing::Here).take(2).collect();
    let has = |pod: &Pod, address: Ipv6Addr| pod.slices.standing(address) == Standing::Here;
    let (mut seen_hot, mut shared) = (false, false);
    within(async {
        while !(seen_hot && shared) {
            for &address in &hot {
                for pod in pods.iter().filter(|pod| has(pod, address)) {
                    (0..5).for_each(|_| drop(pod.slices.enter(address)));
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            let shown = peak.shown().await.unwrap();
            seen_hot |= shown["hot"].as_array().unwrap().len() == 2;
            shared = has(&pods[1], hot[0]) != has(&pods[1], hot[1]);
        }
    })
    .await;
    // Shares are as they were.
    peak.settles(2).await;
}

#[tokio::test]
async fn a_call_that_reaches_the_old_owner_is_relayed_to_the_new_one() {
    let authority = Authority::new();
    let peak = Peak::start(&authority).await;
    let leased = |slices: &Arc<Slices>| {
        let identity = identity(&authority, WEB);
        Some(Leased { slices: Arc::clone(slices), identity, id: WEB.parse().unwrap(), mark: None })
    };
    let mut application = Application::start().await;
    let mut new = InboundBed::new(&authority, application.port);
    new.inbound.original = straight_to_us();
    let known = Arc::new(Slices::new(Lapsed::Serve));
    new.inbound.leased = leased(&known);
    let new = new.start().await;
    // The old owner has everything, then hands it over to the new one.
    let old_pod = Pod::start(&authority, peak.leases, 1);
    peak.settles(1).await;
    let inbound = (Ipv6Addr::LOCALHOST, new.address.port());
    let _new_pod = Pod::reached_at(inbound, &authority, peak.leases, 2, Lapsed::Serve, WEB);
    within(old_pod.handle.leaver().hand_over(Duration::from_secs(10))).await;
    let strange = Application::start().await;
    let mut old = InboundBed::new(&authority, strange.port);
    old.inbound.leased = leased(&old_pod.slices);
    let old = old.start().await;
    drop(authority.server(SERVICE));
    let token = authority.token();
    let mut stream = Caller::with(&authority, token.as_bytes()).connect(&old).await.unwrap();
    let mut server = application.accept().await;
    hears(&mut stream, &mut server, "to whom it belongs").await;
    hears(&mut server, &mut stream, "and back").await;
}
