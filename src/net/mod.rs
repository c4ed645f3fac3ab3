//! Sockets and the kernel: what listens, connects, and arranges a pod's network.
//!
//! Owns every system call that has no safe wrapper elsewhere (`sys`), every netlink socket ([`nft`], [`routes`])
//! and every namespace ([`namespace`]). Decides nothing about services: roles say what they want, this does it.

pub mod agent;
pub mod connect;
pub mod copy;
pub mod descriptors;
pub mod dns_client;
pub mod http_client;
pub mod kubernetes;
pub mod listen;
pub mod namespace;
pub mod nft;
pub mod original_dst;
pub mod routes;
pub(crate) mod sys;
pub mod tls;
pub mod tunnel;
pub mod udp_batch;
pub mod vanished;
