//! Peak before judges that others wrote, and before the letter of the RFCs: a zone that holds every type, asked every
//! question.
//!
//! The octets sent here are made by hand and the replies are read by hand ([`octets`]), or by programs that share no
//! code with ours: whoever is judged does not lend the judge his glasses. A judge that is not installed says nothing;
//! tests/run installs them, and counts each that is missing.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

mod bed;
mod checkers;
mod decoders;
mod loops;
mod octets;
mod questions;
mod tree;
