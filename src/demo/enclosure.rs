//! The enclosure: namespaces of its own for the whole demo, and their certain end.
//!
//! ```text
//! outer process ──(standard input: the lifeline)──> inner process, PID 1 of a PID namespace
//!   waits, passes signals on                          builds the bed, tells the story
//! ```
//!
//! The outer process leaves its namespaces (a user namespace too where it has no privilege of its own) and starts
//! itself again inside. The inner process is the first of a PID namespace: when it ends, however it ends, the kernel
//! kills everything that it started, and with the last process the namespaces, links, routes and the folder in memory
//! are gone. It ends when its lifeline does: closed by the outer process on a signal, or by the kernel when the outer
//! process was killed.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::net::namespace::{self, UserNamespaceError};

/// The hidden flag that the inner process is started with.
pub(super) const INSIDE: &str = "--inside";

/// How long the inner process may take to clean up before it is ended from outside.
const GRACE: Duration = Duration::from_secs(5);

/// Why there is no enclosure.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnclosureError {
    /// The kernel allows this user no user namespace.
    #[error("the demo needs namespaces of its own, and {reason}{}", advice())]
    Refused {
        /// Why not.
        reason: UserNamespaceError,
    },
    /// There is a user namespace, or privilege, and still no other namespace.
    #[error("the demo needs namespaces of its own, and the kernel refuses them ({reason}){}", advice())]
    Restricted {
        /// The kernel's answer.
        reason: std::io::Error,
    },
    /// The private folder could not be made.
    #[error("cannot mount a private folder in memory on any of {}", MOUNT_POINTS.join(", "))]
    NoFolder,
    /// Processes, signals or pipes.
    #[error("cannot start the demo's inner process")]
    Process(#[from] std::io::Error),
}

/// What would help on this machine, as far as its settings tell.
fn advice() -> String {
    let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let mut advice = String::from("\n\nAny one of these helps:\n  run it as root:  sudo funicular demo");
    for (name, closed, open) in [
        ("user/max_user_namespaces", "0", "10000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if setting(name).trim() == closed {
            advice
                .push_str(&format!("\n  let users make namespaces:  sudo sysctl -w {}={open}", name.replace('/', ".")));
        }
    }
    advice.push_str("\n  in a container:  start it with --privileged, or with CAP_SYS_ADMIN and CAP_NET_ADMIN");
    advice
}

/// Where a folder in memory may be mounted: they exist nearly everywhere, and the mount is visible inside alone.
const MOUNT_POINTS: [&str; 4] = ["/dev/shm", "/mnt", "/media", "/srv"];

/// Leaves the process's namespaces, starts the same program inside and waits for it; gives its exit code.
///
/// The process must have one thread.
///
/// # Errors
/// When the kernel allows no namespaces, or the program cannot be started.
pub(super) fn run_inside(exe: &Path, flags: &[&str]) -> Result<ExitCode, EnclosureError> {
    let restricted = |reason| EnclosureError::Restricted { reason };
    if namespace::is_privileged() {
        namespace::own_mounts(&[]).map_err(restricted)?;
    } else {
        namespace::become_root().map_err(|reason| EnclosureError::Refused { reason })?;
    }
    namespace::own_processes().map_err(restricted)?;
    // One thread: the kernel lets no process that left its PID namespace make another.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(exe, flags))
}

async fn supervise(exe: &Path, flags: &[&str]) -> Result<ExitCode, EnclosureError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut command = Command::new(exe);
    // A process group of its own: Ctrl-C reaches the outer process alone, which ends the others in order.
    command.arg("demo").arg(INSIDE).args(flags).stdin(Stdio::piped()).process_group(0);
    let mut inner = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let mut lifeline = inner.stdin.take();
    let number = tokio::select! {
        status = inner.wait() => return Ok(code_of(status?)),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
    };
    // The last word says why; the end of the pipe says that it is over.
    let number = u8::try_from(number).unwrap_or(0);
    if let Some(lifeline) = &mut lifeline {
        let _ = lifeline.write_all(&[number]).await;
    }
    drop(lifeline);
    let code = match tokio::time::timeout(GRACE, inner.wait()).await {
        Ok(status) => code_of(status?),
        Err(_) => {
            inner.kill().await?;
            ExitCode::from(128_u8.saturating_add(number))
        }
    };
    eprintln!("\nEnded. Every process, namespace and file of the demo is gone.");
    Ok(code)
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The inner process's end of the lifeline.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifeline {
    /// The exit code to end with once the story is told; before that an ending is an interruption.
    verdict: Arc<Mutex<Option<u8>>>,
}

impl Lifeline {
    /// Watches standard input from a thread of its own. When it ends, so does the process, and as it is PID 1 the
    /// kernel ends the rest: there is nothing to take down in order.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn watch() -> std::io::Result<Self> {
        let lifeline = Self::default();
        let verdict = Arc::clone(&lifeline.verdict);
        std::thread::Builder::new().name("lifeline".into()).spawn(move || {
            let mut last_words = Vec::new();
            let _ = std::io::stdin().lock().read_to_end(&mut last_words);
            let interrupted = last_words.last().map_or(1, |&number| 128_u8.saturating_add(number));
            std::process::exit(i32::from(verdict.lock().unwrap_or(interrupted)));
        })?;
        Ok(lifeline)
    }

    /// Leaves everything running until the lifeline ends; the process then ends with `code`.
    pub(super) fn keep(&self, code: u8) -> ! {
        *self.verdict.lock() = Some(code);
        loop {
            std::thread::park();
        }
    }
}

/// A folder in memory that only this mount namespace has, and only this user may read.
///
/// # Errors
/// When none of the usual mount points will do.
pub(super) fn folder(exe: &Path) -> Result<PathBuf, EnclosureError> {
    MOUNT_POINTS
        .into_iter()
        .map(Path::new)
        .filter(|point| point.is_dir() && !exe.starts_with(point))
        .find(|point| namespace::mount_memory(point).is_ok())
        .map(Path::to_owned)
        .ok_or(EnclosureError::NoFolder)
}
