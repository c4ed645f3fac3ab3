//! Programs that ask for their connections, by SOCKS5 and by HTTP CONNECT, where nothing is redirected.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::sync::Arc;

use funicular::model::Name;
use funicular::sidecar::directory::{Directory, Found};
use funicular::sidecar::resolve::{ResolveError, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::bed::*;

const RULE: &str = "v=ssa1 gen=2";

/// An outbound half that is asked, an inbound half that it reaches, and the application behind that.
struct Asked {
    authority: Authority,
    outbound: Running,
    _inbound: Running,
    application: Application,
}

impl Asked {
    async fn start() -> Self {
        let authority = Authority::new();
        let application = Application::start().await;
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
        bed.inbound.directory = Table::of([service(&["::1/128"], &[RULE], None)]);
        let inbound = bed.start().await;
        let directory = Table::of([service(&["::1/128"], &[RULE], Some(inbound.address.port()))]);
        let outbound = OutboundBed::new(&authority, directory).start_explicit().await;
        Self { authority, outbound, _inbound: inbound, application }
    }

    /// Says this, and hears as much as `answer` is long.
    async fn told(&self, octets: &[u8], answer: &[u8]) -> TcpStream {
        let mut tcp = self.outbound.connect().await;
        tcp.write_all(octets).await.unwrap();
        let mut heard = vec![0; answer.len()];
        within(tcp.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, answer, "{}", String::from_utf8_lossy(&heard));
        tcp
    }
}

/// Knows of no service, and that there is none.
struct NoPeak;

impl Directory for NoPeak {
    fn lookup<'a>(&'a self, name: &'a Name) -> Found<'a> {
        Box::pin(async { Err(ResolveError::NotInPeak { name: name.clone() }) })
    }

    fn in_space(&self, _addr: Ipv6Addr) -> Option<Arc<Service>> {
        None
    }
}

const GRANTED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

#[tokio::test]
async fn a_service_is_called_by_its_name_over_either_protocol() {
    let mut asked = Asked::start().await;
    let mut client = asked.told(b"CONNECT orders.shop.peak:80 HTTP/1.1\r\nHost: x\r\n\r\n", GRANTED).await;
    hears(&mut client, &mut asked.application.accept().await, "by CONNECT").await;

    let name = SERVICE.as_bytes();
    let request = [b"\x05\x01\x00\x05\x01\x00\x03".as_slice(), &[name.len() as u8], name, b"\x00\x50"].concat();
    let mut client = asked.told(&request, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0").await;
    hears(&mut client, &mut asked.application.accept().await, "by SOCKS5").await;
    asked.outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"tunnel\"} 2").await;
}

#[tokio::test]
async fn what_a_program_says_behind_its_request_is_carried() {
    let mut asked = Asked::start().await;
    let mut tcp = asked.outbound.connect().await;
    tcp.write_all(b"CONNECT orders.shop.peak:80 HTTP/1.1\r\n\r\nquestion").await.unwrap();
    let mut heard = [0; 8];
    within(asked.application.accept().await.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"question");
}

#[tokio::test]
async fn what_is_no_service_is_connected_to_as_it_is_by_address_or_by_name() {
    let asked = Asked::start().await;
    let legacy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = legacy.local_addr().unwrap().port();
    let request = [b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01".as_slice(), &port.to_be_bytes()].concat();
    let mut client = asked.told(&request, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0").await;
    hears(&mut client, &mut within(legacy.accept()).await.unwrap().0, "by address").await;

    let outbound = OutboundBed::new(&asked.authority, Arc::new(NoPeak)).start_explicit().await;
    let mut client = outbound.connect().await;
    client.write_all(format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let (mut server, _) = within(legacy.accept()).await.unwrap();
    let mut heard = vec![0; GRANTED.len()];
    within(client.read_exact(&mut heard)).await.unwrap();
    hears(&mut client, &mut server, "by name").await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_a_word_that_the_program_understands() {
    let asked = Asked::start().await;
    for (octets, answer, reason) in [
        (&b"GET http://orders.shop.peak/ HTTP/1.1\r\n\r\n"[..], &b"HTTP/1.1 405 "[..], "connect-method"),
        (b"CONNECT nowhere HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 ", "connect-target"),
        (b"\x05\x01\x02", b"\x05\xff", "socks-authentication"),
        (b"\x05\x01\x00\x05\x02", b"\x05\x00\x05\x07", "socks-command"),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00\x05\x08", "socks-address"),
        (b"CONNECT users.shop.peak:80 HTTP/1.1\r\n\r\n", b"HTTP/1.1 502 ", "name-servers-unreachable"),
    ] {
        let mut rest = Vec::new();
        let mut tcp = asked.told(octets, answer).await;
        let _ = within(tcp.read_to_end(&mut rest)).await;
        asked.outbound.refused("outbound", reason, 1).await;
    }
    ends_by_reset(asked.told(b"\x04\x01\0\x50\x7f\0\0\x01\0", b"").await).await;
    asked.outbound.refused("outbound", "request-protocol", 1).await;
}

#[tokio::test]
async fn a_program_that_asks_for_the_sidecar_itself_is_refused() {
    let authority = Authority::new();
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = own.local_addr().unwrap().port();
    let mut bed = OutboundBed::new(&authority, Table::of([]));
    bed.outbound.reserved = BTreeSet::from([port]);
    let outbound = bed.start_explicit().await;
    let mut tcp = outbound.connect().await;
    tcp.write_all(format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nloop\n"), "{answer}");
    outbound.refused("outbound", "loop", 1).await;
}

/// What curl says of the service by way of `proxy`; the application answers every connection alike.
async fn curl(asked: &mut Asked, proxy: &str) -> Output {
    let proxy = format!("{proxy}://{}", asked.outbound.address);
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "15", "--proxytunnel", "--proxy", &proxy, "http://orders.shop.peak/"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let answering = async {
        let mut server = asked.application.accept().await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(server.read_buf(&mut heard).await.unwrap(), 0);
        }
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await.unwrap();
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), answering);
    output.unwrap()
}

#[tokio::test]
async fn curl_calls_a_service_by_way_of_either_protocol() {
    let mut asked = Asked::start().await;
    for proxy in ["socks5h", "http"] {
        let output = within(curl(&mut asked, proxy)).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hi", "{proxy}: {output:?}");
    }
}
