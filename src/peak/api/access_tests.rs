//! Who may do what, by each way of being known.

use super::*;
use crate::model::token::{Algorithm, Claims};
use crate::wire::jwks::{Jwks, to_jwks};
use crate::wire::jwt::{SigningKey, TrustedIssuer};

const ISSUER: &str = "https://issuer.example";
const NOW: UnixSeconds = UnixSeconds(1_000);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key() -> SigningKey {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    SigningKey::from_pem(key.serialize_pem().as_bytes(), "one").unwrap()
}

fn issuers(key: &SigningKey) -> Vec<TrustedIssuer> {
    let keys = Jwks::parse(to_jwks(&[key]).as_bytes()).unwrap();
    vec![TrustedIssuer::new(ISSUER, keys, &[Algorithm::EdDsa])]
}

/// Rules as a configuration has them, on all addresses, with TLS.
fn access(callers: &str, issuers: Vec<TrustedIssuer>) -> Access {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peak.yaml");
    let text = format!(
        "api:\n  listen: \"[::]:7443\"\n  tls: {{ certificate: c, key: k, client_ca: a }}\n  audience: peak\n  \
         trust: [{{ issuer: {ISSUER}, jwks: j }}]\n  callers: {callers}\n"
    );
    std::fs::write(&file, text).unwrap();
    let loaded = crate::config::load::<crate::config::peak::Peak>(&file).unwrap();
    Access::new(loaded.value.api.as_ref().unwrap(), Arc::new(Verifier::new(issuers, |_| {})))
}

struct Shown(&'static [&'static str]);

impl Peer for Shown {
    fn proves(&self, wanted: &Name) -> bool {
        self.0.iter().any(|shown| name(shown) == *wanted)
    }
}

fn token(key: &SigningKey, account: &str, audience: &str, expires: u64) -> String {
    let claims = Claims {
        issuer: ISSUER.into(),
        subject: format!("spiffe://shop.example/ns/ops/sa/{account}").parse().unwrap(),
        audience: vec![audience.into()],
        issued_at: UnixSeconds(900),
        not_before: UnixSeconds(900),
        expires: UnixSeconds(expires),
    };
    format!("Bearer {}", key.sign(&claims).unwrap())
}

fn may(
    access: &Access,
    shown: &'static [&'static str],
    token: Option<&str>,
    need: Need,
) -> Result<String, &'static str> {
    let permit = access.permit(&Shown(shown), token.map(str::as_bytes), need, NOW);
    permit.map(|permit| permit.who().to_owned()).map_err(|refusal| refusal.reason())
}

#[test]
fn who_is_not_listed_may_nothing_but_read_what_the_api_is() {
    let access = access("[{ certificate: ops.example, may: admin }]", Vec::new());
    assert_eq!(may(&access, &[], None, Need::Read), Err("caller-unknown"));
    assert_eq!(may(&access, &["web.example"], None, Need::Read), Err("caller-unknown"));
    assert_eq!(may(&access, &[], None, Need::Nothing), Ok(String::new()));
    assert_eq!(may(&access, &["ops.example"], None, Need::Admin), Ok("ops.example.".to_owned()));
}

#[test]
fn a_right_holds_what_the_lesser_ones_hold_and_no_more() {
    let access = access("[{ certificate: r.example }, { certificate: w.example, may: write }]", Vec::new());
    assert!(may(&access, &["r.example"], None, Need::Read).is_ok());
    assert_eq!(may(&access, &["r.example"], None, Need::Write), Err("caller-not-allowed"));
    assert!(may(&access, &["w.example"], None, Need::Write).is_ok());
    assert_eq!(may(&access, &["w.example"], None, Need::Admin), Err("caller-not-allowed"));
}

#[test]
fn zones_limit_what_may_be_changed() {
    let access =
        access("[{ certificate: w.example, may: write, zones: [shop.peak] }, { certificate: r.example }]", vec![]);
    let permit = access.permit(&Shown(&["w.example"]), None, Need::Write, NOW).unwrap();
    assert!(permit.changes(&name("Shop.peak")).is_ok());
    assert_eq!(permit.changes(&name("other.peak")).unwrap_err().reason(), "zone-not-allowed");
    let permit = access.permit(&Shown(&["r.example"]), None, Need::Read, NOW).unwrap();
    assert!(permit.changes(&name("shop.peak")).is_err());
}

#[test]
fn a_token_is_believed_when_it_is_of_a_trusted_issuer_for_this_audience_and_alive() {
    let (ours, theirs) = (key(), key());
    let access = access("[{ workload: spiffe://shop.example/ns/ops/sa/*, may: write }]", issuers(&ours));
    let may = |token: &str| may(&access, &[], Some(token), Need::Write);
    assert_eq!(may(&token(&ours, "ci", "peak", 2_000)), Ok("spiffe://shop.example/ns/ops/sa/ci".to_owned()));
    assert_eq!(may(&token(&theirs, "ci", "peak", 2_000)), Err("token-signature-wrong"));
    assert_eq!(may(&token(&ours, "ci", "orders.shop.peak", 2_000)), Err("token-audience-wrong"));
    assert_eq!(may(&token(&ours, "ci", "peak", 950)), Err("token-expired"));
    assert_eq!(may("Bearer x"), Err("token-malformed"));
    assert_eq!(may("Basic eDp5"), Err("caller-unknown"));
    access.verifier.trust(Vec::new());
    assert_eq!(may(&token(&ours, "ci", "peak", 2_000)), Err("token-issuer-unknown"));
}

#[test]
fn a_believed_token_of_nobody_listed_allows_nothing() {
    let key = key();
    let access = access("[{ workload: spiffe://shop.example/ns/ops/sa/ci }]", issuers(&key));
    assert_eq!(may(&access, &[], Some(&token(&key, "web", "peak", 2_000)), Need::Read), Err("caller-not-allowed"));
}

#[test]
fn a_wrong_token_is_not_made_good_by_a_certificate() {
    let access = access("[{ certificate: ops.example, may: admin }]", Vec::new());
    assert_eq!(may(&access, &["ops.example"], Some("Bearer x"), Need::Read), Err("token-malformed"));
}
