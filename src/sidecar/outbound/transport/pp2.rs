//! `token=pp2`: TLS, one PROXY v2 header, then the bytes.

use std::net::SocketAddrV6;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{AttemptError, Remote};
use crate::model::Name;
use crate::net::tls::{ClientTls, ConnectError};
use crate::sidecar::outbound::authenticate::Credential;
use crate::sidecar::outbound::pick::Picked;
use crate::wire::proxy_header::{ProxyHeader, TokenOctets};

/// The ALPN protocol of `token=pp2`.
pub const ALPN: &str = "pp2";

/// Has the server prove the name, then tells it who calls. The header follows the end of the handshake at once: nothing
/// is waited for, neither the server nor the application, which may be one that lets the server speak first.
pub(super) async fn open(
    tcp: TcpStream,
    tls: &ClientTls,
    service: &Name,
    picked: &Picked,
    client_port: u16,
    credential: &Credential,
) -> Result<Remote, AttemptError> {
    let dst = picked.destination();
    let failed = |cause| AttemptError::Tls { dst, cause };
    let header = header(service, picked, client_port, credential)?;
    let mut stream = tls.connect(tcp, service, ALPN).await.map_err(failed)?;
    let ended = |error| failed(ConnectError::Ended(error));
    stream.write_all(&header).await.map_err(ended)?;
    stream.flush().await.map_err(ended)?;
    Ok(Remote::Pp2(Box::new(stream)))
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
