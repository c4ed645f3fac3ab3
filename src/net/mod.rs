//! Sockets and the kernel.

pub mod dns_client;
