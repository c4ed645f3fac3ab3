//! Key sets, good and bad.

use proptest::prelude::*;

use super::*;

const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn set(keys: &[&str]) -> Result<Jwks, JwksError> {
    Jwks::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
}

fn ed25519(kid: &str) -> String {
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{X}"}}"#)
}

#[test]
fn keys_of_kinds_that_are_not_used_here_are_left_out() {
    let keys = set(&[
        r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#,
        r#"{"kty":"oct","k":"AA","kid":"shared"}"#,
        r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#,
        r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#,
        &format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"enc","x":"{X}"}}"#),
        &ed25519("k1"),
    ])
    .unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.find("k1").unwrap().algorithm(), Algorithm::EdDsa);
    assert!(keys.find("shared").is_none());
}

#[test]
fn every_fault_is_reported_with_its_place() {
    let error = set(&[
        &ed25519("k1"),
        "7",
        r#"{"kid":"k2"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","kid":"k3"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","kid":"k4","x":"AA"}"#,
        &format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"}}"#),
        &format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":5,"x":"{X}"}}"#),
        &format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k6","alg":"HS256","x":"{X}"}}"#),
        &format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k7","x":"{X}","d":"{X}"}}"#),
        &ed25519("k1"),
    ])
    .unwrap_err();
    let text = error.to_string();
    let expected = [
        "keys[1]: not an object",
        "keys[2]: kty is missing",
        "keys[3]: x is missing",
        "keys[4]: x is not 32 octets in base64url without padding",
        "keys[5]: kid is missing",
        "keys[6]: kid is no string",
        "keys[7]: alg is \"HS256\", but a key of this kind is for EdDSA",
        "keys[8]: d is the private half: it must not be here, and the key should be replaced",
        "keys[9]: kid \"k1\" is that of an earlier key",
    ];
    assert_eq!(text, expected.join("; "));
    assert!(!text.contains(X));
}

#[test]
fn a_text_that_is_no_set_is_refused_with_the_place() {
    assert_eq!(Jwks::parse(b"{\n  \"keys\": [,]}").unwrap_err(), JwksError::NotJson { line: 2, column: 12 });
    for text in ["{}", "[]", "7", r#"{"keys":{}}"#] {
        assert_eq!(Jwks::parse(text.as_bytes()).unwrap_err(), JwksError::NoKeys, "{text}");
    }
    assert!(Jwks::parse(br#"{"keys":[]}"#).unwrap().is_empty());
}

proptest! {
    #[test]
    fn no_members_make_it_panic(kty in "OKP|EC|oct|.{0,4}", crv in "Ed25519|P-256|.{0,4}", x in ".{0,50}") {
        let text = json!({ "keys": [{ "kty": kty, "crv": crv, "kid": "k", "x": x, "y": x }] }).to_string();
        let _ = Jwks::parse(text.as_bytes());
    }
}
