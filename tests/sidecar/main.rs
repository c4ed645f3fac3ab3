//! The sidecar's data path over real sockets: what is carried, and what is refused, each for its own reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;
mod conformance;
mod downgrade;
mod explicit;
mod faults;
mod http;
mod http2;
mod http_tokens;
mod inbound;
mod lease;
mod life;
mod outbound;
mod overheard;
mod pair;
mod reload;
mod replay;
mod smuggling;
mod succession;
mod tunnel;
