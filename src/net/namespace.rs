//! Network namespaces: making them, entering them one thread at a time, starting programs in them.
//!
//! A namespace lives as long as something refers to it: a [`NetNs`], a process or a socket in it. Threads are the unit
//! the kernel moves, so nothing here moves a thread that it did not start, [`NetNs::enter`] and
//! [`become_root`] excepted, which say so.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};

use super::sys::{self, Fresh};

/// The calling thread's own network namespace, whichever thread that is.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by this handle.
#[derive(Clone, Debug)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
}

/// A file to be seen in place of another by one program, such as a pod's own `/etc/resolv.conf`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overlay {
    /// The file (or folder) whose content is seen.
    pub source: PathBuf,
    /// The existing file (or folder) that it hides.
    pub target: PathBuf,
}

impl NetNs {
    /// A fresh namespace: no device but a loopback that is down, no rules.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN in the present user namespace (see [`become_root`]), `ENOSPC` at the limit.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            sys::unshare(Fresh::Network)?;
            Self::current()
        })?
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The namespace at `path`: `/proc/PID/ns/net`, or a name under `/run/netns`.
    ///
    /// # Errors
    /// Whatever open(2) says. That the file is a network namespace shows when it is entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(File::open(path)?.into()) })
    }

    /// The namespace of the process `pid`, which must not have ended.
    ///
    /// # Errors
    /// `ENOENT` when there is no such process, `EACCES` when it is somebody else's business.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A number that no other namespace has as long as this handle lives.
    ///
    /// # Errors
    /// Whatever fstat(2) says.
    pub fn id(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_ino)
    }

    /// The file descriptor, for the kernel's interfaces that take one.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// Sockets made before stay where they were made. Never call it on a thread that a runtime or a pool owns.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN, `EINVAL` when this is no network namespace.
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).map_err(Into::into)
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets that it makes belong to the namespace
    /// wherever they are used later.
    ///
    /// # Errors
    /// As [`NetNs::enter`]; `work` has not run then.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Starts a program inside, with `overlays` laid over its view of the file system.
    ///
    /// The program must not ask for a signal at its parent's death (PR_SET_PDEATHSIG): the parent is a thread that
    /// ends at once.
    ///
    /// # Errors
    /// As [`NetNs::enter`]; `ENOENT` when a program or an overlay's file is missing.
    pub fn spawn(&self, command: &mut Command, overlays: &[Overlay]) -> io::Result<Child> {
        self.run(|| {
            if !overlays.is_empty() {
                own_mounts(overlays)?;
            }
            command.spawn()
        })?
    }

    /// Sets a kernel parameter of this namespace: `net.ipv6.conf.all.forwarding`.
    ///
    /// # Errors
    /// `ENOENT` for a parameter that the kernel does not have, `EACCES` or `EROFS` where it may not be written.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(sysctl_path(name), value))?
    }
}

/// Reads a kernel parameter of the calling thread's namespace, without the newline at its end.
///
/// # Errors
/// `ENOENT` for a parameter that the kernel does not have.
pub fn sysctl(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(sysctl_path(name))?.trim_end().to_owned())
}

fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// Gives the calling thread its own mounts, unseen by all others, and lays `overlays` over them.
///
/// Never call it on a thread that a runtime or a pool owns.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; `ENOENT` when an overlay's file is missing.
pub fn own_mounts(overlays: &[Overlay]) -> io::Result<()> {
    sys::unshare(Fresh::Mounts)?;
    // Else the mounts would appear outside as well.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for Overlay { source, target } in overlays {
        mount_bind(source, target)?;
    }
    Ok(())
}

/// Makes the next process that this one starts the first of a PID namespace: when it ends, however it ends, the kernel
/// kills every process that it started. From then on this process can start no thread.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at the limit.
pub fn own_processes() -> io::Result<()> {
    sys::unshare(Fresh::Processes)
}

/// Mounts an empty folder in memory over `place`, for its owner alone. Give the thread its own mounts first
/// ([`own_mounts`]).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOENT` when there is no such place.
pub fn mount_memory(place: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", place, "tmpfs", flags, Some(c"mode=0700")).map_err(Into::into)
}

/// Runs `work` on a thread that ends with it, so that nobody inherits the namespaces it moves to.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this thread may make and arrange network namespaces as it is.
#[must_use]
pub fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Why this process cannot become root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel, or a security module, keeps user namespaces from this user.
    #[error(
        "this user may not make user namespaces ({0}): run as root, or have an administrator allow them \
         (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; \
         in a container, a seccomp profile that allows unshare)"
    )]
    Forbidden(io::Error),
    /// No more may be made.
    #[error("no more user namespaces may be made: raise sysctl user.max_user_namespaces ({0})")]
    Exhausted(io::Error),
    /// The process already has several threads.
    #[error("a process with several threads cannot make a user namespace: this must come first ({0})")]
    Threads(io::Error),
    /// Namespace made, but the ids could not be mapped.
    #[error("cannot write {file}: {answer}")]
    Map {
        /// Which file under `/proc/self`.
        file: &'static str,
        /// What it answered.
        answer: io::Error,
    },
}

/// Makes this process root of a user namespace of its own, with its own network and mounts; outside it stays the user
/// that it was. All ids but its own are unmapped, so the sidecar is known by its socket mark there.
///
/// Call it before any thread is started.
///
/// # Errors
/// [`UserNamespaceError`]; after [`UserNamespaceError::Map`] the process is of no further use.
pub fn become_root() -> Result<(), UserNamespaceError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(Fresh::UserNetworkMounts).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => UserNamespaceError::Exhausted(error),
        Some(libc::EINVAL) => UserNamespaceError::Threads(error),
        _ => UserNamespaceError::Forbidden(error),
    })?;
    // The order matters: a gid_map is refused until setgroups is given up (user_namespaces(7)).
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, content).map_err(|answer| UserNamespaceError::Map { file, answer })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_fresh_namespace_has_a_loopback_alone_and_leaves_the_caller_where_it_was() {
        let before = fs::read_link(OWN).unwrap();
        let fresh = NetNs::create().unwrap();
        let inside = fresh.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
        assert_eq!(
            inside.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect::<Vec<_>>(),
            ["lo"]
        );
        assert_eq!(fs::read_link(OWN).unwrap(), before);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_program_starts_inside_and_sees_its_overlay() {
        let fresh = NetNs::create().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("ours"), folder.path().join("theirs"));
        fs::write(&source, "ours").unwrap();
        fs::write(&target, "theirs").unwrap();
        let mut command = Command::new("cat");
        command.arg(&target).arg("/proc/self/net/dev").stdout(std::process::Stdio::piped());
        let overlay = Overlay { source, target: target.clone() };
        let output = fresh.spawn(&mut command, &[overlay]).unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("ours") && !text.contains("eth0"), "{text}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_kernel_parameter_is_set_in_its_namespace_alone() {
        const FORWARDING: &str = "net.ipv6.conf.all.forwarding";
        let (one, other) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        one.set_sysctl(FORWARDING, "1").unwrap();
        let read = |ns: &NetNs| ns.run(|| sysctl(FORWARDING).unwrap()).unwrap();
        assert_eq!((read(&one).as_str(), read(&other).as_str()), ("1", "0"));
    }

    #[test]
    fn what_is_no_namespace_is_refused_on_entry() {
        let wrong = NetNs::open(Path::new("/proc/self/status")).unwrap();
        assert!(wrong.run(|| ()).is_err());
    }
}
