//! What a token claims, and whether the claims hold for one service at one moment.

use std::time::Duration;

use super::WorkloadId;
use crate::model::{Name, UnixSeconds};

/// The claims of a token whose signature has been verified (RFC 7519 §4.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claims {
    /// `iss`: who vouches for the subject.
    pub issuer: Box<str>,
    /// `sub`: who the bearer is.
    pub subject: WorkloadId,
    /// `aud`: the services it is meant for, names without a final dot.
    pub audience: Vec<Box<str>>,
    /// `iat`: when it was made.
    pub issued_at: UnixSeconds,
    /// `nbf`: not to be accepted before.
    pub not_before: UnixSeconds,
    /// `exp`: dead from this second on.
    pub expires: UnixSeconds,
}

/// What a verifier holds claims against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The issuer whose key verified the signature.
    pub issuer: &'a str,
    /// The service that is called.
    pub service: &'a Name,
    /// What `aud` must hold in place of the service's name, where the issuer's tokens are not made for one service.
    pub audience: Option<&'a str>,
}

/// A caller whose token holds. Only [`judge`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    id: WorkloadId,
    until: UnixSeconds,
}

impl Caller {
    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &WorkloadId {
        &self.id
    }

    /// The second from which its token is dead, leeway not counted.
    #[must_use]
    pub fn until(&self) -> UnixSeconds {
        self.until
    }
}

/// Why claims do not hold. One cause, one variant, one `reason`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unacceptable {
    /// RFC 7519 §4.1.1.
    #[error("the token's iss is {claimed:?}, the key that signed it belongs to {expected:?}")]
    Issuer {
        /// `iss`.
        claimed: Box<str>,
        /// Whose key it was.
        expected: Box<str>,
    },
    /// RFC 7519 §4.1.3: a token for somebody else, perhaps stolen from there.
    #[error("the token is meant for {claimed:?}, not for {service}: the caller asked for another service")]
    Audience {
        /// `aud`.
        claimed: Vec<Box<str>>,
        /// The service that was called.
        service: Name,
    },
    /// RFC 7519 §4.1.4: dead *at* `exp`, not after it.
    #[error("the token expired {} s ago: the caller must renew it; if many do, compare clocks", .ago.as_secs())]
    Expired {
        /// How long it has been dead.
        ago: Duration,
    },
    /// RFC 7519 §4.1.5.
    #[error("the token is not valid for another {} s: compare the two clocks", .wait.as_secs())]
    NotYet {
        /// How long until it is.
        wait: Duration,
    },
}

impl Unacceptable {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Issuer { .. } => "token-issuer-wrong",
            Self::Audience { .. } => "token-audience-wrong",
            Self::Expired { .. } => "token-expired",
            Self::NotYet { .. } => "token-not-yet-valid",
        }
    }
}

/// Decides whether verified claims hold for a service at `now`.
///
/// `leeway` is the clock skew forgiven, on both ends: a token is refused from `exp + leeway` on and before
/// `nbf - leeway`.
///
/// # Errors
/// The first that does not hold, in this order: issuer, audience, expiry, start.
///
/// Source: RFC 7519 §4.1.
pub fn judge(
    claims: &Claims,
    expected: &Expected<'_>,
    now: UnixSeconds,
    leeway: Duration,
) -> Result<Caller, Unacceptable> {
    if *claims.issuer != *expected.issuer {
        return Err(Unacceptable::Issuer { claimed: claims.issuer.clone(), expected: expected.issuer.into() });
    }
    let is_meant = |audience: &str| match expected.audience {
        Some(fixed) => audience == fixed,
        None => audience.parse::<Name>().as_ref() == Ok(expected.service),
    };
    if !claims.audience.iter().any(|audience| is_meant(audience)) {
        return Err(Unacceptable::Audience { claimed: claims.audience.clone(), service: expected.service.clone() });
    }
    let (now, leeway) = (now.0, leeway.as_secs());
    if now >= claims.expires.0.saturating_add(leeway) {
        return Err(Unacceptable::Expired { ago: Duration::from_secs(now - claims.expires.0) });
    }
    if now < claims.not_before.0.saturating_sub(leeway) {
        return Err(Unacceptable::NotYet { wait: Duration::from_secs(claims.not_before.0 - now) });
    }
    Ok(Caller { id: claims.subject.clone(), until: claims.expires })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const LEEWAY: Duration = Duration::from_secs(10);

    pub(in crate::model::token) fn claims() -> Claims {
        Claims {
            issuer: "https://issuer.example".into(),
            subject: "spiffe://shop.example/ns/default/sa/web".parse().unwrap(),
            audience: vec!["orders.shop.peak".into()],
            issued_at: UnixSeconds(1_000),
            not_before: UnixSeconds(1_000),
            expires: UnixSeconds(1_300),
        }
    }

    pub(in crate::model::token) fn judged(claims: &Claims, now: u64, leeway: Duration) -> Result<Caller, Unacceptable> {
        let service: Name = "Orders.shop.peak.".parse().unwrap();
        let expected = Expected { issuer: "https://issuer.example", service: &service, audience: None };
        judge(claims, &expected, UnixSeconds(now), leeway)
    }

    #[test]
    fn a_token_that_holds_names_its_caller_and_when_it_ends() {
        let caller = judged(&claims(), 1_100, LEEWAY).unwrap();
        assert_eq!(caller.id().account(), "web");
        assert_eq!(caller.until(), UnixSeconds(1_300));
    }

    #[test]
    fn a_token_is_refused_from_the_very_second_it_expires() {
        assert!(judged(&claims(), 1_299, Duration::ZERO).is_ok());
        let refused = judged(&claims(), 1_300, Duration::ZERO).unwrap_err();
        assert_eq!(refused, Unacceptable::Expired { ago: Duration::ZERO });
    }

    #[test]
    fn leeway_moves_both_ends_by_exactly_itself() {
        assert!(judged(&claims(), 1_309, LEEWAY).is_ok());
        assert_eq!(judged(&claims(), 1_310, LEEWAY).unwrap_err().reason(), "token-expired");
        assert!(judged(&claims(), 990, LEEWAY).is_ok());
        let refused = judged(&claims(), 989, LEEWAY).unwrap_err();
        assert_eq!(refused, Unacceptable::NotYet { wait: Duration::from_secs(11) });
    }

    #[test]
    fn one_of_several_audiences_is_enough_and_another_service_is_not() {
        let mut several = claims();
        several.audience.insert(0, "users.shop.peak".into());
        assert!(judged(&several, 1_100, LEEWAY).is_ok());
        several.audience.pop();
        assert_eq!(judged(&several, 1_100, LEEWAY).unwrap_err().reason(), "token-audience-wrong");
        several.audience.clear();
        assert_eq!(judged(&several, 1_100, LEEWAY).unwrap_err().reason(), "token-audience-wrong");
    }

    #[test]
    fn an_issuer_of_a_fixed_audience_is_held_to_it_octet_for_octet() {
        let service: Name = "orders.shop.peak".parse().unwrap();
        let judged = |audience: &str| {
            let mut fixed = claims();
            fixed.audience = vec![audience.into()];
            let expected =
                Expected { issuer: "https://issuer.example", service: &service, audience: Some("funicular.dev") };
            judge(&fixed, &expected, UnixSeconds(1_100), LEEWAY)
        };
        assert!(judged("funicular.dev").is_ok());
        assert_eq!(judged("Funicular.dev").unwrap_err().reason(), "token-audience-wrong");
        assert_eq!(judged("orders.shop.peak").unwrap_err().reason(), "token-audience-wrong");
    }

    #[test]
    fn an_issuer_cannot_speak_for_another() {
        let mut foreign = claims();
        foreign.issuer = "https://other.example".into();
        assert_eq!(judged(&foreign, 1_100, LEEWAY).unwrap_err().reason(), "token-issuer-wrong");
    }

    #[test]
    fn the_last_second_that_numbers_can_say_does_not_overflow() {
        let mut forever = claims();
        forever.expires = UnixSeconds(u64::MAX);
        forever.not_before = UnixSeconds(0);
        assert!(judged(&forever, u64::MAX - 1, LEEWAY).is_ok());
        assert!(judged(&forever, 0, LEEWAY).is_ok());
    }
}
