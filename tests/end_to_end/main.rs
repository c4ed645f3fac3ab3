//! The whole system, every role a process of its own in network namespaces, as programs, callers and attackers meet it.
//!
//! Each test builds the demo's site for itself.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod command;
mod computed;
mod crowd;
mod examples;
mod faults;
mod programs;
mod protocols;
mod support;
mod tokens;
