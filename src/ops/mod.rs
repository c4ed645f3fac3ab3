//! What every role needs to run well: clock, entropy, admin port, metrics, logs, drain.

pub mod access_log;
pub mod admin;
pub mod clock;
pub mod drain;
pub mod entropy;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod ready;
pub mod signals;
