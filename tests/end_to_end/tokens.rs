//! Callers who are not who they say, and what the wire shows of those who are.

use std::net::SocketAddrV6;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use funicular::demo::material;
use funicular::demo::plan::{self, CACHE, CALLER, ISSUER, LEGACY, ORDERS};
use funicular::demo::probe::{self, Attempt, Outcome};
use funicular::demo::site::LEGACY_PORT;
use funicular::model::UnixSeconds;
use funicular::ops::clock;
use funicular::wire::jwt::SigningKey;

use crate::support::{Capture, Town, curl, fetch, honest, town, until};

/// The claims of a token for the service, from now for a minute.
fn payload(subject: &str) -> String {
    let now = clock::now().0;
    format!(
        r#"{{"iss":"{ISSUER}","sub":"{subject}","aud":"{}","iat":{now},"nbf":{now},"exp":{}}}"#,
        ORDERS.name,
        now + 60
    )
}

fn sign(key: &SigningKey, audience: &str, from: i64, until: i64) -> String {
    let at = |seconds: i64| UnixSeconds(clock::now().0.saturating_add_signed(seconds));
    key.sign(&probe::claims(ISSUER, CALLER, audience, at(from), at(until)).unwrap()).unwrap()
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_token_that_is_wrong_in_any_way_is_refused_and_counted() {
    let Town { site, .. } = &town(false);
    let own = site.signing_key();
    let foreign_pem = material::signing_key_pem().unwrap();
    let foreign = SigningKey::from_pem(foreign_pem.as_bytes(), own.kid()).unwrap();
    let unknown = SigningKey::from_pem(foreign_pem.as_bytes(), "web-2").unwrap();
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let valid = sign(own, ORDERS.name, 0, 60);
    let signature = valid.rsplit('.').next().unwrap();
    let forged = |header: &str, subject: &str, signature: &str| {
        format!("{}.{}.{signature}", encode(header), encode(&payload(subject)))
    };
    let admin = "spiffe://shop.example/ns/default/sa/admin";
    let none = r#"{"typ":"JWT","alg":"none","kid":"web-1"}"#;
    let eddsa = r#"{"typ":"JWT","alg":"EdDSA","kid":"web-1"}"#;
    let symmetric = r#"{"typ":"JWT","alg":"HS256","kid":"web-1"}"#;
    let table = [
        ("wrong: signed by a foreign key", Some(sign(&foreign, ORDERS.name, 0, 60)), "token-signature-wrong"),
        ("wrong: signed by a key nobody knows", Some(sign(&unknown, ORDERS.name, 0, 60)), "token-key-unknown"),
        ("wrong: another token's signature", Some(forged(eddsa, admin, signature)), "token-signature-wrong"),
        ("expired", Some(sign(own, ORDERS.name, -7_200, -3_600)), "token-expired"),
        ("not yet valid", Some(sign(own, ORDERS.name, 3_600, 7_200)), "token-not-yet-valid"),
        ("missing", None, "token-missing"),
        ("foreign audience", Some(sign(own, CACHE.name, 0, 60)), "token-audience-wrong"),
        ("alg none, no signature", Some(forged(none, CALLER, "")), "token-unsigned"),
        ("alg none, a signature", Some(forged(none, CALLER, signature)), "token-unsigned"),
        ("alg HS256 with the public key", Some(forged(symmetric, CALLER, signature)), "token-algorithm-refused"),
    ];
    let pod = site.pod(0);
    let right = honest(site, &ORDERS, 0, &valid);

    assert!(right.clone().make(site.client()).unwrap().is_served());
    for (what, token, reason) in table {
        let labels = [("direction", "inbound"), ("reason", reason)];
        let count = || site.counted(pod, "funicular_refusals_total", &labels).unwrap();
        let before = count();
        let outcome = Attempt { token, ..right.clone() }.make(site.client()).unwrap();
        assert!(outcome.is_refused(), "{what}: {outcome:?}");
        assert_eq!(count() - before, 1.0, "{what} is counted as {reason}; counted: {:?}", site.refusals(pod).unwrap());
    }
    assert!(right.make(site.client()).unwrap().is_served(), "refusals leave others alone");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_source_that_is_not_the_callers_is_refused_in_the_header_and_in_the_address() {
    let Town { site, .. } = &town(false);
    let stranger = plan::pod(2).address();
    let token = sign(site.signing_key(), ORDERS.name, 0, 60);
    let right = honest(site, &ORDERS, 0, &token);
    let elsewhere = probe::address_at(&ORDERS, stranger, 0).unwrap();
    let destination = SocketAddrV6::new(elsewhere, right.destination.port(), 0, 0);

    let header = Attempt { source: Some(stranger), ..right.clone() };
    let address = Attempt { destination, ..right.clone() };

    for (what, attempt) in [("header", header), ("address", address)] {
        let outcome = attempt.make(site.client()).unwrap();
        assert!(outcome.is_refused(), "{what}: {outcome:?}");
    }
    assert!(right.make(site.client()).unwrap().is_served());
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_application_cannot_be_reached_around_its_sidecar() {
    let Town { site, .. } = &town(false);
    let token = sign(site.signing_key(), ORDERS.name, 0, 60);
    let right = honest(site, &ORDERS, 0, &token);
    let own_address = SocketAddrV6::new(plan::pod(0).address(), 8080, 0, 0);

    let plain = Attempt { tls: false, header: false, ..right.clone() };
    let at_pod = Attempt { destination: own_address, ..plain.clone() };

    for attempt in [plain, at_pod] {
        let outcome = attempt.make(site.client()).unwrap();
        assert!(!matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_token_is_nowhere_in_clear_text_on_the_wire() {
    let Town { site, .. } = &town(false);
    let capture = Capture::start(site.router());
    let token = sign(site.signing_key(), ORDERS.name, 0, 60);

    let own = honest(site, &ORDERS, 0, &token).make(site.client()).unwrap();
    let pods = fetch(site, 5, &[]);
    let legacy = format!("http://{LEGACY}:{LEGACY_PORT}/?in-clear-text");
    curl(site.client(), &[&legacy]).run().unwrap();
    let holds = |needle: &[u8]| capture.holds(needle);
    until("the last request is in the capture", Duration::from_secs(10), || holds(b"in-clear-text"));

    assert!(own.is_served() && pods.len() == 5);
    assert!(holds(b"\x16\x03\x01") && holds(b"\x17\x03\x03"), "the capture holds no TLS records");
    for part in token.split('.') {
        assert!(!holds(part.as_bytes()), "a part of the token is in the capture");
        assert!(!holds(&part.as_bytes()[..16]), "the beginning of a part of the token is in the capture");
    }
    assert!(!holds(b"Host: orders.shop.peak"), "the request is in the capture");
    assert!(!holds(CALLER.as_bytes()), "the caller's name is in the capture");
    for spelling in base64_anywhere(CALLER.as_bytes()) {
        assert!(!holds(spelling.as_bytes()), "the caller's name is in the capture, in base64");
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn no_log_holds_a_token_or_a_key_however_fine_it_is() {
    let Town { site, .. } = &town(false);
    for pod in [site.client(), site.pod(0), site.pod(1), site.pod(2)] {
        curl(pod, &["-X", "POST", "http://127.0.0.1:15000/logging?level=trace"]).run().unwrap();
    }
    let ended = |extension: &str| {
        let files = std::fs::read_dir(site.folder()).unwrap().map(|entry| entry.unwrap().path());
        let wanted = files.filter(|path| path.extension().is_some_and(|found| found == extension));
        wanted.map(|path| std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    let expired = sign(site.signing_key(), ORDERS.name, -7_200, -3_600);

    let refused = honest(site, &ORDERS, 0, &expired).make(site.client()).unwrap();
    let pods = fetch(site, 5, &[]);
    until("the refusal is logged", Duration::from_secs(10), || ended("log").concat().contains("token-expired"));

    assert!(!refused.is_served() && pods.len() == 5);
    let (logs, keys) = (ended("log"), ended("key"));
    let key_lines: Vec<&str> = keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with("--")).collect();
    assert!(key_lines.len() >= 4 && logs.len() >= 4);
    // Every JWT begins like this: `{"` in base64url.
    for secret in key_lines.into_iter().chain(expired.split('.')).chain(["eyJ"]) {
        assert!(!logs.iter().any(|log| log.contains(secret)), "a token or a key is in a log");
    }
}

/// How `octets` look inside base64url of something longer, at each of the three places they may begin.
fn base64_anywhere(octets: &[u8]) -> Vec<String> {
    let spelling = |offset: usize| {
        let padded = [vec![0; offset], octets.to_vec()].concat();
        let text = URL_SAFE_NO_PAD.encode(padded);
        // Characters that also depend on what stands before or after are cut off.
        text[if offset == 0 { 0 } else { 4 }..text.len() - 2].to_owned()
    };
    (0..3).map(spelling).collect()
}

#[test]
fn a_name_is_found_in_base64_wherever_it_begins() {
    for before in ["", "x", "xy", "xyz"] {
        let text = URL_SAFE_NO_PAD.encode(format!("{before}{CALLER}\"}}"));
        assert!(base64_anywhere(CALLER.as_bytes()).iter().any(|spelling| text.contains(spelling)), "{before}");
    }
}
