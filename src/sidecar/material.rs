//! Keys and certificates from the files that the configuration names.

use std::path::{Path, PathBuf};

use super::outbound::authenticate::{GivenToken, Proof, Signer};
use crate::config::sidecar::{self, Identity};
use crate::net::tls::{ClientTls, ServerTls, TlsFileError};
use crate::wire::jwt::{BadSigningKey, JwtError, SigningKey};

use super::inbound::PROTOCOLS;

/// Why a file does not serve. Names the file and the cause, never what is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MaterialError {
    /// A key or a token.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: Unfit,
    },
    /// Certificates and keys of TLS.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// The system would not give it.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// No key that signs.
    #[error(transparent)]
    SigningKey(#[from] BadSigningKey),
    /// No token.
    #[error(transparent)]
    Token(#[from] JwtError),
}

/// What proves who this pod is; none where the settings do not say. `config::sidecar` has made sure that they do.
pub(super) fn proof(identity: &Identity) -> Result<Option<Proof>, MaterialError> {
    if let Some(path) = &identity.token_file {
        let text = read(path)?;
        let given = GivenToken::parse(&String::from_utf8_lossy(&text));
        return given.map(|given| Some(Proof::Token(given))).map_err(|cause| refused(path, cause.into()));
    }
    let Identity { id: Some(subject), issuer: Some(issuer), signing_key: Some(path), key_id: Some(key_id), .. } =
        identity
    else {
        return Ok(None);
    };
    let key = SigningKey::from_pem(&read(path)?, key_id).map_err(|cause| refused(path, cause.into()))?;
    let (subject, life) = (subject.clone(), identity.token_life);
    Ok(Some(Proof::Key(Signer { key, issuer: issuer.as_str().into(), subject, life })))
}

/// Whom this pod believes that a server is a service.
pub(super) fn authorities(identity: &Identity) -> Result<ClientTls, MaterialError> {
    Ok(ClientTls::from_file(&identity.ca)?)
}

/// What proves this pod's services' names.
pub(super) fn server(tls: &sidecar::Tls) -> Result<ServerTls, MaterialError> {
    Ok(ServerTls::from_files(&tls.certificate, &tls.key, &PROTOCOLS)?)
}

fn read(path: &Path) -> Result<Vec<u8>, MaterialError> {
    std::fs::read(path).map_err(|cause| refused(path, Unfit::Unreadable(cause)))
}

fn refused(path: &Path, cause: Unfit) -> MaterialError {
    MaterialError::File { path: path.into(), cause }
}
