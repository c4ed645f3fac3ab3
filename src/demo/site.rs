//! The site: the plan built on a bed, with every role and every application as a process of its own.
//!
//! What is needed to take it down is nothing: dropping it ends the processes, then the pods.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv6Net;

use super::bed::{BedError, Pod};
use super::material::{self, Authority, MaterialError};
use super::plan::{self, APPLICATION_PORT, Host, LEGACY, MARK, PODS, SERVICES, Service};
use super::process::{PodCommand, Process};
use super::programs;
use crate::net::namespace::Overlay;
use crate::wire::jwt::SigningKey;

/// How long a role may take to be ready. Generous: it is for machines that are busy with other things.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// A connection to a role's own port.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);
/// Where every sidecar tells its metrics and whether it is ready.
pub const METRICS_PORT: u16 = 15020;
/// Where the application of [`LEGACY`] listens.
pub const LEGACY_PORT: u16 = 8000;

/// Why the site could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Keys, certificates and files.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The key that was just made does not sign.
    #[error("the token key that was just made cannot be read back")]
    Key(#[from] crate::wire::jwt::BadSigningKey),
    /// Pods and processes.
    #[error(transparent)]
    Bed(#[from] BedError),
}

/// What kind of site to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// This crate's program.
    pub exe: PathBuf,
    /// A folder that only this user may read: keys, zones, configuration, logs.
    pub folder: PathBuf,
    /// Whether `peak.` has two name servers.
    pub second_peak: bool,
}

/// A running site.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: processes end before the pods they run in.
    processes: BTreeMap<String, Process>,
    client: Pod,
    pods: Vec<Pod>,
    name_servers: Vec<(Host, Pod)>,
    router: Pod,
    exe: PathBuf,
    folder: PathBuf,
    ca: PathBuf,
    signing_key: SigningKey,
}

impl Site {
    /// Builds everything and returns when it is ready; `doing` hears what is being done.
    ///
    /// # Errors
    /// The first thing that went wrong; what was built until then is taken down.
    pub fn build(options: &Options, doing: &mut dyn FnMut(&str)) -> Result<Self, SiteError> {
        let Options { exe, folder, second_peak } = options;
        let servers: &[Host] = if *second_peak { &[plan::MAIN_PEAK, plan::SECOND_PEAK] } else { &[plan::MAIN_PEAK] };
        let name_servers: Vec<Host> = servers.iter().copied().chain([plan::CLUSTER_PEAK]).collect();
        doing("making keys, certificates and zones");
        let files = Files::write(folder, servers)?;
        doing("making network namespaces and links");
        let overlays = overlays(&files);
        let router = Pod::new("router", exe, Vec::new())?;
        router.forward()?;
        let attach = |host: Host| attach(host, &router, exe, overlays.clone());
        let client = attach(plan::CLIENT)?;
        let pods = (0..PODS).map(|index| attach(plan::pod(index))).collect::<Result<Vec<_>, _>>()?;
        let name_servers = name_servers.into_iter().map(|host| Ok((host, attach(host)?)));
        let name_servers = name_servers.collect::<Result<Vec<_>, BedError>>()?;
        for service in SERVICES {
            for (pod, prefix) in service.routes() {
                router.route(prefix, plan::pod(pod).address())?;
            }
        }
        let Files { ca, signing_key, .. } = files;
        let processes = BTreeMap::new();
        let (exe, folder) = (exe.clone(), folder.clone());
        let mut site = Self { processes, client, pods, name_servers, router, exe, folder, ca, signing_key };
        doing("starting both levels of Peak");
        site.start_name_servers()?;
        doing("redirecting the pods' traffic to their sidecars");
        site.set_up_networks()?;
        doing("starting the sidecars and the applications");
        site.start_pods()?;
        Ok(site)
    }

    /// The pod whose programs call.
    #[must_use]
    pub fn client(&self) -> &Pod {
        &self.client
    }

    /// A server pod.
    #[must_use]
    pub fn pod(&self, index: usize) -> &Pod {
        &self.pods[index]
    }

    /// Where all packets pass.
    #[must_use]
    pub fn router(&self) -> &Pod {
        &self.router
    }

    /// The pod of the cluster's name server.
    #[must_use]
    pub fn cluster(&self) -> &Pod {
        &self.name_servers[self.name_servers.len() - 1].1
    }

    /// The certificate of the authority that proves servers.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The key that signs the caller's tokens.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    /// This crate's program.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// The site's private folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A running process: `POD/peak`, `POD/sidecar`, `POD/app` or a name given to [`Site::run`].
    #[must_use]
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        self.processes.get_mut(name)
    }

    /// The names of all running processes.
    pub fn process_names(&self) -> impl Iterator<Item = &str> {
        self.processes.keys().map(String::as_str)
    }

    /// Kills a process as a crash would.
    pub fn kill(&mut self, name: &str) {
        self.processes.remove(name);
    }

    /// Starts a program that runs until the site ends, and waits until `ready`.
    ///
    /// # Errors
    /// When it cannot be started or is not ready in time.
    pub fn run(
        &mut self,
        name: &str,
        command: PodCommand,
        ready: impl Fn(&Self, &str) -> bool,
    ) -> Result<(), BedError> {
        self.start(name, command)?;
        self.wait(name, ready)
    }

    fn start(&mut self, name: &str, command: PodCommand) -> Result<(), BedError> {
        let log = self.folder.join(format!("{}.log", name.replace('/', "-")));
        self.processes.insert(name.to_owned(), command.spawn(&log)?);
        Ok(())
    }

    fn wait(&mut self, name: &str, ready: impl Fn(&Self, &str) -> bool) -> Result<(), BedError> {
        // Out of the site for a moment, so that `ready` can look at the rest of it.
        let Some(mut process) = self.processes.remove(name) else { return Ok(()) };
        let said = process.log().to_owned();
        let said = || std::fs::read_to_string(&said).unwrap_or_default();
        process.wait_until(READY_WITHIN, || ready(self, &said()))?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// What a sidecar counts: the value of the metric with exactly this name and these labels, 0 when it is not there.
    ///
    /// # Errors
    /// When the pod cannot be entered.
    pub fn counted(&self, pod: &Pod, metric: &str, labels: &[(&str, &str)]) -> Result<f64, BedError> {
        let text = http_get(pod, METRICS_PORT, "/metrics")?.unwrap_or_default();
        Ok(sum_of(&text, metric, labels))
    }

    /// All refusals that a pod's sidecar has counted so far, by reason.
    ///
    /// # Errors
    /// When the pod cannot be entered.
    pub fn refusals(&self, pod: &Pod) -> Result<BTreeMap<String, u64>, BedError> {
        let text = http_get(pod, METRICS_PORT, "/metrics")?.unwrap_or_default();
        let mut refusals = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("funicular_refusals_total{")) {
            let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
            if let (Some(reason), Some(count)) = (reason, count) {
                *refusals.entry(reason.to_owned()).or_default() += count as u64;
            }
        }
        Ok(refusals)
    }

    fn start_name_servers(&mut self) -> Result<(), SiteError> {
        let last = self.name_servers.len() - 1;
        let mut started = Vec::new();
        for (at, (host, pod)) in self.name_servers.iter().enumerate() {
            let (zone, file) = if at == last { ("shop.peak", "cluster.zone") } else { ("peak", "main.zone") };
            let zone = format!("{zone}={}", self.folder.join(file).display());
            let listen = format!("[{}]:53", host.address());
            let command = pod.funicular("peak").args(["--zone", &zone, "--listen", &listen]);
            started.push((format!("{}/peak", host.name), command));
        }
        self.run_together(started, |_, said| said.contains("listening"))
    }

    /// Starts several programs at once and waits until each is ready.
    fn run_together(
        &mut self,
        programs: Vec<(String, PodCommand)>,
        ready: impl Fn(&Self, &str) -> bool,
    ) -> Result<(), SiteError> {
        let names: Vec<String> = programs.iter().map(|(name, _)| name.clone()).collect();
        for (name, command) in programs {
            self.start(&name, command)?;
        }
        for name in names {
            self.wait(&name, &ready)?;
        }
        Ok(())
    }

    fn set_up_networks(&self) -> Result<(), SiteError> {
        let mark = MARK.to_string();
        self.client.funicular("init").args(["--mark", &mark]).run()?;
        for (index, pod) in self.pods.iter().enumerate() {
            let mut init = pod.funicular("init").args(["--mark", &mark, "--device", "eth0"]);
            for service in SERVICES.iter().filter(|service| service.pods.contains(&index)) {
                init = init.args(["--service-prefix", &service.prefix().to_string()]);
            }
            init.run()?;
        }
        Ok(())
    }

    /// Every pod's sidecar and program, all at once: none of them needs another to be ready.
    fn start_pods(&mut self) -> Result<(), SiteError> {
        let mut programs = vec![(String::from("client/sidecar"), self.sidecar(&self.client))];
        for (index, pod) in self.pods.iter().enumerate() {
            programs.push((format!("{}/sidecar", pod.name()), self.sidecar(pod)));
            programs.push((format!("{}/app", pod.name()), self.application(index)?));
        }
        let listen = format!("[{}]:{LEGACY_PORT}", plan::CLUSTER_PEAK.address());
        let legacy = self.cluster().funicular("demo").args(["serve", "--name", LEGACY, "--listen", &listen]);
        programs.push((String::from("legacy/app"), legacy));
        self.run_together(programs, Self::all_ready)
    }

    /// Whether every sidecar says that it is ready and every application accepts connections.
    fn all_ready(&self, _said: &str) -> bool {
        let ready = |pod: &Pod| http_get(pod, METRICS_PORT, "/ready").is_ok_and(|page| page.is_some());
        let application = SocketAddr::from(([127, 0, 0, 1], APPLICATION_PORT));
        let legacy = SocketAddr::from((plan::CLUSTER_PEAK.address(), LEGACY_PORT));
        ready(&self.client)
            && self.pods.iter().all(|pod| ready(pod) && accepts(pod, application))
            && accepts(self.cluster(), legacy)
    }

    fn sidecar(&self, pod: &Pod) -> PodCommand {
        let config = self.folder.join(format!("{}.yaml", pod.name()));
        pod.funicular("sidecar").arg("--config").arg(config)
    }

    /// HTTP on the service's port, on IPv4's loopback alone: an application that has never heard of IPv6. The second
    /// pod's is Python's, where there is one: no program of ours.
    fn application(&self, index: usize) -> Result<PodCommand, SiteError> {
        let pod = &self.pods[index];
        let listen = format!("127.0.0.1:{APPLICATION_PORT}");
        let Some(python) = programs::find("python3").filter(|_| index == 1) else {
            return Ok(pod.funicular("demo").args(["serve", "--name", pod.name(), "--listen", &listen]));
        };
        let pages = self.folder.join(format!("{}-www", pod.name()));
        std::fs::create_dir_all(&pages).map_err(|source| MaterialError::Write { path: pages.clone(), source })?;
        material::write(&pages.join("index.html"), &format!("{}\n", pod.name()))?;
        let server = pod.command(python).args(["-m", "http.server", &APPLICATION_PORT.to_string()]);
        Ok(server.args(["--bind", "127.0.0.1", "--directory"]).arg(&pages))
    }
}

/// A pod with one link to the router.
fn attach(host: Host, router: &Pod, exe: &Path, overlays: Vec<Overlay>) -> Result<Pod, BedError> {
    let pod = Pod::new(host.name, exe, overlays)?;
    router.link(host.name, &pod, "eth0")?;
    router.add_address(host.name, on_link(host.gateway()))?;
    pod.add_address("eth0", on_link(host.address()))?;
    pod.route(Ipv6Net::default(), host.gateway())?;
    Ok(pod)
}

fn on_link(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, plan::SUBNET_BITS)
}

/// What a pod's programs read in place of the machine's own files, so that names are looked up by DNS and nowhere
/// else. A file that the machine does not have is not needed: the C library then asks a name server on the loopback
/// address, and finds the sidecar all the same.
fn overlays(files: &Files) -> Vec<Overlay> {
    let shown = [(&files.resolv_conf, "/etc/resolv.conf"), (&files.nsswitch, "/etc/nsswitch.conf")];
    shown
        .into_iter()
        // The place may be a link into a folder that only the machine's own resolver fills.
        .filter_map(|(source, target)| Some((source, std::fs::canonicalize(target).ok()?)))
        .map(|(source, target)| Overlay { source: source.clone(), target })
        .collect()
}

/// Keys, zones and configuration, written where the processes read them.
struct Files {
    ca: PathBuf,
    resolv_conf: PathBuf,
    nsswitch: PathBuf,
    signing_key: SigningKey,
}

impl Files {
    const KEY_ID: &str = "web-1";

    fn write(folder: &Path, servers: &[Host]) -> Result<Self, SiteError> {
        let authority = Authority::generate()?;
        let pem = material::signing_key_pem()?;
        let signing_key = SigningKey::from_pem(pem.as_bytes(), Self::KEY_ID)?;
        let at = |name: &str| folder.join(name);
        material::write(&at("ca.crt"), authority.pem())?;
        material::write_private(&at("web.key"), &pem)?;
        material::write(&at("jwks.json"), &crate::wire::jwks::to_jwks(&[&signing_key]))?;
        material::write(&at("resolv.conf"), &plan::resolv_conf())?;
        material::write(&at("nsswitch.conf"), plan::NSSWITCH)?;
        material::write(&at("main.zone"), &plan::main_zone(servers))?;
        material::write(&at("cluster.zone"), &plan::cluster_zone())?;
        let client = plan::client_config(servers, &at("web.key"), Self::KEY_ID, &at("ca.crt"));
        material::write(&at("client.yaml"), &client)?;
        for index in 0..PODS {
            let name = plan::pod(index).name;
            let names: Vec<&str> = served_by(index).map(|service| service.name).collect();
            let tls = authority.certify(&names, folder, name)?;
            let config = plan::server_config(servers, index, &tls, &at("jwks.json"));
            material::write(&at(&format!("{name}.yaml")), &config)?;
        }
        let (resolv_conf, nsswitch) = (at("resolv.conf"), at("nsswitch.conf"));
        Ok(Self { ca: at("ca.crt"), resolv_conf, nsswitch, signing_key })
    }
}

fn served_by(index: usize) -> impl Iterator<Item = Service> {
    SERVICES.into_iter().filter(move |service| service.pods.contains(&index))
}

/// Whether something accepts connections at an address inside a pod.
#[must_use]
pub fn accepts(pod: &Pod, address: SocketAddr) -> bool {
    pod.within(move |_| TcpStream::connect_timeout(&address, ADMIN_PATIENCE).is_ok()).unwrap_or(false)
}

/// The body that a role's own port answers with, where it answers with 200.
///
/// # Errors
/// When the pod cannot be entered.
pub fn http_get(pod: &Pod, port: u16, path: &str) -> Result<Option<String>, BedError> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    pod.within(move |_| {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, ADMIN_PATIENCE).ok()?;
        stream.set_read_timeout(Some(ADMIN_PATIENCE)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    })
}

/// The sum of all samples of `metric` that have these labels (Prometheus's text format).
fn sum_of(text: &str, metric: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    text.lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with(['{', ' ']) && wanted.iter().all(|label| rest.contains(label.as_str())))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let text =
            "# TYPE a_total counter\na_total{r=\"x\",d=\"in\"} 2\na_total{r=\"y\",d=\"in\"} 3\nab_total{r=\"x\"} 9\n";
        assert_eq!(sum_of(text, "a_total", &[("r", "x")]), 2.0);
        assert_eq!(sum_of(text, "a_total", &[("d", "in")]), 5.0);
        assert_eq!(sum_of(text, "b_total", &[]), 0.0);
    }
}
