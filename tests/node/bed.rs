//! Nodes with pods around a router, and a client beyond it; all of them network namespaces.
//!
//! ```text
//!  client ── router ──┬── n1 ── p11 p12 …
//!                     ├── n2 ── p21 …
//!                     └── …
//! ```
//!
//! Pods serve a whole space (AnyIP, as `funicular init` sets it up) and answer everything with their name.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use funicular::demo::bed::Pod;
use funicular::demo::process::Process;
use funicular::demo::programs;
use funicular::net::agent::AgentLink;
use funicular::net::namespace::{NetNs, Overlay};
use funicular::net::routes::Netlink;
use funicular::wire::agent::{Arriving, Place, SpaceClaim, State};
use ipnet::Ipv6Net;
use rustix::process::Signal;
use tempfile::TempDir;

/// Far longer than anything takes, and short enough for a person to wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The service's space.
pub(crate) const SPACE: &str = "2001:db8:5::/64";
pub(crate) const LOW: &str = "2001:db8:5::/65";
pub(crate) const HIGH: &str = "2001:db8:5:0:8000::/65";

/// Names live as long as the tests do: a bed keeps `&'static str`.
pub(crate) fn name(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

pub(crate) fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn subnet(group: u16, number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, group, number, 0, 0, 0, 0)
}

fn host(subnet: Ipv6Addr, host: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.to_bits() | host)
}

/// A node, its agent and its pods.
pub(crate) struct Node {
    pub(crate) pod: Pod,
    pub(crate) number: u16,
    pub(crate) agent: Option<Process>,
    pub(crate) config: PathBuf,
}

impl Node {
    pub(crate) fn address(&self) -> Ipv6Addr {
        host(subnet(0xa, self.number), 2)
    }
}

/// A pod that serves, and the link from its sidecar to the agent.
pub(crate) struct Server {
    pub(crate) pod: Pod,
    pub(crate) node: u16,
    pub(crate) number: u16,
    pub(crate) link: AgentLink,
    _relay: Process,
}

impl Server {
    pub(crate) fn address(&self) -> Ipv6Addr {
        host(subnet(0xb, self.number), 2)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.pod.name()
    }

    /// Claims, and waits for the agent's word that all of it is in place.
    pub(crate) async fn claim(&mut self, owned: &[&str], arriving: &[(&str, Place)], leaving: &[&str]) {
        let state = self.claim_and_hear(owned, arriving, leaving).await;
        assert_eq!(state, State::InPlace, "{}", self.name());
    }

    /// Claims, and gives what the agent says first.
    pub(crate) async fn claim_and_hear(
        &mut self,
        owned: &[&str],
        arriving: &[(&str, Place)],
        leaving: &[&str],
    ) -> State {
        let number = self.link.claim(spaces(owned, arriving, leaving));
        within("a report", self.link.report_on(number)).await.state
    }
}

/// A claim to parts of [`SPACE`].
pub(crate) fn spaces(owned: &[&str], arriving: &[(&str, Place)], leaving: &[&str]) -> Vec<SpaceClaim> {
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
    let arriving = arriving.iter().map(|(prefix, from)| Arriving { prefixes: nets(&[prefix]), from: *from });
    let arriving = arriving.collect();
    vec![SpaceClaim { space: net(SPACE), owned: nets(owned), arriving, leaving: nets(leaving) }]
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Waits until `holds`; what is waited for happens in another process, which gives no other sign.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything.
pub(crate) struct Bed {
    // Dropped in this order: processes end before the namespaces they run in.
    pub(crate) servers: Vec<Server>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: Pod,
    pub(crate) router: Pod,
    pub(crate) folder: TempDir,
    exe: PathBuf,
    /// Pods that were ever attached to nodes: each has a subnet of its own.
    attached: u16,
}

impl Bed {
    /// A router and a client, and `nodes` nodes without agents.
    pub(crate) fn new(nodes: u16) -> Self {
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_funicular"));
        let folder = tempfile::tempdir().unwrap();
        let router = Pod::new("router", &exe, Vec::new()).unwrap();
        router.forward().unwrap();
        let client = Pod::new("client", &exe, Vec::new()).unwrap();
        join(&router, &client, subnet(0xc, 0));
        let nodes = (1..=nodes).map(|number| {
            let pod = Pod::new(name(format!("n{number}")), &exe, Vec::new()).unwrap();
            pod.forward().unwrap();
            join(&router, &pod, subnet(0xa, number));
            let config = folder.path().join(format!("n{number}.yaml"));
            Node { pod, number, agent: None, config }
        });
        let nodes = nodes.collect();
        Self { servers: Vec::new(), nodes, client, router, folder, exe, attached: 0 }
    }

    /// A bed whose agents announce nothing: the test plays the routing daemon.
    pub(crate) async fn with_agents(nodes: u16) -> Self {
        let mut bed = Self::new(nodes);
        for number in 1..=nodes {
            bed.start_agent(number, "").await;
        }
        bed
    }

    pub(crate) fn node(&self, number: u16) -> &Node {
        &self.nodes[usize::from(number) - 1]
    }

    /// Turns a node's cable on again, with what it had.
    pub(crate) fn connect_again(&self, number: u16) {
        let node = &self.node(number).pod;
        node.set_up("eth0").unwrap();
        settle(node, "eth0");
        let on_link = Ipv6Net::new(host(subnet(0xa, number), 2), 64).unwrap();
        // The kernel keeps addresses of a device that goes down only where it is told to.
        shell(
            node,
            &format!(
                "ip -6 address replace {on_link} dev eth0 nodad; ip -6 route replace default via {}",
                host(subnet(0xa, number), 1)
            ),
        );
    }

    /// The unix socket of a node's agent.
    pub(crate) fn socket(&self, number: u16) -> PathBuf {
        self.folder.path().join(format!("n{number}.sock"))
    }

    /// Starts a node's agent, with `more` in its configuration, and waits until it is ready.
    pub(crate) async fn start_agent(&mut self, number: u16, more: &str) {
        let socket = self.socket(number);
        let node = &mut self.nodes[usize::from(number) - 1];
        let config = format!(
            "address: \"{}\"\nspaces: [\"{SPACE}\"]\nsocket: {}\npods: {{ users: [0] }}\nlinger: 2s\n\
             carrying: {{ nodes: [\"2001:db8:a::/48\"] }}\n\
             admin: {{ listen: \"[::1]:15100\", metrics: \"[::]:15120\" }}\n{more}",
            node.address(),
            socket.display(),
        );
        std::fs::write(&node.config, config).unwrap();
        self.start_agent_again(number).await;
    }

    /// Starts a node's agent with the configuration that it had.
    pub(crate) async fn start_agent_again(&mut self, number: u16) {
        let log = self.folder.path().join(format!("n{number}.log"));
        let node = &mut self.nodes[usize::from(number) - 1];
        let command = node.pod.funicular("node").arg("--config").arg(&node.config);
        let mut agent = command.spawn(&log).unwrap();
        let ready = || funicular::demo::site::http_get(&node.pod, 15120, "/ready").is_ok_and(|page| page.is_some());
        agent.wait_until(PATIENCE, ready).unwrap();
        node.agent = Some(agent);
    }

    /// Runs a shell script on a node whose agent cannot answer it meanwhile.
    pub(crate) fn behind_the_back_of_the_agent(&self, number: u16, script: &str) {
        let node = self.node(number);
        let agent = node.agent.as_ref().unwrap();
        agent.signal(Signal::STOP);
        shell(&node.pod, script);
        agent.signal(Signal::CONT);
    }

    /// Kills a node's agent as a crash would.
    pub(crate) fn kill_agent(&mut self, number: u16) {
        self.nodes[usize::from(number) - 1].agent.take().unwrap().kill();
    }

    /// A bare pod on a node, which the router has a way to.
    pub(crate) fn attach(&mut self, name: &'static str, node: u16) -> Pod {
        self.attached += 1;
        let pod = Pod::new(name, &self.exe, Vec::new()).unwrap();
        join(&self.node(node).pod, &pod, subnet(0xb, self.attached));
        self.router.route(Ipv6Net::new(subnet(0xb, self.attached), 64).unwrap(), self.node(node).address()).unwrap();
        pod
    }

    /// A pod beyond the router, on no node.
    pub(crate) fn beyond_router(&self, name: &'static str, number: u16, overlays: Vec<Overlay>) -> Pod {
        let pod = Pod::new(name, &self.exe, overlays).unwrap();
        join(&self.router, &pod, subnet(0xd, number));
        pod
    }

    /// The address of such a pod.
    pub(crate) fn beyond_address(number: u16) -> Ipv6Addr {
        host(subnet(0xd, number), 2)
    }

    /// A pod that serves, on a node; gives its index among the servers.
    pub(crate) fn add_pod(&mut self, node: u16) -> usize {
        let pod = self.attach(name(format!("p{node}{}", self.attached + 1)), node);
        let number = self.attached;
        let any_ip = format!("ip -6 rule add iif eth0 lookup 100 && ip -6 route add local {SPACE} dev lo table 100");
        shell(&pod, &any_ip);
        super::load::serve(&namespace(&pod), pod.name());
        let here = self.folder.path().join(format!("{}.sock", pod.name()));
        let relay = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/relay.py");
        let python = programs::find("python3").expect("tests/run installs python3");
        let log = self.folder.path().join(format!("{}.log", pod.name()));
        let relay = pod.command(python).arg(relay).arg(self.socket(node)).arg(&here).spawn(&log).unwrap();
        self.servers.push(Server { pod, node, number, link: AgentLink::open(here, 0), _relay: relay });
        self.servers.len() - 1
    }

    /// Where a server is, as Peak would tell others.
    pub(crate) fn place(&self, server: usize) -> Place {
        let server = &self.servers[server];
        Place { node: self.node(server.node).address(), pod: server.address() }
    }

    /// Plays the routing daemons: the router sends `prefix` to `node` from now on.
    pub(crate) fn announce(&self, prefix: &str, node: u16) {
        let via = self.node(node).address();
        shell(&self.router, &format!("ip -6 route replace {prefix} via {via}"));
    }

    /// The routes of one table of a node, as `ip` lists them.
    pub(crate) fn table(&self, node: u16, table: &str) -> Vec<String> {
        let listed = shell(&self.node(node).pod, &format!("ip -6 route show table {table}"));
        listed.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// How many routes of an earlier agent a node's agent has not given up yet.
    pub(crate) fn inherited(&self, node: u16) -> Option<u64> {
        let page = funicular::demo::site::http_get(&self.node(node).pod, 15100, "/slices").unwrap()?;
        serde_json::from_str::<serde_json::Value>(&page).unwrap()["inherited"].as_u64()
    }

    /// What a node's agent counts.
    pub(crate) fn counted(&self, node: u16, metric: &str) -> f64 {
        let page =
            funicular::demo::site::http_get(&self.node(node).pod, 15120, "/metrics").unwrap().unwrap_or_default();
        let samples = page.lines().filter(|line| line.starts_with(metric));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// The namespace of a pod, for threads of the test's own.
pub(crate) fn namespace(pod: &Pod) -> NetNs {
    NetNs::open(&Path::new("/proc/self/task").join(pod.task()).join("ns/net")).unwrap()
}

/// Runs a shell script in a pod, which must succeed; gives what it printed.
pub(crate) fn shell(pod: &Pod, script: &str) -> String {
    pod.command("sh").args(["-ec", &format!("PATH=$PATH:/usr/sbin:/sbin; {script}")]).run().unwrap()
}

/// A cable from `inner` to a pod beyond it, which has no other way out.
fn join(inner: &Pod, outer: &Pod, subnet: Ipv6Addr) {
    let on_link = |number| Ipv6Net::new(host(subnet, number), 64).unwrap();
    inner.link(outer.name(), outer, "eth0").unwrap();
    inner.add_address(outer.name(), on_link(1)).unwrap();
    outer.add_address("eth0", on_link(2)).unwrap();
    outer.route(Ipv6Net::default(), host(subnet, 1)).unwrap();
    settle(inner, outer.name());
    settle(outer, "eth0");
}

/// Waits until a device carries for good: late news of its cable would take its addresses away for a moment.
fn settle(pod: &Pod, device: &str) {
    let (namespace, device) = (namespace(pod), device.to_owned());
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Netlink::inside(&namespace).unwrap().settled(&device).await.unwrap() });
    };
    // A runtime of its own: the test's is busy with the test.
    std::thread::spawn(work).join().unwrap();
}
