//! Fourth phase: the token by which the caller proves itself to one service.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::model::token::{Claims, WorkloadId};
use crate::model::{Name, UnixSeconds};
use crate::net::tls::{NoHostName, host_name};
use crate::sidecar::report::Report;
use crate::wire::jwt::{JwtError, SignError, SigningKey, Unverified};

/// For how many services tokens are held at once.
const MOST_HELD: usize = 4096;

/// A token for one service. Only [`Tokens`] makes one. Never printed.
#[derive(Clone)]
pub struct Credential {
    token: Arc<str>,
    /// Before this it holds for nobody: the clock was set back since.
    from: UnixSeconds,
    /// From here on a new one is signed: less than half of its life is left.
    stale: UnixSeconds,
    expires: UnixSeconds,
}

impl Credential {
    pub(in crate::sidecar) fn octets(&self) -> &[u8] {
        self.token.as_bytes()
    }

    /// Whether it need not be replaced yet.
    fn is_fresh(&self, now: UnixSeconds) -> bool {
        (self.from..self.stale).contains(&now)
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
    /// Whoever renews the token did not.
    #[error("the token of identity.token_file expired {} s ago, and no newer one is in the file", .ago.as_secs())]
    TokenExpired {
        /// How long it has been dead.
        ago: Duration,
    },
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
            Self::TokenExpired { .. } => "identity-token-expired",
        }
    }
}

/// What proves who this pod is.
#[derive(Debug)]
pub enum Proof {
    /// A key with which a token is signed for each service.
    Key(Signer),
    /// A token that something else renews, for all services.
    Token(GivenToken),
}

/// Signs tokens.
#[derive(Debug)]
pub struct Signer {
    /// The private key.
    pub key: SigningKey,
    /// Who vouches for the subject: the key is one of its keys.
    pub issuer: Box<str>,
    /// Who this pod is.
    pub subject: WorkloadId,
    /// How long a token is good for.
    pub life: Duration,
}

/// A token that was not made here. Never printed.
pub struct GivenToken {
    token: Arc<str>,
    expires: UnixSeconds,
}

impl GivenToken {
    /// Takes the text of a token, white space around it aside.
    ///
    /// # Errors
    /// What is wrong with its form; whether anybody accepts it is not known here.
    pub fn parse(text: &str) -> Result<Self, JwtError> {
        let text = text.trim();
        let expires = Unverified::parse(text.as_bytes())?.expires();
        Ok(Self { token: text.into(), expires })
    }

    /// The token as it is, until it expires. It is looked at again when half of what is left of its life is over.
    fn credential(&self, now: UnixSeconds) -> Result<Credential, NoCredential> {
        let left = self.expires.0.saturating_sub(now.0);
        if left == 0 {
            return Err(NoCredential::TokenExpired { ago: Duration::from_secs(now.0 - self.expires.0) });
        }
        Ok(Credential {
            token: Arc::clone(&self.token),
            from: now,
            stale: UnixSeconds(now.0 + left.div_ceil(2)),
            expires: self.expires,
        })
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenToken(until {})", self.expires.0)
    }
}

impl Signer {
    fn credential(&self, service: &Name, now: UnixSeconds) -> Result<Credential, NoCredential> {
        let claims = Claims {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            audience: vec![host_name(service)?.into()],
            issued_at: now,
            not_before: now,
            expires: UnixSeconds(now.0.saturating_add(self.life.as_secs())),
        };
        let stale = UnixSeconds(now.0.saturating_add(self.life.as_secs().div_ceil(2)));
        Ok(Credential { token: self.key.sign(&claims)?.into(), from: now, stale, expires: claims.expires })
    }
}

/// The tokens for the services that this pod calls, signed for each and held while they are fresh, or given for all.
pub struct Tokens {
    proof: ArcSwap<Proof>,
    held: Mutex<HashMap<Name, Credential>>,
    report: Report,
}

impl Tokens {
    /// Tokens by this proof.
    #[must_use]
    pub fn new(proof: Proof, report: Report) -> Self {
        Self { proof: ArcSwap::from_pointee(proof), held: Mutex::default(), report }
    }

    /// Proves itself by something else from now on; connections in use learn of it when their token is renewed.
    pub fn replace(&self, proof: Proof) {
        self.proof.store(Arc::new(proof));
        self.held.lock().clear();
    }

    /// What the tokens say that are held, by service, and from when on another will be used; never a token.
    pub(in crate::sidecar) fn shown(&self) -> Vec<Value> {
        let proof = self.proof.load();
        let signer = match &**proof {
            Proof::Key(signer) => signer,
            Proof::Token(given) => return vec![json!({ "for": "every service", "exp": given.expires.0 })],
        };
        let mut held: Vec<_> =
            self.held.lock().iter().map(|(service, held)| (service.to_string(), held.clone())).collect();
        held.sort_by(|(one, _), (other, _)| one.cmp(other));
        let shown = |(service, held): (String, Credential)| {
            json!({
                "for": service,
                "iss": signer.issuer,
                "sub": signer.subject.to_string(),
                "exp": held.expires.0,
                "renewed_from": held.stale.0,
            })
        };
        held.into_iter().map(shown).collect()
    }

    /// A token for the service, signed ones with at least half of their life left.
    ///
    /// # Errors
    /// [`NoCredential`].
    pub fn authenticate(&self, service: &Name, now: UnixSeconds) -> Result<Credential, NoCredential> {
        let proof = self.proof.load();
        let signer = match &**proof {
            Proof::Key(signer) => signer,
            Proof::Token(given) => return given.credential(now),
        };
        if let Some(held) = self.held.lock().get(service)
            && held.is_fresh(now)
        {
            return Ok(held.clone());
        }
        // Signed outside the lock: two callers at once may sign twice, which is cheaper than waiting.
        let credential = signer.credential(service, now)?;
        self.report.signed();
        let mut held = self.held.lock();
        if held.len() >= MOST_HELD {
            held.retain(|_, held| held.is_fresh(now));
        }
        // What an old key signed while it was replaced is not for keeping.
        if held.len() < MOST_HELD && Arc::ptr_eq(&proof, &self.proof.load()) {
            held.insert(service.clone(), credential.clone());
        }
        Ok(credential)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("proof", &*self.proof.load()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Registry;

    fn signer() -> Signer {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let key = SigningKey::from_pem(pem.as_bytes(), "web-1").unwrap();
        let subject = "spiffe://shop.example/ns/default/sa/web".parse().unwrap();
        Signer { key, issuer: "https://issuer.example".into(), subject, life: Duration::from_secs(300) }
    }

    fn tokens() -> Tokens {
        Tokens::new(Proof::Key(signer()), Report::new(&Registry::new()))
    }

    /// A token for `orders.shop.peak` that expires at 1300.
    fn given() -> String {
        let service = "orders.shop.peak".parse().unwrap();
        signer().credential(&service, UnixSeconds(1_000)).unwrap().token.to_string()
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
    fn a_clock_that_is_set_anew_leads_to_a_token_that_holds_now_whichever_way_it_went() {
        let tokens = tokens();
        let ahead = token(&tokens, "orders.shop.peak", 90_000);
        let back = token(&tokens, "orders.shop.peak", 1_000);
        assert_ne!(ahead, back, "one that holds tomorrow is good for nothing today");
        assert!(Arc::ptr_eq(&back, &token(&tokens, "orders.shop.peak", 1_149)));
        assert_ne!(back, token(&tokens, "orders.shop.peak", 90_000));
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
            let (from, stale, expires) = (UnixSeconds(1_000), UnixSeconds(1_100), UnixSeconds(1_200));
            let credential = Credential { token: "t".into(), from, stale, expires };
            tokens.held.lock().insert(service, credential);
        }
        let first = token(&tokens, "orders.shop.peak", 1_000);
        assert!(!Arc::ptr_eq(&first, &token(&tokens, "orders.shop.peak", 1_000)));
        let later = token(&tokens, "orders.shop.peak", 1_100);
        assert!(Arc::ptr_eq(&later, &token(&tokens, "orders.shop.peak", 1_101)));
    }

    #[test]
    fn a_given_token_goes_to_every_service_until_the_very_second_it_expires() {
        let text = given();
        let given = GivenToken::parse(&format!("{text}\n")).unwrap();
        let tokens = Tokens::new(Proof::Token(given), Report::new(&Registry::new()));
        assert_eq!(&*token(&tokens, "orders.shop.peak", 1_000), text);
        assert_eq!(&*token(&tokens, "users.shop.peak", 1_299), text);
        let refused = tokens.authenticate(&"orders.shop.peak".parse().unwrap(), UnixSeconds(1_300)).unwrap_err();
        assert_eq!(refused, NoCredential::TokenExpired { ago: Duration::ZERO });
    }

    #[test]
    fn what_an_old_key_signed_is_not_used_after_it_was_replaced() {
        let tokens = tokens();
        let old = token(&tokens, "orders.shop.peak", 1_000);
        tokens.replace(Proof::Key(signer()));
        assert_ne!(token(&tokens, "orders.shop.peak", 1_001), old);
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_one() {
        assert_eq!(GivenToken::parse("not a token").unwrap_err().reason(), "token-malformed");
    }

    #[test]
    fn neither_token_nor_key_is_printed() {
        let tokens = tokens();
        let credential = tokens.authenticate(&"orders.shop.peak".parse().unwrap(), UnixSeconds(1_000)).unwrap();
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        assert!(!format!("{tokens:?}").contains("eyJ"));
        tokens.replace(Proof::Token(GivenToken::parse(&given()).unwrap()));
        assert!(!format!("{tokens:?}").contains("eyJ"));
    }
}
