//! The one place that draws random numbers.

/// 128 bits from the kernel's generator by way of the TLS provider's.
///
/// # Panics
/// When the system has no source of randomness: nothing that follows could be safe.
#[must_use]
#[allow(clippy::expect_used, reason = "without randomness there is nothing to fall back on")]
pub fn draw() -> u128 {
    let mut octets = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut octets)
        .expect("the system's source of randomness answers");
    u128::from_ne_bytes(octets)
}
