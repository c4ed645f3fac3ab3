//! The bed: pods as network and mount namespaces, links between them, processes in them. Everything ends with its
//! handle.
//!
//! A namespace is a property of a thread, so each pod is a thread that entered its own; work is sent to it, and
//! processes are started from it. The namespaces have no names: when the thread and the processes are gone, so are they.
//! The process that builds a bed needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN` in its user namespace.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::net::namespace::{self, NamespaceError};

/// Environment variables that would change what an unmodified program does.
const FOREIGN_SETTINGS: [&str; 9] = [
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "LOCALDOMAIN", "NO_PROXY", "RES_OPTIONS", "all_proxy", "http_proxy",
    "https_proxy",
];

/// Why the bed could not be made, or something in it not be done.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A namespace.
    #[error("cannot make the namespaces of {pod}")]
    Namespace {
        /// Whose.
        pod: &'static str,
        /// Why.
        #[source]
        source: NamespaceError,
    },
    /// Work sent to a pod's thread panicked.
    #[error("the thread of {pod} has ended")]
    Ended {
        /// Whose.
        pod: &'static str,
    },
    /// A thread, file or pipe.
    #[error("cannot {action} in {pod}")]
    Io {
        /// Where.
        pod: &'static str,
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program that must succeed did not.
    #[error("{program} failed in {pod} ({status}):\n{output}")]
    Failed {
        /// Where.
        pod: &'static str,
        /// Which program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// Something did not come true in time.
    #[error("{what} in {pod} was not ready after {} s; it said:\n{said}", .after.as_secs())]
    NotReady {
        /// Where.
        pod: &'static str,
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of its output.
        said: String,
    },
}

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// A pod: a network and a mount namespace of its own.
pub struct Pod {
    name: &'static str,
    exe: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    network: OwnedFd,
    task: String,
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pod").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pod {
    /// A pod without links. `exe` is this crate's program, which starts every other; `files` are shown in place of
    /// the machine's own (source, place).
    ///
    /// # Errors
    /// When the kernel refuses the namespaces or the mounts.
    pub fn new(name: &'static str, exe: &Path, files: Vec<(PathBuf, PathBuf)>) -> Result<Self, BedError> {
        let io = |action: &str, source| BedError::Io { pod: name, action: action.to_owned(), source };
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (born, birth) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("pod-{name}"))
            .spawn(move || match settle(&files) {
                Ok((runtime, network, task)) => {
                    let _ = born.send(Ok((network, task)));
                    for job in inbox {
                        job(&runtime);
                    }
                }
                Err(error) => {
                    let _ = born.send(Err(error));
                }
            })
            .map_err(|source| io("start a thread", source))?;
        let (network, task) = birth
            .recv()
            .map_err(|_| BedError::Ended { pod: name })?
            .map_err(|source| BedError::Namespace { pod: name, source })?;
        Ok(Self { name, exe: exe.to_owned(), jobs: Some(jobs), thread: Some(thread), network, task })
    }

    /// What the pod is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The thread that is the pod, by its number outside: what `nsenter --target` takes.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Runs `work` inside the pod and gives its result; sockets that it opens stay the pod's.
    ///
    /// # Errors
    /// [`BedError::Ended`] when `work` panics.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce(&Runtime) -> T + Send + 'static) -> Result<T, BedError> {
        let (reply, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |runtime| {
            let _ = reply.send(work(runtime));
        });
        let ended = || BedError::Ended { pod: self.name };
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())
    }

    /// A command that will run in this pod, dies with it, and sees none of the user's settings.
    pub fn command(&self, program: impl AsRef<OsStr>) -> PodCommand<'_> {
        let program = program.as_ref();
        self.launch(program, Path::new(program).file_name().unwrap_or(program))
    }

    /// A command that runs this crate's own program.
    #[must_use]
    pub fn funicular(&self, role: &str) -> PodCommand<'_> {
        self.launch(self.exe.as_os_str(), OsStr::new("funicular")).arg(role)
    }

    fn launch(&self, program: &OsStr, shown: &OsStr) -> PodCommand<'_> {
        let mut command = Command::new(&self.exe);
        let parent = std::process::id().to_string();
        command.args(["demo", "exec", "--parent", &parent, "--"]).arg(program).stdin(Stdio::null());
        let foreign = |name: &str| FOREIGN_SETTINGS.contains(&name) || name.starts_with("FUNICULAR_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(foreign)) {
            command.env_remove(&name);
        }
        PodCommand::new(self, command, shown.to_string_lossy().into_owned())
    }

    /// A link to `other`: `here` names this pod's end, `there` the other's. Both are up; addresses come next.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link(&self, here: &str, other: &Self, there: &str) -> Result<(), BedError> {
        let (ours, theirs) = (here.to_owned(), there.to_owned());
        let namespace = other.network.try_clone().map_err(|source| self.io("copy a descriptor", source))?;
        self.routed(move |runtime| runtime.block_on(namespace::link(&ours, namespace.as_fd(), &theirs)))
    }

    fn io(&self, action: &str, source: std::io::Error) -> BedError {
        BedError::Io { pod: self.name, action: action.to_owned(), source }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The end of the jobs ends the thread; the processes that it started get SIGKILL from the kernel.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
