//! The node agent in network namespaces with real routing: what it writes, what it leaves alone, and that connections
//! live through whatever happens to slices, agents and routes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod bed;
mod bgp;
mod callers;
mod finale;
mod load;
mod mesh;
mod moves;
mod town;
