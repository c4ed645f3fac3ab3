//! What Peak's nodes agree on.

pub mod lease;
