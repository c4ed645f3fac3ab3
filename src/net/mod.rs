//! Sockets and the kernel.
