//! What a token costs whoever is called: when it is seen for the first time, and again.
//!
//! Unit: microseconds of one thread. `signature` is the floor: the library's check of the same signature, without
//! reading a claim. Each token that is seen first is another one.
//!
//! `cargo bench --profile dist --bench token`

#![allow(clippy::unwrap_used, reason = "keys and claims below are made for each other")]

use std::cell::Cell;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use funicular::model::token::{Algorithm, Claims};
use funicular::model::{Name, UnixSeconds};
use funicular::trust::Verifier;
use funicular::wire::jwks::{Jwks, to_jwks};
use funicular::wire::jwt::{SigningKey, TrustedIssuer};
use jsonwebtoken::DecodingKey;

const ISSUER: &str = "https://issuer.example";
const SERVICE: &str = "orders.shop.peak";
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// A token like any other of a caller; `number` makes it another one.
fn claims(number: u64) -> Claims {
    Claims {
        issuer: ISSUER.into(),
        subject: "spiffe://shop.example/ns/default/sa/web".parse().unwrap(),
        audience: vec![SERVICE.into()],
        issued_at: UnixSeconds(NOW.0 - number % 1_000),
        not_before: UnixSeconds(NOW.0 - number % 1_000),
        expires: UnixSeconds(NOW.0 + 300 + number / 1_000),
    }
}

fn tokens(criterion: &mut Criterion) {
    let service: Name = SERVICE.parse().unwrap();
    let kinds = [
        ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
        ("EdDSA", &rcgen::PKCS_ED25519, Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
    ];
    for (name, kind, algorithm, jws) in kinds {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let key = SigningKey::from_pem(pair.serialize_pem().as_bytes(), "k1").unwrap();
        let keys = Jwks::parse(to_jwks(&[&key]).as_bytes()).unwrap();
        let verifier = Verifier::new(vec![TrustedIssuer::new(ISSUER, keys, &[algorithm])], |_| ());
        let number = Cell::new(0);
        let another = || {
            number.set(number.get() + 1);
            key.sign(&claims(number.get())).unwrap()
        };

        let one = another();
        let (signed, signature) = one.rsplit_once('.').unwrap();
        let public = match algorithm {
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pair.public_key_pem().as_bytes()),
            Algorithm::Es256 | Algorithm::Rs256 => DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes()),
        };
        let public = public.unwrap();
        criterion.bench_function(&format!("signature/{name}"), |bencher| {
            bencher
                .iter(|| jsonwebtoken::crypto::verify(black_box(signature), signed.as_bytes(), &public, jws).unwrap());
        });
        criterion.bench_function(&format!("first/{name}"), |bencher| {
            let first = |token: String| verifier.verify(Some(token.as_bytes()), &service, NOW).unwrap();
            bencher.iter_batched(another, first, BatchSize::SmallInput);
        });
        criterion.bench_function(&format!("again/{name}"), |bencher| {
            bencher.iter(|| verifier.verify(Some(black_box(one.as_bytes())), &service, NOW).unwrap());
        });
    }
}

criterion_group!(benches, tokens);
criterion_main!(benches);
