//! Keys and certificates from the files that the configuration names.

use std::path::{Path, PathBuf};

use super::outbound::Identity;
use super::outbound::authenticate::Tokens;
use super::report::Report;
use crate::config::sidecar::{self, Trust};
use crate::net::tls::{ClientTls, ServerTls, TlsFileError};
use crate::wire::jwks::{Jwks, JwksError};
use crate::wire::jwt::{BadSigningKey, SigningKey, TrustedIssuer};

use super::inbound::PROTOCOLS;

/// Why a file does not serve. Names the file and the cause, never what is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MaterialError {
    /// It could not be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It holds no key that signs.
    #[error("{}: {cause}", .path.display())]
    SigningKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: BadSigningKey,
    },
    /// It holds no usable key set.
    #[error("{}: {cause}", .path.display())]
    Jwks {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: JwksError,
    },
    /// Certificates and keys of TLS.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
}

/// Who this pod is.
pub(super) fn identity(identity: &sidecar::Identity, report: &Report) -> Result<Identity, MaterialError> {
    let path = &identity.signing_key;
    let key = SigningKey::from_pem(&read(path)?, &identity.key_id)
        .map_err(|cause| MaterialError::SigningKey { path: path.clone(), cause })?;
    let tokens = Tokens::new(key, &identity.issuer, identity.id.clone(), identity.token_life, report.clone());
    Ok(Identity { tokens, tls: ClientTls::from_file(&identity.ca)? })
}

/// What proves this pod's services' names.
pub(super) fn server(tls: &sidecar::Tls) -> Result<ServerTls, MaterialError> {
    Ok(ServerTls::from_files(&tls.certificate, &tls.key, &PROTOCOLS)?)
}

/// The issuers whose tokens are accepted, with their keys as the files have them now.
pub(super) fn trusted(trust: &[Trust]) -> Result<Vec<TrustedIssuer>, MaterialError> {
    let issuer = |trust: &Trust| {
        let path = &trust.jwks;
        let keys = Jwks::parse(&read(path)?).map_err(|cause| MaterialError::Jwks { path: path.clone(), cause })?;
        if keys.is_empty() {
            tracing::warn!(issuer = %trust.issuer, file = %path.display(), "no key of a kind that is used here");
        }
        Ok(TrustedIssuer { issuer: trust.issuer.as_str().into(), keys, algorithms: trust.algorithms.as_slice().into() })
    };
    trust.iter().map(issuer).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, MaterialError> {
    std::fs::read(path).map_err(|cause| MaterialError::Unreadable { path: path.into(), cause })
}
