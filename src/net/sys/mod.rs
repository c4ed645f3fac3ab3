//! The one audited module with `unsafe`: system calls that no dependency wraps safely.
//!
//! Every block has a `SAFETY` note that says why its conditions hold, and every function here is safe to call with
//! any arguments. Nothing else in the crate may use `unsafe`; Cargo.toml denies it.
#![allow(unsafe_code, reason = "the audited module")]

pub(crate) mod heap;
pub(crate) mod mmsg;
pub(crate) mod text;

use std::io;

use rustix::thread::UnshareFlags;

/// Which namespaces a thread leaves for fresh ones.
///
/// Without a way to name `CLONE_FILES` or `CLONE_VM`, so that file descriptors and memory stay shared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fresh {
    /// The calling thread alone gets an empty network.
    Network,
    /// The calling thread alone gets its own table of mounts, a copy of the present one.
    Mounts,
    /// The processes that the calling process starts from now on get their own numbers; their first is their init.
    Processes,
    /// The whole process, which must have one thread, becomes owner of a user namespace with its own network and
    /// mounts.
    UserNetworkMounts,
}

/// Moves the calling thread (the process, for [`Fresh::UserNetworkMounts`]) into fresh namespaces.
///
/// # Errors
/// unshare(2): `EPERM` without CAP_SYS_ADMIN or where user namespaces are closed to this user, `EINVAL` when a
/// process with several threads asks for a user namespace, `ENOSPC` at the limit of namespaces.
pub(crate) fn unshare(fresh: Fresh) -> io::Result<()> {
    let flags = match fresh {
        Fresh::Network => UnshareFlags::NEWNET,
        Fresh::Mounts => UnshareFlags::NEWNS,
        Fresh::Processes => UnshareFlags::NEWPID,
        Fresh::UserNetworkMounts => UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS,
    };
    // SAFETY: the one danger of unshare(2) is CLONE_FILES, which leaves threads with different tables of file
    // descriptors; no variant of `Fresh` sets it.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}
