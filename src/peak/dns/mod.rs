//! The DNS server: sockets and threads around one answer function.
//!
//! Each core has a worker: a thread with a UDP socket of its own, which takes, answers and sends datagrams in batches,
//! and a thread for its share of TCP connections. All of them answer from the same snapshot of the zones, which is
//! replaced as a whole: a reader never waits for a writer.
//!
//! Invariant: a reply is written over its request, by [`respond::Responder`] and by nobody else.

pub mod fuzz;
mod gate;
mod rate;
mod respond;
mod server;
mod tally;
mod tcp;
mod udp;

pub(super) use gate::Gate;
pub(super) use rate::RateLimits;
pub(super) use respond::QueryLog;
pub(super) use server::{Common, Limits, Served, Server};
pub(super) use tally::Tallies;
pub(super) use tcp::TcpLimits;
