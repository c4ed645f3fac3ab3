//! The DNS on the wire and as text.
//!
//! Owns the general codec: whole messages ([`message`]), record data of every type the crate publishes ([`rdata`]),
//! zone files ([`zonefile`]), and what a service's records say ([`ssa_records`]). What a zone answers is
//! `model::zone`'s, the server's fast path is Peak's, and asking over sockets is `net::dns_client`'s.
//!
//! Invariants: no input makes a parser panic or loop; whatever one form says, the other says back (octets to text to
//! octets, octets to types to octets); a record's data is always held uncompressed.

pub mod answer;
mod code;
pub mod cookie;
mod cursor;
mod edns;
mod encode;
pub mod fuzz;
pub mod kept;
pub mod message;
pub mod query;
pub mod rdata;
pub mod render;
pub mod rtype;
pub mod ssa_records;
pub mod state;
mod text;
pub mod tsig;
pub mod zonefile;

pub use code::{Class, Opcode, Rcode, UnknownMnemonic};
pub use cursor::WireError;
pub use edns::{Edns, EdnsOption};
pub use message::{Header, Message, Question, Record};
pub use rtype::Type;
pub use text::{Excerpt, Place, TextError, TextFault};

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod query_tests;
