//! What every role needs to run well.
//!
//! | module | owns |
//! |---|---|
//! | [`clock`], [`entropy`] | the one reading of the wall clock, the one source of randomness |
//! | [`ready`], [`drain`], [`signals`] | a role's start, its stop, and what asks for either |
//! | [`children`] | processes that have ended |
//! | [`files`] | which of a role's files were replaced |
//! | [`metrics`], [`process`] | counters with enforced names; the process's own figures |
//! | [`logging`], [`access_log`] | the log, and one line per connection in it |
//! | [`tap`] | those lines for somebody who looks on |
//! | [`output`] | how people's commands print |
//! | [`admin`] | the port on which all of this is asked for |
//!
//! Nothing here is global but the log and who looks on at it: a role makes what it needs and hands it to constructors. Configuration is none of its
//! business either: it takes addresses, levels and spans of time, wherever they come from.

pub mod access_log;
pub mod admin;
pub mod children;
pub mod clock;
pub mod drain;
pub mod entropy;
pub mod files;
pub mod logging;
pub mod metrics;
pub mod output;
pub mod process;
pub mod ready;
pub mod signals;
pub mod tap;
