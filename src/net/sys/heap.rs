//! The heap's dealings with the system.

/// Gives freed memory back to the system, as far as it lies in whole pages. The allocator keeps it otherwise, in case it
/// is wanted again; after reading something large, nobody will want as much again.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, and touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
