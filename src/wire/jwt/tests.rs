//! Tokens signed, forged, damaged and confused.

use proptest::prelude::*;

use super::*;
use crate::model::UnixSeconds;
use crate::wire::jwks::to_jwks;

const ISSUER: &str = "https://issuer.example";

fn ed25519(kid: &str) -> SigningKey {
    signing_key(&rcgen::PKCS_ED25519, kid)
}

fn p256(kid: &str) -> SigningKey {
    signing_key(&rcgen::PKCS_ECDSA_P256_SHA256, kid)
}

fn signing_key(algorithm: &'static rcgen::SignatureAlgorithm, kid: &str) -> SigningKey {
    let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
    SigningKey::from_pem(pem.as_bytes(), kid).unwrap()
}

fn trust(keys: &[&SigningKey], algorithms: &[Algorithm]) -> Vec<TrustedIssuer> {
    let keys = Jwks::parse(to_jwks(keys).as_bytes()).unwrap();
    vec![TrustedIssuer::new(ISSUER, keys, algorithms)]
}

fn claims() -> Claims {
    Claims {
        issuer: ISSUER.into(),
        subject: "spiffe://shop.example/ns/default/sa/web".parse().unwrap(),
        audience: vec!["orders.shop.peak".into()],
        issued_at: UnixSeconds(1_000),
        not_before: UnixSeconds(1_000),
        expires: UnixSeconds(1_300),
    }
}

fn verified(token: &str, trusted: &[TrustedIssuer]) -> Result<Claims, JwtError> {
    Unverified::parse(token.as_bytes())?.verify(trusted)
}

/// A token of this header and claims, whatever they say, signed by `key`.
fn forged(header: &str, claims: &str, key: &SigningKey) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", key.signature_for_tests(signed.as_bytes()))
}

/// A header whose `alg` is the given text, over otherwise good claims.
fn with_header(header: &str) -> JwtError {
    let key = ed25519("k1");
    let good = key.sign(&claims()).unwrap();
    let rest = good.split_once('.').unwrap().1;
    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
    verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).unwrap_err()
}

#[test]
fn what_one_key_signs_its_public_half_verifies_with_both_algorithms() {
    for (key, algorithm) in [(ed25519("k1"), Algorithm::EdDsa), (p256("k1"), Algorithm::Es256)] {
        assert_eq!(key.algorithm(), algorithm);
        let token = key.sign(&claims()).unwrap();
        assert_eq!(verified(&token, &trust(&[&key], &[algorithm])).unwrap(), claims());
    }
}

#[test]
fn an_audience_of_several_survives_the_way() {
    let key = ed25519("k1");
    let mut several = claims();
    several.audience.push("users.shop.peak".into());
    let token = key.sign(&several).unwrap();
    assert_eq!(verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).unwrap(), several);
}

#[test]
fn a_key_made_by_openssl_without_its_public_half_signs_as_well() {
    // PKCS#8 version 1; the private octets are those of RFC 8032 §7.1, test 1.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    let key = SigningKey::from_pem(pem.as_bytes(), "k1").unwrap();
    assert!(to_jwks(&[&key]).contains("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
    let token = key.sign(&claims()).unwrap();
    assert!(verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).is_ok());
}

#[test]
fn what_is_no_private_key_is_refused_and_never_printed() {
    for text in ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(SigningKey::from_pem(text.as_bytes(), "k1").unwrap_err(), BadSigningKey::NotAKey);
    }
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    assert_eq!(SigningKey::from_pem(p384.as_bytes(), "k1").unwrap_err(), BadSigningKey::NotAKey);
    assert_eq!(format!("{:?}", ed25519("k1")), r#"SigningKey(EdDSA "k1")"#);
}

#[test]
fn another_key_of_the_same_name_does_not_verify() {
    let token = ed25519("k1").sign(&claims()).unwrap();
    let refused = verified(&token, &trust(&[&ed25519("k1")], &[Algorithm::EdDsa])).unwrap_err();
    assert_eq!(refused, JwtError::Signature { kid: "k1".into() });
}

#[test]
fn changed_claims_do_not_verify() {
    let key = ed25519("k1");
    let mut other = claims();
    other.expires = UnixSeconds(9_999);
    let (mine, changed) = (key.sign(&claims()).unwrap(), key.sign(&other).unwrap());
    let signature = mine.rsplit_once('.').unwrap().1;
    let token = format!("{}.{signature}", changed.rsplit_once('.').unwrap().0);
    assert_eq!(verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).unwrap_err().reason(), "token-signature-wrong");
}

#[test]
fn headers_that_must_not_pass_are_each_refused_for_their_own_reason() {
    for (header, reason) in [
        (r#"{"typ":"JWT","alg":"none","kid":"k1"}"#, "token-unsigned"),
        (r#"{"typ":"JWT","alg":"NoNe","kid":"k1"}"#, "token-unsigned"),
        (r#"{"typ":"JWT","alg":"HS256","kid":"k1"}"#, "token-algorithm-refused"),
        (r#"{"typ":"JWT","alg":"RS256","kid":"k1"}"#, "token-algorithm-refused"),
        (r#"{"typ":"JWT","alg":"eddsa","kid":"k1"}"#, "token-algorithm-refused"),
        (r#"{"typ":"JWT","alg":"ES256","kid":"k1"}"#, "token-algorithm-refused"),
        (r#"{"alg":"EdDSA","kid":"k1"}"#, "token-type-wrong"),
        (r#"{"typ":"logout+jwt","alg":"EdDSA","kid":"k1"}"#, "token-type-wrong"),
        (r#"{"typ":"JWT","alg":"EdDSA"}"#, "token-key-unknown"),
        (r#"{"typ":"JWT","alg":"EdDSA","kid":"k2"}"#, "token-key-unknown"),
        (r#"{"typ":"JWT","alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}"#, "token-critical-extension"),
        (r#"{"typ":"JWT","kid":"k1"}"#, "token-malformed"),
        (r#"{"typ":"JWT","alg":"none","alg":"EdDSA","kid":"k1"}"#, "token-malformed"),
        (r#"["JWT"]"#, "token-malformed"),
        ("", "token-malformed"),
    ] {
        assert_eq!(with_header(header).reason(), reason, "{header}");
    }
}

#[test]
fn an_algorithm_is_accepted_only_from_an_issuer_trusted_with_it() {
    let key = p256("k1");
    let token = key.sign(&claims()).unwrap();
    let refused = verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).unwrap_err();
    assert_eq!(refused, JwtError::Algorithm { found: "ES256".into() });
}

#[test]
fn a_key_is_never_used_with_another_algorithm_than_its_own() {
    let key = ed25519("k1");
    let both = [Algorithm::EdDsa, Algorithm::Es256];
    let token = p256("k1").sign(&claims()).unwrap();
    let refused = verified(&token, &trust(&[&key], &both)).unwrap_err();
    assert!(matches!(refused, JwtError::KeyMismatch { .. }), "{refused}");
}

#[test]
fn an_issuer_that_is_not_trusted_is_named() {
    let key = ed25519("k1");
    let mut foreign = claims();
    foreign.issuer = "https://other.example".into();
    let refused = verified(&key.sign(&foreign).unwrap(), &trust(&[&key], &[Algorithm::EdDsa])).unwrap_err();
    assert_eq!(refused, JwtError::UnknownIssuer { found: "https://other.example".into() });
}

#[test]
fn a_subject_that_is_no_workload_is_refused_even_when_signed() {
    let key = ed25519("k1");
    let token = forged(
        r#"{"typ":"JWT","alg":"EdDSA","kid":"k1"}"#,
        r#"{"iss":"https://issuer.example","sub":"root","aud":"a","iat":1,"nbf":1,"exp":2}"#,
        &key,
    );
    let refused = verified(&token, &trust(&[&key], &[Algorithm::EdDsa])).unwrap_err();
    assert_eq!(refused.reason(), "token-subject-malformed");
}

#[test]
fn a_token_of_another_form_is_refused_before_anything_is_decoded() {
    for text in ["", "a", "a.b", "a.b.c.d", "..", "e30.e30.", "%%.e30.e30"] {
        assert_eq!(
            Unverified::parse(text.as_bytes()).err().map(|error| error.reason()),
            Some("token-malformed"),
            "{text}"
        );
    }
    assert_eq!(Unverified::parse(b"\xff.\xff.\xff").err(), Some(JwtError::Parts));
    assert_eq!(Unverified::parse(&[b'a'; LONGEST]).err(), Some(JwtError::Parts));
    let too_long = JwtError::TooLong { octets: LONGEST + 1 };
    assert_eq!(Unverified::parse(&[b'a'; LONGEST + 1]).err(), Some(too_long));
}

#[test]
fn a_numeric_date_may_have_a_fraction_and_saturates() {
    let decoded =
        |json: &str| serde_json::from_str::<raw::Claims>(json).unwrap().checked(&Subjects::Workloads).unwrap();
    let claims = decoded(r#"{"iss":"i","sub":"spiffe://a/ns/b/sa/c","aud":[],"iat":-5,"nbf":1.9,"exp":1e300}"#);
    assert_eq!((claims.issued_at, claims.not_before), (UnixSeconds(0), UnixSeconds(1)));
    assert_eq!(claims.expires, UnixSeconds(u64::MAX));
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Unverified::parse(&octets).map(|token| token.verify(&[]).is_err());
    }

    #[test]
    fn no_json_makes_it_panic(header in "\\PC{0,80}", claims in "\\PC{0,80}") {
        let token = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let _ = Unverified::parse(token.as_bytes()).map(|token| token.verify(&[]).is_err());
    }
}

/// A cluster that signs as Kubernetes does: RS256, no `typ`, service accounts as subjects.
struct Cluster {
    key: jsonwebtoken::EncodingKey,
    jwks: String,
}

impl Cluster {
    fn new(size: rcgen::RsaKeySize) -> Self {
        let pem = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap().serialize_pem();
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let components = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_private_key;
        let (n, e) = components(key.as_bytes()).unwrap();
        let [n, e] = [n, e].map(|octets| URL_SAFE_NO_PAD.encode(octets));
        let jwks = format!(r#"{{"keys":[{{"kty":"RSA","alg":"RS256","use":"sig","kid":"k1","n":"{n}","e":"{e}"}}]}}"#);
        Self { key, jwks }
    }

    fn trusted(&self, subjects: Subjects) -> Vec<TrustedIssuer> {
        let keys = Jwks::parse(self.jwks.as_bytes()).unwrap();
        vec![TrustedIssuer { subjects, ..TrustedIssuer::new(ISSUER, keys, &[Algorithm::Rs256]) }]
    }

    fn token(&self) -> String {
        let claims = r#"{"aud":["funicular.dev"],"exp":1300,"iat":1000,"nbf":1000,"iss":"https://issuer.example",
            "kubernetes.io":{"namespace":"default"},"sub":"system:serviceaccount:default:web"}"#;
        let [header, claims] = [r#"{"alg":"RS256","kid":"k1"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let algorithm = jsonwebtoken::Algorithm::RS256;
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

#[test]
fn a_clusters_own_token_speaks_of_a_workload_in_the_clusters_trust_domain() {
    let cluster = Cluster::new(rcgen::RsaKeySize::_2048);
    let token = cluster.token();
    let of_cluster = Subjects::ServiceAccounts { trust_domain: "shop.example".parse().unwrap() };

    let claims = verified(&token, &cluster.trusted(of_cluster)).unwrap();

    assert_eq!(claims.subject.as_str(), "spiffe://shop.example/ns/default/sa/web");
    assert_eq!(claims.audience, ["funicular.dev".into()]);
    let untyped = verified(&token, &cluster.trusted(Subjects::Workloads)).unwrap_err();
    assert_eq!(untyped.reason(), "token-type-wrong");
    let other = Cluster::new(rcgen::RsaKeySize::_2048);
    let forged =
        verified(&token, &other.trusted(Subjects::ServiceAccounts { trust_domain: "shop.example".parse().unwrap() }));
    assert_eq!(forged.unwrap_err().reason(), "token-signature-wrong");
}

#[test]
fn a_token_tells_its_bearer_when_it_expires() {
    let token = ed25519("k1").sign(&claims()).unwrap();
    assert_eq!(Unverified::parse(token.as_bytes()).unwrap().expires(), UnixSeconds(1_300));
}
