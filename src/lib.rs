//! Funicular: the per-pod sidecar that lifts unmodified services up to Structured Service Addressing, and the
//! control plane around it, in one binary.
//!
//! The folders are the architecture, and imports point one way:
//!
//! ```text
//! cli                                            parses, dispatches, prints
//!  └─ sidecar  peak  node  webhook  init  demo   one folder per role; roles never import each other
//!      └─ trust                                  whom a role believes: issuers, their keys, callers' tokens
//!          └─ net  ops  config                   sockets and kernel · clock, admin, metrics, logs · YAML to checked form
//!              └─ wire                           bytes to types and back; pure
//!                  └─ model                      the rules; pure: no clock, randomness, socket, log or environment
//! ```
//!
//! `tests/house` holds this.

pub mod cli;
pub mod config;
pub mod demo;
pub mod init;
pub mod manual;
pub mod model;
pub mod net;
pub mod node;
pub mod ops;
pub mod peak;
pub mod sidecar;
pub mod trust;
pub mod webhook;
pub mod wire;
