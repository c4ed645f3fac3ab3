//! Bytes to types and back. Pure: no socket, clock, randomness, log or environment.

pub mod dns;
