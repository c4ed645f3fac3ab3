//! Whom a role believes: the issuers of tokens, and callers by their tokens.
//!
//! What several roles share and what needs sockets, files and settings together; it stands between the roles and those.
//! [`Issuers`] keeps the keys up to date, [`Verifier`] judges by them.

pub mod issuers;
pub mod verifier;

pub use issuers::{Issuers, IssuersError};
pub use verifier::{LEEWAY, Unverifiable, Verdict, Verifier};
