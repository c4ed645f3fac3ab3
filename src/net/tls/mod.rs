//! TLS 1.3: who proves a name, who accepts which protocols.
//!
//! Owns the configuration of rustls (no other version than 1.3, aws-lc-rs, tickets on), certificates and keys from PEM
//! files, and handshakes. A stream that comes out of here has its protocol (ALPN) settled, and one that comes out of
//! [`ClientTls::connect`] belongs to a server that has proved the name.
//!
//! Source: RFC 8446; RFC 7301 for ALPN; RFC 9525 for names in certificates.

mod client;
mod file;
mod gulp;
mod hello;
mod server;
#[cfg(test)]
mod tests;
mod unproven;

pub use client::{ClientTls, ConnectError, NoHostName, host_name};
pub use file::TlsFileError;
pub use gulp::Gulp;
pub use hello::{First, Hello, HelloError, first_octets};
pub use server::{HandshakeError, ServerTls, proves};
pub use unproven::unproven;

use tokio::net::TcpStream;

use super::copy::OverTcp;

/// A connection on which we are the client.
pub type ClientStream = tokio_rustls::client::TlsStream<Gulp>;
/// A connection on which we are the server.
pub type ServerStream = tokio_rustls::server::TlsStream<Gulp>;

impl OverTcp for ClientStream {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }
}

impl OverTcp for ServerStream {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }
}
