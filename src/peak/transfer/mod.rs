//! Zones on their way between servers: out to secondaries ([`out`]), and in from primaries ([`collect`]).
//!
//! Source: RFC 5936 (AXFR), RFC 1995 (IXFR), RFC 8945 §5.3.1 (signatures of several messages).

pub(super) mod collect;
pub(super) mod out;
