//! Peak's registry as a group of nodes: what its clients may rely on, whatever fails.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

mod linear;
