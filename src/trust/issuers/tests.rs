//! Key sets in files that change, and at a real server over TLS.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::model::UnixSeconds;
use crate::model::token::{Algorithm, Claims};
use crate::net::tls::{First, ServerTls, first_octets};
use crate::ops::ready::{Readiness, Ready};
use crate::wire::jwks::to_jwks;
use crate::wire::jwt::SigningKey;

const ISSUER: &str = "https://issuer.example";

fn key(kid: &str) -> SigningKey {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    SigningKey::from_pem(pem.as_bytes(), kid).unwrap()
}

fn token(key: &SigningKey) -> String {
    let claims = Claims {
        issuer: ISSUER.into(),
        subject: "spiffe://shop.example/ns/default/sa/web".parse().unwrap(),
        audience: vec!["orders.shop.peak".into()],
        issued_at: UnixSeconds(1_000),
        not_before: UnixSeconds(1_000),
        expires: UnixSeconds(1_300),
    };
    key.sign(&claims).unwrap()
}

fn verdict(verifier: &Verifier, key: &SigningKey) -> Result<(), &'static str> {
    let service = "orders.shop.peak".parse().unwrap();
    let verified = verifier.verify(Some(token(key).as_bytes()), &service, UnixSeconds(1_100));
    verified.map(drop).map_err(|error| error.reason())
}

fn trusting(jwks: KeySet) -> Trust {
    Trust {
        issuer: ISSUER.into(),
        jwks,
        jwks_ca: None,
        jwks_token: None,
        algorithms: vec![Algorithm::EdDsa],
        audience: None,
        kubernetes: None,
    }
}

fn verifier() -> Arc<Verifier> {
    Arc::new(Verifier::new(Vec::new(), |_| {}))
}

#[test]
fn a_new_key_in_the_file_is_trusted_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let (first, second) = (key("k1"), key("k2"));
    std::fs::write(&path, to_jwks(&[&first])).unwrap();
    let (trust, verifier) = (trusting(KeySet::File(path.clone())), verifier());
    let trust = std::slice::from_ref(&trust);
    let issuers = Issuers::new(trust, Arc::clone(&verifier), None).unwrap();
    assert_eq!(verdict(&verifier, &first), Ok(()));
    assert_eq!(verdict(&verifier, &second), Err("token-key-unknown"));

    std::fs::write(&path, to_jwks(&[&first, &second])).unwrap();
    issuers.read_again(trust).unwrap();
    assert_eq!(verdict(&verifier, &second), Ok(()));

    std::fs::write(&path, "{").unwrap();
    let errors = issuers.read_again(trust).unwrap_err();
    assert!(errors[0].to_string().contains("jwks.json: line 1"), "{}", errors[0]);
    assert_eq!(verdict(&verifier, &second), Ok(()));
}

#[test]
fn an_issuer_that_is_no_longer_listed_is_no_longer_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let key = key("k1");
    std::fs::write(&path, to_jwks(&[&key])).unwrap();
    let verifier = verifier();
    let issuers = Issuers::new(&[trusting(KeySet::File(path))], Arc::clone(&verifier), None).unwrap();

    issuers.read_again(&[]).unwrap();

    assert_eq!(verdict(&verifier, &key), Err("token-issuer-unknown"));
}

/// A server of one document over TLS, as `localhost`.
struct Server {
    port: u16,
    ca: PathBuf,
    document: Arc<Mutex<Result<String, StatusCode>>>,
    /// What requests brought as `Authorization`.
    bearers: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(document: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(path("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        std::fs::write(path("cert.pem"), certificate.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        let tls = ServerTls::from_files(&path("cert.pem"), &path("key.pem"), &["http/1.1"]).unwrap();
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (document, bearers) = (Arc::new(Mutex::new(Ok(document))), Arc::new(Mutex::new(Vec::new())));
        tokio::spawn(serve(listener, tls, Arc::clone(&document), Arc::clone(&bearers)));
        Self { port, ca: path("ca.pem"), document, bearers, _folder: folder }
    }

    fn trust(&self) -> Trust {
        let url = HttpsUrl { host: "localhost".parse().unwrap(), port: self.port, path: "/openid/v1/jwks".into() };
        Trust { jwks_ca: Some(self.ca.clone()), ..trusting(KeySet::At(url)) }
    }
}

async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    document: Arc<Mutex<Result<String, StatusCode>>>,
    bearers: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let Ok(First::Tls(hello)) = first_octets(tcp).await else { continue };
        let Ok(stream) = tls.accept(hello, "http/1.1").await else { continue };
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let bearer = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            bearers.lock().push(bearer.unwrap_or_default());
            let mut answer = Response::new(Full::new(Bytes::new()));
            match &*document.lock() {
                Ok(text) => *answer.body_mut() = Full::new(Bytes::from(text.clone())),
                Err(status) => *answer.status_mut() = *status,
            }
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

#[tokio::test]
async fn keys_come_from_afar_and_outlive_an_outage_of_their_server() {
    let (first, second) = (key("k1"), key("k2"));
    let server = Server::start(to_jwks(&[&first])).await;
    let (verifier, ready) = (verifier(), Ready::new());
    let issuers = Issuers::new(&[server.trust()], Arc::clone(&verifier), None).unwrap();
    assert_eq!(verdict(&verifier, &first), Err("token-key-unknown"));

    let had = ready.task("issuers-keys");
    tokio::select! {
        () = issuers.look_after(|| had.done()) => {}
        () = async { while ready.check() != Readiness::Ready { tokio::task::yield_now().await; } } => {}
    }
    assert_eq!(verdict(&verifier, &first), Ok(()));

    *server.document.lock() = Err(StatusCode::SERVICE_UNAVAILABLE);
    assert!(!issuers.ask().await);
    assert_eq!(verdict(&verifier, &first), Ok(()));

    *server.document.lock() = Ok(to_jwks(&[&second]));
    assert!(issuers.ask().await);
    assert_eq!(verdict(&verifier, &second), Ok(()));
    assert_eq!(verdict(&verifier, &first), Err("token-key-unknown"));
}

#[tokio::test]
async fn a_server_that_wants_a_token_gets_the_one_in_the_file_and_a_stranger_gets_nothing() {
    let key = key("k1");
    let server = Server::start(to_jwks(&[&key])).await;
    let folder = tempfile::tempdir().unwrap();
    let bearer = folder.path().join("token");
    std::fs::write(&bearer, "s3same\n").unwrap();
    let stranger = Server::start(to_jwks(&[&key])).await;
    let asked = |trust: Trust| async move { Issuers::new(&[trust], verifier(), None).unwrap().ask().await };

    assert!(asked(Trust { jwks_token: Some(bearer.clone()), ..server.trust() }).await);
    assert_eq!(*server.bearers.lock(), ["Bearer s3same"]);

    let unproven = Trust { jwks_token: Some(bearer), jwks_ca: Some(server.ca.clone()), ..stranger.trust() };
    assert!(!asked(unproven).await);
    assert_eq!(*stranger.bearers.lock(), [""; 0]);
}
