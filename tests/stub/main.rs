//! The sidecar's half of DNS over real loopback sockets: the resolver against name servers that lie, die and delegate,
//! and the stub as an application sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bed;
mod resolver;
mod server;
mod serving;
mod upstream;
