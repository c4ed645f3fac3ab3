//! Whether a caller is who it says, by its token.
//!
//! A verified signature is remembered by the token's octets, so that a caller's second connection costs a look-up. What
//! is remembered is never the judgement: time, audience and issuer are judged anew each time. The memory belongs to the
//! keys: when they change, it is gone with them. Failures are not remembered.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::token::{Caller, Claims, Expected, Unacceptable, judge};
use crate::model::{Name, UnixSeconds};
use crate::ops::metrics::labels;
use crate::wire::jwt::{JwtError, TrustedIssuer, Unverified};

/// The clock skew between pods that is forgiven.
pub const LEEWAY: Duration = Duration::from_secs(10);
/// How many tokens a generation of the memory holds; there are two.
const GENERATION: usize = 2048;

labels! {
    /// Whether a verdict on a token was known.
    pub enum Verdict: "how" {
        /// Its signature had been checked before.
        Cached = "cached",
        /// Its signature was checked now.
        Checked = "checked",
    }
}

/// Verifies the tokens of callers.
pub struct Verifier {
    trusted: ArcSwap<Trusted>,
    /// A token named a key that is not among those known.
    unknown_key: Notify,
    report: Box<dyn Fn(Verdict) + Send + Sync>,
}

struct Trusted {
    issuers: Vec<TrustedIssuer>,
    known: Mutex<Known>,
}

/// Why a caller is not who it says. One cause, one variant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unverifiable {
    /// The header has none.
    #[error("the caller sent no token")]
    Missing,
    /// The token's form, key or signature.
    #[error(transparent)]
    Token(#[from] JwtError),
    /// What it claims.
    #[error(transparent)]
    Claims(#[from] Unacceptable),
}

impl Unverifiable {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "token-missing",
            Self::Token(error) => error.reason(),
            Self::Claims(error) => error.reason(),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier that trusts these issuers, and reports each token whose signature holds.
    #[must_use]
    pub fn new(issuers: Vec<TrustedIssuer>, report: impl Fn(Verdict) + Send + Sync + 'static) -> Self {
        let trusted = ArcSwap::from_pointee(Trusted::new(issuers));
        Self { trusted, unknown_key: Notify::new(), report: Box::new(report) }
    }

    /// Waits for a token that names a key which is not known: its issuer may have a new one. Cancel safe.
    pub async fn unknown_key(&self) {
        self.unknown_key.notified().await;
    }

    /// The claims of the tokens that are remembered: those of callers that came lately.
    #[must_use]
    pub fn known(&self) -> Vec<Arc<Claims>> {
        let trusted = self.trusted.load();
        let known = trusted.known.lock();
        known.young.values().chain(known.old.values()).cloned().collect()
    }

    /// Trusts these issuers from now on, and forgets what the old keys have verified.
    pub fn trust(&self, issuers: Vec<TrustedIssuer>) {
        self.trusted.store(Arc::new(Trusted::new(issuers)));
    }

    /// Verifies the token of a caller of `service`.
    ///
    /// # Errors
    /// [`Unverifiable`], the first thing that is wrong.
    pub fn verify(&self, token: Option<&[u8]>, service: &Name, now: UnixSeconds) -> Result<Caller, Unverifiable> {
        let token = token.ok_or(Unverifiable::Missing)?;
        let trusted = self.trusted.load();
        let known = trusted.known.lock().find(token);
        let claims = match known {
            Some(claims) => {
                (self.report)(Verdict::Cached);
                claims
            }
            None => {
                let claims = Unverified::parse(token)?.verify(&trusted.issuers);
                if matches!(claims, Err(JwtError::UnknownKey { .. })) {
                    self.unknown_key.notify_one();
                }
                let claims = Arc::new(claims?);
                (self.report)(Verdict::Checked);
                trusted.known.lock().remember(token, Arc::clone(&claims));
                claims
            }
        };
        // The issuer whose key verified the signature is the one that the claims name: `verify` found it by that name.
        let issuer = trusted.issuers.iter().find(|trusted| trusted.issuer == claims.issuer);
        let audience = issuer.and_then(|issuer| issuer.audience.as_deref());
        let expected = Expected { issuer: &claims.issuer, service, audience };
        Ok(judge(&claims, &expected, now, LEEWAY)?)
    }
}

impl Trusted {
    fn new(issuers: Vec<TrustedIssuer>) -> Self {
        Self { issuers, known: Mutex::default() }
    }
}

/// Claims by the octets of the token that they were verified from. When the young generation is full it becomes the
/// old one, and what was not asked for since is dropped: tokens that expired are not asked for.
#[derive(Default)]
struct Known {
    young: HashMap<Box<[u8]>, Arc<Claims>>,
    old: HashMap<Box<[u8]>, Arc<Claims>>,
}

impl Known {
    fn find(&mut self, token: &[u8]) -> Option<Arc<Claims>> {
        if let Some(claims) = self.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let claims = self.old.remove(token)?;
        self.remember(token, Arc::clone(&claims));
        Some(claims)
    }

    fn remember(&mut self, token: &[u8], claims: Arc<Claims>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token.into(), claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::Algorithm;
    use crate::ops::metrics::Registry;
    use crate::wire::jwks::{Jwks, to_jwks};
    use crate::wire::jwt::SigningKey;

    const ISSUER: &str = "https://issuer.example";

    fn key() -> SigningKey {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        SigningKey::from_pem(pem.as_bytes(), "k1").unwrap()
    }

    fn trusting(key: &SigningKey) -> Vec<TrustedIssuer> {
        let keys = Jwks::parse(to_jwks(&[key]).as_bytes()).unwrap();
        vec![TrustedIssuer::new(ISSUER, keys, &[Algorithm::EdDsa])]
    }

    fn claims(expires: u64) -> Claims {
        Claims {
            issuer: ISSUER.into(),
            subject: "spiffe://shop.example/ns/default/sa/web".parse().unwrap(),
            audience: vec!["orders.shop.peak".into()],
            issued_at: UnixSeconds(1_000),
            not_before: UnixSeconds(1_000),
            expires: UnixSeconds(expires),
        }
    }

    struct Bed {
        registry: Registry,
        verifier: Verifier,
        key: SigningKey,
        service: Name,
    }

    impl Bed {
        fn new() -> Self {
            let (registry, key) = (Registry::new(), key());
            let verdicts = registry.counters("funicular_token_verdicts_total", "Tokens.");
            let verifier = Verifier::new(trusting(&key), move |how| verdicts.increment(&how));
            Self { registry, verifier, key, service: "orders.shop.peak".parse().unwrap() }
        }

        fn verify(&self, token: &str, now: u64) -> Result<Caller, Unverifiable> {
            self.verifier.verify(Some(token.as_bytes()), &self.service, UnixSeconds(now))
        }

        fn counted(&self, verdict: &str) -> bool {
            self.registry.text().contains(&format!("funicular_token_verdicts_total{{how={verdict}"))
        }
    }

    #[test]
    fn a_second_sight_of_a_token_costs_no_signature_check_and_is_still_judged() {
        let bed = Bed::new();
        let token = bed.key.sign(&claims(1_300)).unwrap();
        assert!(bed.verify(&token, 1_000).is_ok());
        assert!(bed.verify(&token, 1_309).is_ok());
        assert!(bed.counted("\"checked\"} 1") && bed.counted("\"cached\"} 1"));
        assert_eq!(bed.verify(&token, 1_310).unwrap_err().reason(), "token-expired");
        let other: Name = "users.shop.peak".parse().unwrap();
        let refused = bed.verifier.verify(Some(token.as_bytes()), &other, UnixSeconds(1_000)).unwrap_err();
        assert_eq!(refused.reason(), "token-audience-wrong");
    }

    #[test]
    fn a_token_is_judged_by_the_clock_as_it_is_now_whichever_way_it_was_set() {
        let bed = Bed::new();
        let token = bed.key.sign(&claims(1_300)).unwrap();
        assert!(bed.verify(&token, 1_000).is_ok());
        assert_eq!(bed.verify(&token, 90_000).unwrap_err().reason(), "token-expired");
        assert_eq!(bed.verify(&token, 989).unwrap_err().reason(), "token-not-yet-valid");
        assert!(bed.verify(&token, 990).is_ok());
        assert!(bed.counted("\"checked\"} 1") && bed.counted("\"cached\"} 3"));
    }

    #[test]
    fn a_verdict_does_not_outlive_the_key() {
        let bed = Bed::new();
        let token = bed.key.sign(&claims(1_300)).unwrap();
        assert!(bed.verify(&token, 1_000).is_ok());
        bed.verifier.trust(trusting(&key()));
        assert_eq!(bed.verify(&token, 1_000).unwrap_err().reason(), "token-signature-wrong");
        bed.verifier.trust(Vec::new());
        assert_eq!(bed.verify(&token, 1_000).unwrap_err().reason(), "token-issuer-unknown");
    }

    #[test]
    fn no_token_is_a_reason_of_its_own() {
        let bed = Bed::new();
        let refused = bed.verifier.verify(None, &bed.service, UnixSeconds(1_000)).unwrap_err();
        assert_eq!(refused.reason(), "token-missing");
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_in_use() {
        let mut known = Known::default();
        let held = Arc::new(claims(1_300));
        known.remember(b"in use", Arc::clone(&held));
        for n in 0..3 * GENERATION as u64 {
            known.remember(&n.to_be_bytes(), Arc::clone(&held));
            assert!(known.find(b"in use").is_some());
        }
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
        assert!(known.find(&0_u64.to_be_bytes()).is_none());
    }
}
