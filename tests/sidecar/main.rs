//! The sidecar's data path over real sockets: what is carried, and what is refused, each for its own reason.

mod bed;
mod inbound;
mod life;
mod outbound;
mod pair;
