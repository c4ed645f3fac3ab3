//! Sockets and the kernel.

pub mod copy;
pub mod tls;
