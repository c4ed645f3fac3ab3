//! TLS 1.3: who proves a name, who accepts which protocols.
//!
//! Owns the configuration of rustls (no other version than 1.3, aws-lc-rs, tickets on), certificates and keys from PEM
//! files, and handshakes. A stream that comes out of here has its protocol (ALPN) settled, and one that comes out of
//! [`ClientTls::connect`] belongs to a server that has proved the name.
//!
//! Source: RFC 8446; RFC 7301 for ALPN; RFC 9525 for names in certificates.

mod buffers;
mod client;
mod file;
mod hello;
mod server;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;
mod unproven;

pub use client::{ClientTls, ConnectError, NoHostName, host_name};
pub use file::TlsFileError;
pub use hello::{First, Hello, HelloError, first_octets};
pub use server::{HandshakeError, ServerTls, proves};
pub use stream::TlsStream;
pub use unproven::unproven;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::UnbufferedServerConnection;

/// A connection on which we are the client.
pub type ClientStream = TlsStream<UnbufferedClientConnection>;
/// A connection on which we are the server.
pub type ServerStream = TlsStream<UnbufferedServerConnection>;

/// The library's cryptography, with the suite first that costs least: processors have instructions for SHA-256, of which a handshake is
/// full, and few for the SHA-384 of the suite that the library puts first.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

/// Which half of a handshake is ours.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// How many handshakes have succeeded: by side, and whether in full or shorter by a ticket.
static HANDSHAKES: [[AtomicU64; 2]; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];

/// How many handshakes of this process have succeeded: side (`client`, `server`), how (`full`, `resumed`), number. It is
/// the process's, as its time on the processor is, which this explains.
#[must_use]
pub fn handshakes() -> [(&'static str, &'static str, u64); 4] {
    let [client, server] = &HANDSHAKES;
    let counted = |number: &AtomicU64| number.load(Ordering::Relaxed);
    [
        ("client", "full", counted(&client[0])),
        ("client", "resumed", counted(&client[1])),
        ("server", "full", counted(&server[0])),
        ("server", "resumed", counted(&server[1])),
    ]
}

fn count(side: Side, kind: Option<HandshakeKind>) {
    let of_side = match side {
        Side::Client => &HANDSHAKES[0],
        Side::Server => &HANDSHAKES[1],
    };
    of_side[usize::from(kind == Some(HandshakeKind::Resumed))].fetch_add(1, Ordering::Relaxed);
}
