//! The DNS on the wire and as text.
