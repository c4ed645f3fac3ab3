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

    pub(super) fn octets(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_its_debug_form() {
        let shown = format!("{:?}", Secret::new([0xab; 16]));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}
