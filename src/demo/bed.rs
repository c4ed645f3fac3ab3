//! The bed: pods as network and mount namespaces, links between them, processes in them. Everything ends with its
//! handle.
//!
//! A namespace is a property of a thread, so each pod is a thread that entered its own; work is sent to it, and
//! processes are started from it. The namespaces have no names: when the thread and the processes are gone, so are they.
//! The process that builds a bed needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN` in its user namespace.

use std::ffi::OsStr;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use ipnet::{IpNet, Ipv6Net};
use tokio::runtime::Runtime;

pub use super::door::BedError;
use super::door::{Door, Inside, Job};
use super::process::PodCommand;
use crate::net::namespace::{self, NetNs, Overlay};
use crate::net::routes::{Action, LOOPBACK, MAIN, Netlink, Route, RouteError};

/// Who wrote the bed's routes: an administrator.
const PROTOCOL: u8 = 4;

/// Environment variables that would change what an unmodified program does.
const FOREIGN_SETTINGS: [&str; 9] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LOCALDOMAIN",
    "NO_PROXY",
    "RES_OPTIONS",
    "all_proxy",
    "http_proxy",
    "https_proxy",
];

/// A pod: a network and a mount namespace of its own.
#[derive(Debug)]
pub struct Pod {
    name: &'static str,
    exe: PathBuf,
    door: Door,
    thread: Option<JoinHandle<()>>,
    network: NetNs,
    task: String,
}

impl Pod {
    /// A pod without links, its loopback up. `exe` is this crate's program, which starts every other; `overlays` are
    /// seen in place of the machine's own files.
    ///
    /// # Errors
    /// When the kernel refuses the namespaces or the mounts.
    pub fn new(name: &'static str, exe: &Path, overlays: Vec<Overlay>) -> Result<Self, BedError> {
        let refused = |source| BedError::Namespace { pod: name, source };
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (born, birth) = mpsc::sync_channel(1);
        let live = move || match settle(&overlays) {
            Ok((inside, network, task)) => {
                let _ = born.send(Ok((network, task)));
                for job in inbox {
                    job(&inside);
                }
            }
            Err(error) => {
                let _ = born.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(live).map_err(refused)?;
        let (network, task) = birth.recv().map_err(|_| BedError::Ended { pod: name })?.map_err(refused)?;
        let door = Door { pod: name, jobs };
        let pod = Self { name, exe: exe.to_owned(), door, thread: Some(thread), network, task };
        pod.set_up(LOOPBACK)?;
        Ok(pod)
    }

    /// What the pod is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The thread that is the pod, by its number as `/proc` shows it: what `nsenter --target` takes.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Runs `work` inside the pod and gives its result; sockets that it opens stay the pod's. One work at a time.
    ///
    /// # Errors
    /// [`BedError::Ended`] when `work` panics.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce(&Runtime) -> T + Send + 'static) -> Result<T, BedError> {
        self.inside(|inside| work(&inside.runtime))
    }

    fn inside<T: Send + 'static>(&self, work: impl FnOnce(&Inside) -> T + Send + 'static) -> Result<T, BedError> {
        self.door.inside(work)
    }

    /// A command that will run in this pod, dies with it, and sees none of the user's settings.
    pub fn command(&self, program: impl AsRef<OsStr>) -> PodCommand {
        let program = program.as_ref();
        self.launch(program, Path::new(program).file_name().unwrap_or(program))
    }

    /// A command that runs this crate's own program.
    #[must_use]
    pub fn funicular(&self, role: &str) -> PodCommand {
        self.launch(self.exe.as_os_str(), OsStr::new("funicular")).arg(role)
    }

    fn launch(&self, program: &OsStr, shown: &OsStr) -> PodCommand {
        let mut command = Command::new(&self.exe);
        let parent = std::process::id().to_string();
        command.args(["demo", "exec", "--parent", &parent, "--"]).arg(program).stdin(Stdio::null());
        let foreign = |name: &str| FOREIGN_SETTINGS.contains(&name) || name.starts_with("FUNICULAR_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(foreign)) {
            command.env_remove(&name);
        }
        PodCommand::new(self.door.clone(), command, shown.to_string_lossy().into_owned())
    }

    /// A cable to `other`: `here` names this pod's end, `there` the other's. Both ends are up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link(&self, here: &'static str, other: &Self, there: &'static str) -> Result<(), BedError> {
        let far = other.network.clone();
        self.netlink(move |netlink| async move { netlink.add_veth(here, there, far.fd()).await })?;
        self.set_up(here)?;
        other.set_up(there)
    }

    /// Turns a device on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&self, device: &'static str) -> Result<(), BedError> {
        self.netlink(move |netlink| async move { netlink.set_up(device).await })
    }

    /// Turns a device off, as if its cable were cut.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_down(&self, device: &'static str) -> Result<(), BedError> {
        self.netlink(move |netlink| async move { netlink.set_down(device).await })
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&self, device: &'static str, address: Ipv6Net) -> Result<(), BedError> {
        self.netlink(move |netlink| async move { netlink.add_address(device, IpNet::V6(address)).await })
    }

    /// Sends what goes to `prefix` to `gateway`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route(&self, prefix: Ipv6Net, gateway: Ipv6Addr) -> Result<(), BedError> {
        let route = Route {
            destination: IpNet::V6(prefix),
            action: Action::Unicast { via: Some(gateway.into()), device: None },
            source: None,
            table: MAIN,
            protocol: PROTOCOL,
        };
        self.netlink(move |netlink| async move { netlink.add_route(&route).await })
    }

    /// Makes the pod a router.
    ///
    /// # Errors
    /// Where `/proc/sys` may not be written.
    pub fn forward(&self) -> Result<(), BedError> {
        let allowed = self.network.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        allowed.map_err(|source| BedError::Io { pod: self.name, action: String::from("forward packets"), source })
    }

    fn netlink<F>(&self, work: impl FnOnce(Netlink) -> F + Send + 'static) -> Result<(), BedError>
    where
        F: Future<Output = Result<(), RouteError>>,
    {
        let done = self.inside(move |inside| inside.runtime.block_on(work(inside.netlink.clone())))?;
        done.map_err(|source| BedError::Network { pod: self.name, source })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The end of its jobs ends the thread; the processes that it started get SIGKILL from the kernel.
        self.door.jobs = mpsc::channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into namespaces of its own, for good.
fn settle(overlays: &[Overlay]) -> io::Result<(Inside, NetNs, String)> {
    let network = NetNs::create()?;
    network.enter()?;
    namespace::own_mounts(overlays)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let netlink = runtime.block_on(async { Netlink::here() }).map_err(io::Error::other)?;
    // "PID/task/TID".
    let task = std::fs::read_link("/proc/thread-self")?;
    let task = task.file_name().map(|number| number.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((Inside { runtime, netlink }, network, task))
}
