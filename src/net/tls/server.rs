//! The server's half: proving the names of this pod's services.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, ParsedCertificate, WebPkiClientVerifier};

use super::file::{self, TlsFileError};
use super::{Hello, ServerStream, provider, stream};

/// What a server proves itself with. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// Which protocol is spoken is decided before the handshake, so there is one configuration for each as well; they
    /// share keys and tickets.
    by_protocol: Arc<[(Box<str>, Arc<ServerConfig>)]>,
}

/// Why a handshake failed after a good ClientHello.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// We and the client agree on nothing, or it does not believe our certificate.
    #[error("the TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The connection ended during the handshake.
    #[error("the connection ended during the TLS handshake: {0}")]
    Ended(io::Error),
}

impl HandshakeError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Tls(_) => "handshake-failed",
            Self::Ended(_) => "handshake-ended",
        }
    }
}

impl ServerTls {
    /// A server with this certificate chain and key, which speaks `protocols`.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn from_files(certificate: &Path, key: &Path, protocols: &[&str]) -> Result<Self, TlsFileError> {
        Self::asking(None, certificate, key, protocols)
    }

    /// The same, for clients alone that prove themselves by a certificate of the authorities in the file. Whose it is
    /// says [`proves`].
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn for_proven(
        authorities: &Path,
        certificate: &Path,
        key: &Path,
        protocols: &[&str],
    ) -> Result<Self, TlsFileError> {
        let verifier = Self::verifier(authorities, |builder| builder)?;
        Self::asking(Some(verifier), certificate, key, protocols)
    }

    /// The same, for clients with such a certificate and for those with none.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn for_anybody(
        authorities: &Path,
        certificate: &Path,
        key: &Path,
        protocols: &[&str],
    ) -> Result<Self, TlsFileError> {
        let verifier = Self::verifier(authorities, ClientCertVerifierBuilder::allow_unauthenticated)?;
        Self::asking(Some(verifier), certificate, key, protocols)
    }

    fn verifier(
        authorities: &Path,
        asking: impl FnOnce(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFileError> {
        let roots = Arc::new(file::authorities(authorities)?);
        asking(WebPkiClientVerifier::builder_with_provider(roots, provider())).build().map_err(|cause| {
            let cause = rustls::Error::General(cause.to_string());
            TlsFileError::NotAnAuthority { path: authorities.into(), index: 0, cause }
        })
    }

    fn asking(
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        certificate: &Path,
        key: &Path,
        protocols: &[&str],
    ) -> Result<Self, TlsFileError> {
        let mismatch = |cause| TlsFileError::Mismatch { certificate: certificate.into(), key: key.into(), cause };
        let chain = file::certificates(certificate)?;
        Self::new(verifier, chain, file::private_key(key)?, protocols).map_err(mismatch)
    }

    fn new(
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        protocols: &[&str],
    ) -> Result<Self, rustls::Error> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        // Tickets that hold the session, so that a returning caller costs half a handshake and we keep no table.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let octets = |protocol: &&str| protocol.as_bytes().to_vec();
        let speaking = |protocol: &&str| {
            let mut config = config.clone();
            config.alpn_protocols = vec![octets(protocol)];
            (Box::from(*protocol), Arc::new(config))
        };
        let by_protocol = protocols.iter().map(speaking).collect();
        config.alpn_protocols = protocols.iter().map(octets).collect();
        Ok(Self { config: Arc::new(config), by_protocol })
    }

    /// The same with a certificate chain and a key that are in memory, PEM.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(certificate: &[u8], key: &[u8], protocols: &[&str]) -> Result<Self, TlsFileError> {
        let memory = Path::new("memory");
        let mismatch = |cause| TlsFileError::Mismatch { certificate: memory.into(), key: memory.into(), cause };
        let chain = file::certificates_in(certificate, memory)?;
        Self::new(None, chain, file::private_key_in(key, memory)?, protocols).map_err(mismatch)
    }

    /// Answers a ClientHello and finishes the handshake, for this one of the protocols that the client offers. Bound it in
    /// time: the peer decides how long it takes.
    ///
    /// # Errors
    /// [`HandshakeError`]; the peer has been sent the protocol's own alert.
    pub async fn accept(&self, hello: Hello, protocol: &str) -> Result<ServerStream, HandshakeError> {
        let spoken = self.by_protocol.iter().find(|(spoken, _)| **spoken == *protocol);
        // One that is not spoken here leads to the alert that says so.
        let config = spoken.map_or(&self.config, |(_, config)| config);
        let (tcp, octets) = hello.unanswered();
        stream::accept(tcp, Arc::clone(config), octets).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(cause) => HandshakeError::Tls(cause.clone()),
                None => HandshakeError::Ended(error),
            }
        })
    }
}

/// Whether the client's certificate is one for the host of this name, spelled as [`super::host_name`] does (RFC 9525).
#[must_use]
pub fn proves(stream: &ServerStream, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(|chain| ParsedCertificate::try_from(chain.first()?).ok());
    first.is_some_and(|first| rustls::client::verify_server_name(&first, &name).is_ok())
}
