//! The client's half: a server proves its name, or is told nothing.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder};
use tokio::net::TcpStream;

use super::file::{self, TlsFileError};
use super::stream::Connector;
use super::tickets::Tickets;
use super::{ClientStream, provider};
use crate::model::Name;

/// Whom a client believes. Cheap to clone; clones share the tickets that make the next handshake shorter.
#[derive(Clone)]
pub struct ClientTls {
    connector: Connector,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// A name that no certificate can prove.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{name} cannot stand in a certificate: labels of letters, digits, '-' and '_' can")]
pub struct NoHostName {
    /// The name.
    pub name: Name,
}

/// Why there is no connection on which anything may be said.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's certificate does not prove the name: the wrong server, or one whose certificate has run out.
    #[error("the server does not prove that it is {name}: {cause}")]
    Unproven {
        /// The name asked for.
        name: Name,
        /// What is wrong with the certificate.
        cause: rustls::Error,
    },
    /// It has proved the name, and does not speak the protocol asked for.
    #[error("the server is {name}, but does not speak {}", .protocols.join(" or "))]
    Protocol {
        /// The name asked for.
        name: Name,
        /// The ALPN protocols offered.
        protocols: Box<[&'static str]>,
    },
    /// It speaks no TLS 1.3, or refused ours.
    #[error("the TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection ended during the handshake.
    #[error("the connection ended during the TLS handshake: {0}")]
    Ended(io::Error),
    /// The name cannot be asked for.
    #[error(transparent)]
    Name(#[from] NoHostName),
}

impl ConnectError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unproven { .. } => "server-unproven",
            Self::Protocol { .. } => "server-protocol-missing",
            Self::Handshake(_) => "server-handshake-failed",
            Self::Ended(_) => "server-handshake-ended",
            Self::Name(_) => "name-unprovable",
        }
    }
}

impl ClientTls {
    /// A client that believes the authorities in the file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(authorities: &Path) -> Result<Self, TlsFileError> {
        Ok(Self::of(Self::believing(authorities)?.with_no_client_auth()))
    }

    /// A client that believes the authorities in the file, and proves itself with this certificate chain and key to
    /// those who ask.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn with_identity(authorities: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let mismatch = |cause| TlsFileError::Mismatch { certificate: certificate.into(), key: key.into(), cause };
        let config = Self::believing(authorities)?
            .with_client_auth_cert(file::certificates(certificate)?, file::private_key(key)?)
            .map_err(mismatch)?;
        Ok(Self::of(config))
    }

    /// A client that reads this clock.
    #[cfg(test)]
    pub(super) fn by_clock(authorities: &Path, clock: Arc<dyn rustls::time_provider::TimeProvider>) -> Self {
        let mut config = Self::believing(authorities).expect("an authority").with_no_client_auth();
        config.time_provider = clock;
        Self::of(config)
    }

    fn believing(authorities: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsFileError> {
        let roots = file::authorities(authorities)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|cause| TlsFileError::NotAnAuthority { path: authorities.into(), index: 0, cause })?;
        Ok(builder.with_root_certificates(roots))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.resumption = Resumption::store(Arc::new(Tickets::default()));
        Self { connector: Connector::from(Arc::new(config)) }
    }

    /// Shakes hands with the server behind `tcp`, which must prove `name` and speak `protocol`.
    ///
    /// Nothing but the handshake has been sent when this returns. Cancel safe in that the connection is closed.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        tcp: TcpStream,
        name: &Name,
        protocol: &'static str,
    ) -> Result<ClientStream, ConnectError> {
        self.connect_by_one_of(tcp, name, &[protocol]).await.map(|(stream, _)| stream)
    }

    /// As [`ClientTls::connect`], with a server that speaks one of `protocols`, the one liked best first; says which.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_by_one_of(
        &self,
        tcp: TcpStream,
        name: &Name,
        protocols: &[&'static str],
    ) -> Result<(ClientStream, &'static str), ConnectError> {
        let server_name = server_name(name)?;
        let alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let connected = self.connector.connect(tcp, server_name, alpn).await;
        let stream = connected.map_err(|error| failure(error, name, protocols))?;
        let agreed = stream.get_ref().1.alpn_protocol();
        match protocols.iter().find(|protocol| agreed == Some(protocol.as_bytes())) {
            Some(&protocol) => Ok((stream, protocol)),
            None => Err(ConnectError::Protocol { name: name.clone(), protocols: protocols.into() }),
        }
    }
}

/// The name as certificates and tokens spell it: lower case, without the final dot.
///
/// # Errors
/// [`NoHostName`] for labels that DNS allows and certificates do not.
pub fn host_name(name: &Name) -> Result<String, NoHostName> {
    let mut text = name.to_string();
    text.make_ascii_lowercase();
    text.pop();
    match rustls::pki_types::DnsName::try_from(text.as_str()) {
        Ok(_) => Ok(text),
        Err(_) => Err(NoHostName { name: name.clone() }),
    }
}

fn server_name(name: &Name) -> Result<ServerName<'static>, NoHostName> {
    ServerName::try_from(host_name(name)?).map_err(|_| NoHostName { name: name.clone() })
}

/// Sorts what tokio-rustls wraps into an I/O error.
fn failure(error: io::Error, name: &Name, protocols: &[&'static str]) -> ConnectError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match cause {
        None => ConnectError::Ended(error),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            ConnectError::Protocol { name: name.clone(), protocols: protocols.into() }
        }
        Some(cause @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
            ConnectError::Unproven { name: name.clone(), cause }
        }
        Some(cause) => ConnectError::Handshake(cause),
    }
}
