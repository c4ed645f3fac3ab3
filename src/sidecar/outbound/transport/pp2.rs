//! `token=pp2`: TLS, one PROXY v2 header, then the bytes.

use std::net::SocketAddrV6;

use tokio::net::TcpStream;

use super::{AttemptError, Remote};
use crate::model::Name;
use crate::net::tls::ClientTls;
use crate::sidecar::outbound::authenticate::Credential;
use crate::sidecar::outbound::pick::Picked;
use crate::wire::proxy_header::{ProxyHeader, TokenOctets};

/// The ALPN protocol of `token=pp2`.
pub const ALPN: &str = "pp2";

/// Has the server prove the name. The header that tells it who calls is given back unsent: it goes with the application's
/// first bytes where they are there, and alone where the application lets the server speak first.
pub(super) async fn open(
    tcp: TcpStream,
    tls: &ClientTls,
    service: &Name,
    picked: &Picked,
    client_port: u16,
    credential: &Credential,
) -> Result<Remote, AttemptError> {
    let dst = picked.destination();
    let header = header(service, picked, client_port, credential)?;
    let stream = tls.connect(tcp, service, ALPN).await.map_err(|cause| AttemptError::Tls { dst, cause })?;
    Ok(Remote::Pp2(Box::new(stream), header))
}

fn header(service: &Name, picked: &Picked, client_port: u16, credential: &Credential) -> Result<Vec<u8>, AttemptError> {
    let mut octets = Vec::with_capacity(1024);
    let header = ProxyHeader {
        source: SocketAddrV6::new(picked.source(), client_port, 0, 0),
        destination: picked.destination_v6(),
        authority: Some(service.clone()),
        token: Some(TokenOctets(credential.octets())),
        token_reference: None,
        generation: Some(picked.generation()),
    };
    header.encode(&mut octets)?;
    Ok(octets)
}
