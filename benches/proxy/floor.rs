//! The least that a relay on the same foundations can do, and a load of a fixed rate: what proxies are compared with.
//!
//! ```text
//! floor tls-out LISTEN SERVER    TCP in, mutual TLS 1.3 out; no token, no policy, no metrics
//! floor tls-in  LISTEN SERVER    the other end
//! floor http-out LISTEN SERVER   the same by requests of HTTP/1.1, read and written anew
//! floor http-in  LISTEN SERVER   the other end
//! floor plain   LISTEN SERVER    TCP in, TCP out
//! floor redirected LISTEN        the same to where a packet rule found the connection going
//! floor load    SERVER RATE SECONDS CONNECTIONS
//!                                GET /1k at a fixed rate; prints "answered failed p50_us p99_us max_us"
//! ```
//!
//! Certificates come from files that the environment names: CA, CERT_A and KEY_A, CERT_B and KEY_B. Used by `run.py`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::cell::RefCell;
use std::env;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::CONNECTION;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const BUFFER_BYTES: usize = 64 * 1024;

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    match words[..] {
        ["tls-out", listen, server] => local.block_on(&runtime, relay_out(listen, server, Carry::Octets)),
        ["tls-in", listen, server] => local.block_on(&runtime, relay_in(listen, server, Carry::Octets)),
        ["http-out", listen, server] => local.block_on(&runtime, relay_out(listen, server, Carry::Requests)),
        ["http-in", listen, server] => local.block_on(&runtime, relay_in(listen, server, Carry::Requests)),
        ["plain", listen, server] => local.block_on(&runtime, relay_plain(listen, server)),
        ["redirected", listen] => local.block_on(&runtime, relay_redirected(listen)),
        ["load", server, rate, seconds, connections] => local.block_on(
            &runtime,
            load(server, rate.parse().unwrap(), seconds.parse().unwrap(), connections.parse().unwrap()),
        ),
        // `cargo bench` runs every benchmark; this one is run.py's.
        _ => eprintln!("see benches/proxy/README.md"),
    }
}

fn certificates(variable: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(env::var(variable).unwrap()).unwrap().map(Result::unwrap).collect()
}

fn key(variable: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(env::var(variable).unwrap()).unwrap()
}

fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("CA"));
    roots.into()
}

/// What goes from one connection to the other.
#[derive(Clone, Copy)]
enum Carry {
    Octets,
    Requests,
}

impl Carry {
    async fn both_ways(
        self,
        client: impl AsyncRead + AsyncWrite + Unpin + 'static,
        server: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Octets => both_ways(client, server).await,
            Self::Requests => requests(client, server).await,
        }
    }
}

async fn relay_out(listen: &str, server: &str, carry: Carry) {
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots())
        .with_client_auth_cert(certificates("CERT_A"), key("KEY_A"))
        .unwrap();
    let (connector, server) = (TlsConnector::from(Arc::new(config)), Rc::<str>::from(server));
    accept(listen, |client| {
        let (connector, server) = (connector.clone(), Rc::clone(&server));
        async move {
            let name = ServerName::try_from("b.test").map_err(io::Error::other)?;
            let remote = connector.connect(name, dial(&*server).await?).await?;
            carry.both_ways(client, remote).await
        }
    })
    .await;
}

async fn relay_in(listen: &str, server: &str, carry: Carry) {
    let verifier = rustls::server::WebPkiClientVerifier::builder(roots()).build().unwrap();
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("CERT_B"), key("KEY_B"))
        .unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.send_tls13_tickets = 1;
    let (acceptor, server) = (TlsAcceptor::from(Arc::new(config)), Rc::<str>::from(server));
    accept(listen, |client| {
        let (acceptor, server) = (acceptor.clone(), Rc::clone(&server));
        async move { carry.both_ways(acceptor.accept(client).await?, dial(&*server).await?).await }
    })
    .await;
}

async fn relay_plain(listen: &str, server: &str) {
    let server = Rc::<str>::from(server);
    accept(listen, |client| {
        let server = Rc::clone(&server);
        async move { both_ways(client, dial(&*server).await?).await }
    })
    .await;
}

async fn relay_redirected(listen: &str) {
    accept(listen, |client| async move {
        let wanted = socket2::SockRef::from(&client).original_dst_v6()?.as_socket();
        let server = dial(wanted.ok_or(io::ErrorKind::AddrNotAvailable)?).await?;
        both_ways(client, server).await
    })
    .await;
}

/// Carries every connection on a task of its own.
async fn accept<F: Future<Output = io::Result<()>> + 'static>(listen: &str, carry: impl Fn(TcpStream) -> F) {
    let listener = TcpListener::bind(listen).await.unwrap();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let _ = client.set_nodelay(true);
        spawn_local(carry(client));
    }
}

async fn dial(server: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(server).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn both_ways(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

/// One request after another, each answered before the next is taken.
async fn requests(
    client: impl AsyncRead + AsyncWrite + Unpin + 'static,
    server: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<()> {
    let (sender, connection) = http1::handshake(TokioIo::new(server)).await.map_err(io::Error::other)?;
    spawn_local(connection);
    let sender = Rc::new(RefCell::new(Some(sender)));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let sender = Rc::clone(&sender);
        async move {
            request.headers_mut().remove(CONNECTION);
            let mut asked = sender.borrow_mut().take().unwrap();
            asked.ready().await?;
            let answer = asked.send_request(request).await;
            *sender.borrow_mut() = Some(asked);
            answer
        }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(client), service)
        .await
        .map_err(io::Error::other)
}

/// What came of a load so far.
#[derive(Default)]
struct Answers {
    latencies_us: Vec<f64>,
    failed: u64,
}

/// Sends `rate` requests a second over so many connections. Latency runs from the planned time when the connection was
/// still busy then, so that a slow answer counts for those that it held up.
async fn load(server: &str, rate: f64, seconds: f64, connections: usize) {
    let answers = Rc::new(RefCell::new(Answers::default()));
    let begin = Instant::now() + Duration::from_millis(50);
    let callers: Vec<_> = (0..connections)
        .map(|first| {
            let due = move |turn: usize| (first + turn * connections) as f64 / rate;
            spawn_local(call(server.to_owned(), begin, seconds, due, Rc::clone(&answers)))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let Answers { mut latencies_us, failed } = answers.take();
    latencies_us.sort_by(f64::total_cmp);
    let at = |share: usize| latencies_us.get(latencies_us.len() * share / 100).copied().unwrap_or(f64::NAN);
    let longest = latencies_us.last().copied().unwrap_or(f64::NAN);
    println!("{} {failed} {:.1} {:.1} {longest:.1}", latencies_us.len(), at(50), at(99));
}

async fn call(server: String, begin: Instant, seconds: f64, due: impl Fn(usize) -> f64, answers: Rc<RefCell<Answers>>) {
    let (mut connection, mut buffer) = (None, vec![0; BUFFER_BYTES]);
    for turn in 0.. {
        if due(turn) > seconds {
            return;
        }
        let planned = begin + Duration::from_secs_f64(due(turn));
        let from = if Instant::now() < planned {
            sleep_until(planned).await;
            Instant::now()
        } else {
            planned
        };
        match timeout(Duration::from_secs(5), request(&mut connection, &server, &mut buffer)).await {
            // The first two also made their connection.
            Ok(Ok(true)) if turn < 2 => {}
            Ok(Ok(true)) => answers.borrow_mut().latencies_us.push(from.elapsed().as_secs_f64() * 1e6),
            Ok(Ok(false) | Err(_)) | Err(_) => {
                connection = None;
                answers.borrow_mut().failed += 1;
            }
        }
    }
}

async fn request(connection: &mut Option<TcpStream>, server: &str, buffer: &mut [u8]) -> io::Result<bool> {
    let tcp = match connection {
        Some(tcp) => tcp,
        None => connection.insert(dial(server).await?),
    };
    tcp.write_all(b"GET /1k HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut come = 0;
    loop {
        let octets = tcp.read(&mut buffer[come..]).await?;
        if octets == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        come += octets;
        let head = buffer[..come].windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head
            && come >= head + 4 + 1024
        {
            return Ok(buffer.starts_with(b"HTTP/1.1 200"));
        }
    }
}
