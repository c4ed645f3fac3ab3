//! Bytes to types and back. Pure: no socket, clock, randomness, log or environment.

pub mod agent;
pub mod api;
pub mod dns;
pub mod explicit;
pub mod first_words;
pub mod jwks;
pub mod jwt;
pub mod lease;
pub mod moment;
pub mod proxy_header;
pub mod tunnel;
pub mod x509;

pub(crate) use proxy_header::crc32c::of as crc32c;
