//! What every role needs to run well: clock, entropy, admin port, metrics, logs, drain.

pub mod clock;
pub mod entropy;
