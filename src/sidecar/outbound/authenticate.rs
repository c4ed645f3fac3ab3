//! Fourth phase: the token by which the caller proves itself to one service.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::token::{Claims, WorkloadId};
use crate::model::{Name, UnixSeconds};
use crate::net::tls::{NoHostName, host_name};
use crate::sidecar::report::Report;
use crate::wire::jwt::{SignError, SigningKey};

/// For how many services tokens are held at once.
const MOST_HELD: usize = 4096;

/// A token for one service. Only [`Tokens`] makes one. Never printed.
#[derive(Clone)]
pub struct Credential {
    token: Arc<str>,
    /// From here on a new one is signed: less than half of its life is left.
    stale: UnixSeconds,
}

impl Credential {
    pub(in crate::sidecar) fn octets(&self) -> &[u8] {
        self.token.as_bytes()
    }

    /// When there will be a new one.
    pub(super) fn stale(&self) -> UnixSeconds {
        self.stale
    }

    /// Whether it is the very same token.
    pub(in crate::sidecar) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.token, &other.token)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Why there is no token for a service.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoCredential {
    /// The rule asks for a token and this pod is nobody.
    #[error("the service wants a token, and this sidecar has no `identity` to sign one with")]
    NoIdentity,
    /// The service's name can be no audience.
    #[error(transparent)]
    Name(#[from] NoHostName),
    /// The provider refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No header field can hold it.
    #[error("the token cannot stand in {field}")]
    NoField {
        /// The field.
        field: String,
    },
}

impl NoCredential {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoIdentity => "identity-missing",
            Self::Name(_) => "name-unprovable",
            Self::Sign(_) | Self::NoField { .. } => "signing-failed",
        }
    }
}

/// Signs tokens for the services that this pod calls, one for each, and holds them while they are fresh.
pub struct Tokens {
    key: SigningKey,
    issuer: Box<str>,
    subject: WorkloadId,
    life: Duration,
    held: Mutex<HashMap<Name, Credential>>,
    report: Report,
}

impl Tokens {
    /// Tokens of `subject`, vouched for by `issuer`, whose key this is, good for `life` each.
    #[must_use]
    pub fn new(key: SigningKey, issuer: &str, subject: WorkloadId, life: Duration, report: Report) -> Self {
        Self { key, issuer: issuer.into(), subject, life, held: Mutex::default(), report }
    }

    /// A token for the service that has at least half of its life left.
    ///
    /// # Errors
    /// [`NoCredential`].
    pub fn authenticate(&self, service: &Name, now: UnixSeconds) -> Result<Credential, NoCredential> {
        if let Some(held) = self.held.lock().get(service)
            && now < held.stale
        {
            return Ok(held.clone());
        }
        // Signed outside the lock: two callers at once may sign twice, which is cheaper than waiting.
        let credential = self.sign(service, now)?;
        let mut held = self.held.lock();
        if held.len() >= MOST_HELD {
            held.retain(|_, held| now < held.stale);
        }
        if held.len() < MOST_HELD {
            held.insert(service.clone(), credential.clone());
        }
        Ok(credential)
    }

    fn sign(&self, service: &Name, now: UnixSeconds) -> Result<Credential, NoCredential> {
        let claims = Claims {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            audience: vec![host_name(service)?.into()],
            issued_at: now,
            not_before: now,
            expires: UnixSeconds(now.0.saturating_add(self.life.as_secs())),
        };
        let token = self.key.sign(&claims)?;
        self.report.signed();
        let stale = UnixSeconds(now.0.saturating_add(self.life.as_secs().div_ceil(2)));
        Ok(Credential { token: token.into(), stale })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("subject", &self.subject).field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Registry;

    fn tokens() -> Tokens {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let key = SigningKey::from_pem(pem.as_bytes(), "web-1").unwrap();
        let subject = "spiffe://shop.example/ns/default/sa/web".parse().unwrap();
        let report = Report::new(&Registry::new());
        Tokens::new(key, "https://issuer.example", subject, Duration::from_secs(300), report)
    }

    fn token(tokens: &Tokens, service: &str, now: u64) -> Arc<str> {
        tokens.authenticate(&service.parse().unwrap(), UnixSeconds(now)).unwrap().token
    }

    #[test]
    fn a_token_is_used_again_until_half_of_its_life_and_not_a_second_longer() {
        let tokens = tokens();
        let first = token(&tokens, "orders.shop.peak", 1_000);
        assert!(Arc::ptr_eq(&first, &token(&tokens, "ORDERS.shop.peak", 1_149)));
        let second = token(&tokens, "orders.shop.peak", 1_150);
        assert_ne!(first, second);
    }

    #[test]
    fn each_service_has_its_own_token() {
        let tokens = tokens();
        assert_ne!(token(&tokens, "orders.shop.peak", 1_000), token(&tokens, "users.shop.peak", 1_000));
    }

    #[test]
    fn a_full_table_still_signs_and_takes_new_names_when_old_tokens_are_stale() {
        let tokens = tokens();
        for n in 0..MOST_HELD {
            let service: Name = format!("s{n}.peak").parse().unwrap();
            let credential = Credential { token: "t".into(), stale: UnixSeconds(1_100) };
            tokens.held.lock().insert(service, credential);
        }
        let first = token(&tokens, "orders.shop.peak", 1_000);
        assert!(!Arc::ptr_eq(&first, &token(&tokens, "orders.shop.peak", 1_000)));
        let later = token(&tokens, "orders.shop.peak", 1_100);
        assert!(Arc::ptr_eq(&later, &token(&tokens, "orders.shop.peak", 1_101)));
    }

    #[test]
    fn neither_token_nor_key_is_printed() {
        let tokens = tokens();
        let credential = tokens.authenticate(&"orders.shop.peak".parse().unwrap(), UnixSeconds(1_000)).unwrap();
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        assert!(!format!("{tokens:?}").contains("eyJ"));
    }
}
