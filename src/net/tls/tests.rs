//! Handshakes over real sockets with certificates made on the spot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::Name;

/// An authority, its certificate in a file, and certificates that it signs.
struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn client(&self) -> ClientTls {
        ClientTls::from_file(&self.path("ca.pem")).unwrap()
    }

    fn server(&self, name: &str, protocols: &[&str]) -> ServerTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        ServerTls::from_files(&self.path("cert.pem"), &self.path("key.pem"), protocols).unwrap()
    }
}

/// Both outcomes of a handshake for `orders.shop.peak` over `pp2`.
async fn handshake(client: ClientTls, server: ServerTls) -> (Result<ClientStream, ConnectError>, Option<ServerStream>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let First::Tls(hello) = first_octets(listener.accept().await.unwrap().0).await.unwrap() else {
            panic!("no ClientHello");
        };
        assert_eq!(hello.server_name().as_deref(), Some("orders.shop.peak"));
        assert!(hello.offers("pp2") && !hello.offers("h2"));
        server.accept(hello, "pp2").await.ok()
    });
    let name: Name = "Orders.shop.peak.".parse().unwrap();
    let connected = client.connect(TcpStream::connect(address).await.unwrap(), &name, "pp2").await;
    (connected, serving.await.unwrap())
}

#[tokio::test]
async fn both_agree_on_the_suite_that_costs_least() {
    let authority = Authority::new();
    let (client, _) = handshake(authority.client(), authority.server("orders.shop.peak", &["pp2"])).await;
    let suite = client.unwrap().get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn a_server_that_proves_the_name_and_speaks_the_protocol_is_talked_to() {
    let authority = Authority::new();
    let (client, server) = handshake(authority.client(), authority.server("orders.shop.peak", &["pp2"])).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// A clock that can be set, in Unix seconds.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

#[tokio::test]
async fn a_certificate_is_judged_by_the_clock_as_it_is_now_whichever_way_it_was_set() {
    let authority = Authority::new();
    let server = authority.server("orders.shop.peak", &["pp2"]);
    let clock = Arc::new(Clock::default());
    let client = ClientTls::by_clock(&authority.path("ca.pem"), Arc::<Clock>::clone(&clock));
    // Nobody has set it yet; it is right; it runs far ahead; it is right again.
    for (now, proves) in [(0, false), (1_800_000_000, true), (100_000_000_000, false), (1_800_000_000, true)] {
        clock.0.store(now, Ordering::Relaxed);
        match (handshake(client.clone(), server.clone()).await.0, proves) {
            (Ok(_), true) => {}
            (outcome, _) => assert_eq!(outcome.unwrap_err().reason(), "server-unproven", "at {now}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_proves_nothing() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (client, _) = handshake(ours.client(), ours.server("users.shop.peak", &["pp2"])).await;
    assert_eq!(client.unwrap_err().reason(), "server-unproven");
    let (client, _) = handshake(ours.client(), other.server("orders.shop.peak", &["pp2"])).await;
    assert_eq!(client.unwrap_err().reason(), "server-unproven");
}

#[tokio::test]
async fn a_server_of_the_right_name_that_speaks_another_protocol_is_left_alone() {
    let authority = Authority::new();
    let (client, _) = handshake(authority.client(), authority.server("orders.shop.peak", &["h2"])).await;
    assert_eq!(client.unwrap_err().reason(), "server-protocol-missing");
    let (client, _) = handshake(authority.client(), authority.server("orders.shop.peak", &[])).await;
    assert_eq!(client.unwrap_err().reason(), "server-protocol-missing");
}

#[tokio::test]
async fn a_second_handshake_is_resumed_by_a_ticket() {
    let authority = Authority::new();
    let (client, server) = (authority.client(), authority.server("orders.shop.peak", &["pp2"]));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (connected, serving) = handshake(client.clone(), server.clone()).await;
        let (mut connected, mut serving) = (connected.unwrap(), serving.unwrap());
        assert_eq!(connected.get_ref().1.handshake_kind(), Some(expected));
        // The ticket comes with the first bytes from the server.
        serving.write_all(b"x").await.unwrap();
        serving.flush().await.unwrap();
        connected.read_u8().await.unwrap();
    }
}

/// Both ends of a connection.
async fn connected(authority: &Authority) -> (ClientStream, ServerStream) {
    let (client, server) = handshake(authority.client(), authority.server("orders.shop.peak", &["pp2"])).await;
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn megabytes_both_ways_at_once_arrive_unchanged_whatever_the_pieces() {
    let authority = Authority::new();
    let (client, server) = connected(&authority).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let exchange = async |stream: TlsHalf, piece: usize| {
        let (mut read, mut write) = stream;
        let writing = async {
            for octets in sent.chunks(piece) {
                write.write_all(octets).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (read, ()) = tokio::join!(read.read_to_end(&mut heard), writing);
        read.unwrap();
        assert!(heard == sent);
    };
    let (client, server) = (tokio::io::split(client), tokio::io::split(server));
    let client: TlsHalf = (Box::new(client.0), Box::new(client.1));
    let server: TlsHalf = (Box::new(server.0), Box::new(server.1));
    tokio::join!(exchange(client, 100_000), exchange(server, 777));
}

type TlsHalf = (Box<dyn tokio::io::AsyncRead + Unpin>, Box<dyn tokio::io::AsyncWrite + Unpin>);

#[tokio::test]
async fn an_idle_connection_keeps_no_octet() {
    let authority = Authority::new();
    let (mut client, mut server) = connected(&authority).await;
    for _ in 0..3 {
        client.write_all(&[1; 40_000]).await.unwrap();
        let mut heard = vec![0; 40_000];
        server.read_exact(&mut heard).await.unwrap();
        server.write_all(b"yes").await.unwrap();
        client.read_exact(&mut heard[..3]).await.unwrap();
    }
    for kept in [format!("{client:?}"), format!("{server:?}")] {
        assert_eq!(kept, "TlsStream { kept_octets: [0, 0, 0], .. }");
    }
}

#[tokio::test]
async fn a_reader_that_asks_for_an_octet_at_a_time_gets_all_of_them_and_then_the_end() {
    let authority = Authority::new();
    let (mut client, mut server) = connected(&authority).await;
    client.write_all(&[7; 30_000]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = 0;
    while server.read(&mut [0; 1]).await.unwrap() == 1 {
        heard += 1;
    }
    assert_eq!(heard, 30_000);
    // The other direction goes on.
    server.write_all(b"still here").await.unwrap();
    server.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still here");
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_a_failure_and_so_is_a_damaged_record() {
    let authority = Authority::new();
    let (client, mut server) = connected(&authority).await;
    drop(client);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);

    let (mut client, mut server) = connected(&authority).await;
    client.flush().await.unwrap();
    let (tcp, _) = client.get_ref();
    tcp.writable().await.unwrap();
    assert!(tcp.try_write(b"\x17\x03\x03\x00\x15 no record of this key").unwrap() > 0);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_costs_one_piece() {
    let authority = Authority::new();
    let (mut client, _server) = connected(&authority).await;
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(200), client.write(&[0; 65_536])).await {
        taken += written.unwrap();
        assert!(taken < 1 << 30, "nothing holds the writer back");
    }
    let kept: usize = format!("{client:?}").split([',', ']']).nth(2).unwrap().trim().parse().unwrap();
    assert!((1..=5 * 16_700).contains(&kept), "{kept}");
}

/// What comes of a connection that begins with these octets and ends there.
async fn beginning_with(octets: &[u8]) -> Result<First, HelloError> {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(octets).await.unwrap();
    client.shutdown().await.unwrap();
    first_octets(listener.accept().await.unwrap().0).await
}

#[tokio::test]
async fn plain_text_is_recognised_by_its_first_octet_and_kept() {
    let Ok(First::Other(_, octets)) = beginning_with(b"GET / HTTP/1.1").await else { panic!("not recognised") };
    assert_eq!(octets, b"GET / HTTP/1.1");
}

#[tokio::test]
async fn a_client_hello_that_is_cut_damaged_or_endless_is_refused_by_name() {
    let reason = async |octets: &[u8]| beginning_with(octets).await.err().map(|error| error.reason());
    assert_eq!(reason(b"").await, Some("hello-ended"));
    assert_eq!(reason(b"\x16\x03\x01\x00\x50\x01\x00").await, Some("hello-ended"));
    assert_eq!(reason(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff").await, Some("hello-malformed"));
    assert_eq!(reason(b"\x16\xff\xff\xff\xff\xff").await, Some("hello-malformed"));
    let mut endless = Vec::new();
    for _ in 0..20 {
        endless.extend(b"\x16\x03\x01\x04\x00\x01\x00\xff\xff");
        endless.extend([0; 1020]);
    }
    assert_eq!(reason(&endless).await, Some("hello-too-long"));
}

#[test]
fn files_that_do_not_serve_are_named_with_the_cause() {
    let authority = Authority::new();
    let _ = authority.server("orders.shop.peak", &[]);
    let [certificate, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|file| authority.path(file));
    let other_key = authority.path("other.pem");
    std::fs::write(&other_key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let refused = |certificate: &PathBuf, key: &PathBuf| match ServerTls::from_files(certificate, key, &[]) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    assert!(refused(&certificate, &other_key).contains("other.pem do not serve together"));
    assert!(refused(&key, &key).contains("key.pem: holds no certificate"));
    assert!(refused(&certificate, &ca).contains("ca.pem: holds no private key"));
    assert!(refused(&authority.path("absent.pem"), &key).contains("absent.pem: No such file"));
    std::fs::write(&other_key, "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refused(&other_key, &key).contains("other.pem: not well-formed PEM"));
}

#[test]
fn a_name_is_spelled_as_certificates_spell_it_or_refused() {
    assert_eq!(host_name(&"Orders.Shop.Peak.".parse().unwrap()).unwrap(), "orders.shop.peak");
    assert!(host_name(&Name::root()).is_err());
    assert!(host_name(&r"a\032b.peak".parse().unwrap()).is_err());
}
