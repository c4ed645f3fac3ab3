//! A whole town: Peak on three nodes, agents and BIRD on as many, pods with sidecars and applications, and a caller with
//! a sidecar of its own who knows the service by its name alone.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use funicular::demo::bed::Pod;
use funicular::demo::material::{self, Authority};
use funicular::demo::process::Process;
use funicular::demo::site::{accepts, http_get};
use funicular::net::namespace::Overlay;
use funicular::wire::jwks::to_jwks;
use funicular::wire::jwt::SigningKey;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use super::bed::{Bed, PATIENCE, SPACE, name, shell, until};
use super::bgp;

pub(crate) const SERVICE: &str = "orders.shop.peak";
/// Where the application listens, and callers call.
pub(crate) const PORT: u16 = 8080;
/// How long a lease lasts.
pub(crate) const LIFE: Duration = Duration::from_secs(3);
/// 2^10 of them.
pub(crate) const SLICES: u64 = 1_024;

const PEAK: &str = "peak.shop.peak";
const PEAKS: u16 = 3;
const ISSUER: &str = "https://issuer.shop.example";
const MARK: u32 = 0x0046_554e;
/// All pods together may take so long to be ready: they start at once, on two cores.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A pod of the service, with its processes.
pub(crate) struct Member {
    // Processes end before their namespace.
    sidecar: Process,
    app: Process,
    pub(crate) pod: Pod,
    pub(crate) node: u16,
}

impl Member {
    fn is_ready(&self) -> bool {
        http_get(&self.pod, 15020, "/ready").is_ok_and(|page| page.is_some())
    }
}

/// One of Peak's nodes.
struct Peak {
    process: Option<Process>,
    pod: Pod,
    config: PathBuf,
}

/// The service and everything that it needs.
pub(crate) struct Town {
    // Processes end before their namespaces.
    pub(crate) members: Vec<Member>,
    _caller: Process,
    peaks: Vec<Peak>,
    _birds: Vec<Process>,
    pub(crate) stand_in: Ipv6Addr,
    material: Material,
    pub(crate) bed: Bed,
    /// Pods that ever were: each has a name of its own.
    born: usize,
    _alone: MutexGuard<'static, ()>,
}

/// There is one town at a time: two would want more processors than there are, and leases would run out.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Keys and certificates, all of them in the bed's folder.
struct Material {
    authority: Authority,
    folder: PathBuf,
}

impl Material {
    fn write(bed: &Bed) -> Self {
        let folder = bed.folder.path().to_owned();
        let authority = Authority::generate().unwrap();
        let pem = material::signing_key_pem().unwrap();
        let key = SigningKey::from_pem(pem.as_bytes(), "all-1").unwrap();
        material::write(&folder.join("ca.crt"), authority.pem()).unwrap();
        material::write_private(&folder.join("all.key"), &pem).unwrap();
        material::write(&folder.join("jwks.json"), &to_jwks(&[&key])).unwrap();
        // Nobody is there: the pod's rules turn every question to its sidecar.
        material::write(&folder.join("resolv.conf"), "nameserver 2001:db8:dead::53\n").unwrap();
        material::write(&folder.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        cluster(&folder);
        Self { authority, folder }
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn overlays(&self) -> Vec<Overlay> {
        let shown = [("resolv.conf", "/etc/resolv.conf"), ("nsswitch.conf", "/etc/nsswitch.conf")];
        let there = shown.into_iter().filter_map(|(file, target)| Some((file, std::fs::canonicalize(target).ok()?)));
        there.map(|(file, target)| Overlay { source: self.folder.join(file), target }).collect()
    }

    /// What every sidecar's file says.
    fn common(&self, account: &str) -> String {
        let servers: Vec<String> = (1..=PEAKS).map(|at| format!("\"[{}]:53\"", Bed::beyond_address(at))).collect();
        format!(
            "identity:\n  id: \"spiffe://shop.example/ns/default/sa/{account}\"\n  issuer: \"{ISSUER}\"\n  \
             signing_key: {}\n  key_id: all-1\n  ca: {}\n\
             dns:\n  upstream: [\"127.0.0.1:9\"]\n  peak:\n    zones: [shop.peak]\n    servers: [{}]\n\
             outbound: {{ mark: {MARK}, attempt_timeout: 1s, connect_deadline: 9s }}\n\
             log: {{ level: warn }}\ndrain: 4s\n",
            self.path("all.key"),
            self.path("ca.crt"),
            servers.join(", "),
        )
    }

    fn of_pod(&self, name: &str, agent: &str) -> String {
        let tls = self.authority.certify(&[SERVICE], &self.folder, name).unwrap();
        let servers: Vec<String> = (1..=PEAKS).map(|at| format!("\"[{}]:7445\"", Bed::beyond_address(at))).collect();
        format!(
            "{}tls: {{ certificate: {}, key: {} }}\ntrust: [{{ issuer: \"{ISSUER}\", jwks: {} }}]\n\
             inbound:\n  services:\n    - name: {SERVICE}\n      \
             callers: [\"spiffe://shop.example/ns/default/sa/web\"]\n\
             lease:\n  servers: [{}]\n  name: {PEAK}\n  pod: {name}\n  agent: {agent}\n",
            self.common("orders"),
            tls.certificate.display(),
            tls.key.display(),
            self.path("jwks.json"),
            servers.join(", "),
        )
    }

    fn of_peak(&self, number: u16) -> String {
        let tls = self.authority.certify(&[PEAK], &self.folder, "peak").unwrap();
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        let own = Bed::beyond_address(number);
        let join = if number == 1 { String::new() } else { format!("join: [\"[{}]:7444\"], ", Bed::beyond_address(1)) };
        format!(
            "listen: \"[{own}]:53\"\nworkers: 1\nzones: [{{ name: shop.peak, file: {zone} }}]\nstate: {state}\n\
             cluster: {{ listen: \"[{own}]:7444\", {join}name: {PEAK}, \
             tls: {{ authorities: {cluster}.ca, certificate: {cluster}.crt, key: {cluster}.key }} }}\n\
             slices:\n  listen: \"[::]:7445\"\n  name: {PEAK}\n  certificate: {certificate}\n  key: {key}\n  \
             lease: {life}ms\n  trust: [{{ issuer: \"{ISSUER}\", jwks: {jwks} }}]\n  \
             services: [{{ name: {SERVICE}, pods: [\"spiffe://shop.example/ns/default/sa/orders\"] }}]\n\
             admin: {{ listen: \"[::1]:15000\", metrics: \"[::]:15020\" }}\n",
            zone = self.path("zone"),
            state = self.path(&format!("state-{number}")),
            cluster = self.path("cluster"),
            life = LIFE.as_millis(),
            jwks = self.path("jwks.json"),
        )
    }
}

impl Town {
    pub(crate) async fn build() -> Self {
        let alone = ALONE.lock().await;
        let mut bed = Bed::with_agents(3).await;
        let material = Material::write(&bed);
        let birds = bgp::birds(&bed);
        let mut peaks = Vec::new();
        for number in 1..=PEAKS {
            peaks.push(start_peak(&bed, &material, number).await);
        }
        let caller = bed.beyond_router("caller", PEAKS + 1, material.overlays());
        std::fs::write(material.folder.join("caller.yaml"), material.common("web")).unwrap();
        caller.funicular("init").args(["--mark", &MARK.to_string()]).run().unwrap();
        let sidecar = caller.funicular("sidecar").args(["--config", &material.path("caller.yaml")]);
        let mut sidecar = sidecar.spawn(&material.folder.join("caller.log")).unwrap();
        sidecar.wait_until(PATIENCE, || http_get(&caller, 15020, "/ready").is_ok_and(|page| page.is_some())).unwrap();
        let answered = shell(&caller, &format!("getent ahostsv6 {SERVICE}"));
        let stand_in = answered.split_whitespace().next().unwrap().parse().unwrap();
        bed.client = caller;
        Self {
            members: Vec::new(),
            _caller: sidecar,
            peaks,
            _birds: birds,
            stand_in,
            material,
            bed,
            born: 0,
            _alone: alone,
        }
    }

    /// Starts pods until there are so many, all at once, on the nodes in turn; returns when all say that they are ready.
    pub(crate) async fn grow(&mut self, to: usize) {
        let first = self.members.len();
        for _ in first..to {
            let member = self.start_pod();
            self.members.push(member);
        }
        let deadline = Instant::now() + READY_WITHIN;
        while let Some(late) = self.members[first..].iter().find(|member| !member.is_ready()) {
            assert!(Instant::now() < deadline, "{} is not ready; it said:\n{}", late.pod.name(), late.sidecar.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn start_pod(&mut self) -> Member {
        let node = (self.born % 3) as u16 + 1;
        self.born += 1;
        let pod = self.bed.attach(name(format!("orders-{}", self.born)), node);
        let name = pod.name();
        pod.funicular("init")
            .args(["--mark", &MARK.to_string(), "--device", "eth0", "--service-prefix", SPACE])
            .run()
            .unwrap();
        let config = self.material.folder.join(format!("{name}.yaml"));
        let text = self.material.of_pod(name, &self.bed.socket(node).display().to_string());
        std::fs::write(&config, text).unwrap();
        let listen = format!("127.0.0.1:{PORT}");
        let app = pod.funicular("demo").args(["serve", "--name", name, "--listen", &listen]);
        let app = app.spawn(&self.material.folder.join(format!("{name}-app.log"))).unwrap();
        let sidecar = pod.funicular("sidecar").arg("--config").arg(&config);
        let sidecar = sidecar.spawn(&self.material.folder.join(format!("{name}.log"))).unwrap();
        Member { sidecar, app, pod, node }
    }

    /// What Peak shows of the service, from whichever node answers.
    fn shown(&self) -> Option<Value> {
        let alive = self.peaks.iter().filter(|peak| peak.process.is_some());
        let page = alive.map(|peak| http_get(&peak.pod, 15000, "/slices").unwrap()).next()??;
        let all: Value = serde_json::from_str(&page).unwrap();
        all["services"].get(0).cloned()
    }

    /// How many slices each pod with a lease has, and how many handovers are under way.
    pub(crate) fn shares(&self) -> (BTreeMap<String, u64>, usize) {
        let Some(shown) = self.shown() else { return (BTreeMap::new(), 0) };
        let pods = shown["pods"].as_array().unwrap().iter();
        let shares = pods.map(|pod| (pod["name"].as_str().unwrap().to_owned(), pod["slices"].as_u64().unwrap()));
        (shares.collect(), shown["handovers"].as_array().unwrap().len())
    }

    /// Why handovers do not go on, in the words of who waits.
    pub(crate) fn waits(&self) -> Vec<String> {
        let shown = self.shown().unwrap_or_default();
        let handovers = shown["handovers"].as_array().into_iter().flatten();
        handovers.filter_map(|handover| handover["waits"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until exactly those pods that are here have equal shares and nothing moves.
    pub(crate) async fn settled(&self) {
        let here: Vec<&str> = self.members.iter().map(|member| member.pod.name()).collect();
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let (shares, moving) = self.shares();
            let pods = here.len() as u64;
            let even = shares.values().all(|slices| (SLICES / pods..=SLICES.div_ceil(pods)).contains(slices));
            if shares.len() == here.len() && here.iter().all(|pod| shares.contains_key(*pod)) && even && moving == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not settled: {shares:?}, {moving} under way, and here are {here:?}\n{}",
                self.said() + &format!("{:#}", self.shown().unwrap_or_default()["handovers"])
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last words of every process, for whoever looks for what went wrong.
    fn said(&self) -> String {
        let peaks = self.peaks.iter().filter_map(|peak| Some((peak.pod.name(), peak.process.as_ref()?)));
        let all = peaks.chain(self.members.iter().map(|member| (member.pod.name(), &member.sidecar)));
        let last = |said: String| said.lines().rev().take(12).map(|line| format!("  {line}\n")).collect::<String>();
        all.map(|(name, process)| format!("{name}:\n{}", last(process.said()))).collect()
    }

    /// Tells pods to go, as an orchestrator does, until so many are left; returns when they have ended.
    pub(crate) async fn shrink(&mut self, to: usize) {
        for going in self.members.split_off(to) {
            self.leave(going).await;
        }
    }

    /// One pod goes in order, and its network with it.
    pub(crate) async fn leave(&self, member: Member) {
        member.sidecar.signal(Signal::TERM);
        let Member { sidecar: _, app: _, ref pod, .. } = member;
        until("the sidecar's end", || !accepts(pod, SocketAddr::from((Ipv6Addr::LOCALHOST, 15020)))).await;
    }

    /// A pod dies without a word, and its network with it.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut member = self.members.remove(index);
        member.sidecar.kill();
        member.app.kill();
    }

    /// The cable of a node is cut: whoever speaks to its pods hears nothing, not even that they are gone. Gives them.
    pub(crate) fn cut(&mut self, node: u16) -> Vec<Member> {
        self.bed.node(node).pod.set_down("eth0").unwrap();
        let (beyond, here) = std::mem::take(&mut self.members).into_iter().partition(|member| member.node == node);
        self.members = here;
        beyond
    }

    /// It is mended. What a device loses when it goes down, whoever runs the node gives it again.
    pub(crate) fn mend(&mut self, node: u16, beyond: Vec<Member>) {
        self.bed.connect_again(node);
        self.members.extend(beyond);
    }

    /// One address of each slice that a pod has.
    pub(crate) fn addresses_of(&self, member: usize) -> Vec<Ipv6Addr> {
        let shown = self.shown().unwrap();
        let name = self.members[member].pod.name();
        let number = shown["pods"].as_array().unwrap().iter().find(|pod| pod["name"] == name).unwrap()["pod"].clone();
        let runs = shown["owners"].as_array().unwrap().iter().filter(|run| run[2] == number);
        let slices = runs.flat_map(|run| (0..run[1].as_u64().unwrap()).map(|at| run[0].as_u64().unwrap() + at));
        let space = SPACE.parse::<ipnet::Ipv6Net>().unwrap().network().to_bits();
        slices.map(|slice| Ipv6Addr::from_bits(space | u128::from(slice) << (64 - SLICES.ilog2()) | 7)).collect()
    }

    /// Waits until somebody accepts connections to each of these addresses, straight from the network.
    pub(crate) async fn served(&self, addresses: Vec<Ipv6Addr>) {
        let probe = move |_: &tokio::runtime::Runtime| {
            let mut left = addresses;
            let deadline = Instant::now() + PATIENCE;
            while !left.is_empty() && Instant::now() < deadline {
                left.retain(|address| !accepts_straight(SocketAddr::from((*address, PORT))));
            }
            left.len()
        };
        assert_eq!(self.bed.client.within(probe).unwrap(), 0, "nobody serves some slices");
    }

    /// The number of the node of Peak that leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |peak: &Peak| {
            let page = http_get(&peak.pod, 15000, "/registry").ok()??;
            let told: Value = serde_json::from_str(&page).ok()?;
            Some(told["status"]["part"] == "leader")
        };
        self.peaks.iter().position(|peak| peak.process.is_some() && leads(peak) == Some(true))
    }

    /// A node of Peak dies.
    pub(crate) fn kill_peak(&mut self, index: usize) {
        self.peaks[index].process.take().unwrap().kill();
    }

    /// It comes back, and follows the others.
    pub(crate) async fn start_peak_again(&mut self, index: usize) {
        let peak = &mut self.peaks[index];
        peak.process = Some(run_peak(&peak.pod, &peak.config));
    }

    /// Waits until one of Peak's nodes leads.
    pub(crate) async fn led(&self) -> usize {
        let mut leader = None;
        until("a leader", || {
            leader = self.leader();
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// How many of Peak's nodes there are, dead or alive.
    pub(crate) fn peaks(&self) -> usize {
        self.peaks.len()
    }
}

/// What Peak's nodes prove to each other, by an authority of their own.
fn cluster(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    material::write(&folder.join("cluster.ca"), &params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new([PEAK.to_owned()]).unwrap();
    material::write(&folder.join("cluster.crt"), &params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    material::write_private(&folder.join("cluster.key"), &key.serialize_pem()).unwrap();
}

/// Whether somebody accepts a connection that goes around the pod's own sidecar, within a tenth of a second.
fn accepts_straight(address: SocketAddr) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.set_mark(MARK).unwrap();
    socket.connect_timeout(&address.into(), Duration::from_millis(100)).is_ok()
}

async fn start_peak(bed: &Bed, material: &Material, number: u16) -> Peak {
    let pod = bed.beyond_router(name(format!("peak-{number}")), number, Vec::new());
    let zone = format!(
        "$ORIGIN shop.peak.\n@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 AAAA {}\n\
         orders 3600 APL 2:{SPACE}\n\
         _ssa.orders 60 SVCB 1 {SERVICE}. port={PORT} key65400=\"v=ssa1 layout=random:64 slices={}\"\n",
        Bed::beyond_address(1),
        SLICES.ilog2(),
    );
    std::fs::write(material.folder.join("zone"), zone).unwrap();
    let config = material.folder.join(format!("peak-{number}.yaml"));
    std::fs::write(&config, material.of_peak(number)).unwrap();
    let mut process = run_peak(&pod, &config);
    let leases = SocketAddr::from((Bed::beyond_address(number), 7445));
    process.wait_until(PATIENCE, || accepts(&pod, leases)).unwrap();
    Peak { process: Some(process), pod, config }
}

fn run_peak(pod: &Pod, config: &Path) -> Process {
    pod.funicular("peak").arg("--config").arg(config).spawn(&config.with_extension("log")).unwrap()
}
