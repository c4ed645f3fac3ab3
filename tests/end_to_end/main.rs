//! The whole system, every role a process of its own in network namespaces, as programs, callers and attackers meet it.
//!
//! Each test builds the demo's site for itself.

mod command;
mod faults;
mod programs;
mod support;
mod tokens;
