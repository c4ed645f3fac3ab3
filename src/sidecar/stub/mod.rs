//! The DNS server that the application asks, and the stand-ins it answers with.

mod stand_ins;

pub use stand_ins::{BadPools, MOST_STAND_INS, NoStandIn, StandIns};
