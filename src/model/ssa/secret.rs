//! Shared secrets of `hop` rules.

use std::fmt;

/// 16 octets that only the service and its callers know. Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A secret of these octets.
    #[must_use]
    pub fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
