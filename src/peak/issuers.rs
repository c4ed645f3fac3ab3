//! The issuers whose tokens Peak accepts, with their keys as the files have them now.

use std::io;
use std::path::PathBuf;

use crate::config::common::Trust;
use crate::wire::jwks::{Jwks, JwksError};
use crate::wire::jwt::TrustedIssuer;

/// Why a key set does not serve. Names the file and the cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssuersError {
    /// It could not be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is none.
    #[error("{}: {cause}", .path.display())]
    Jwks {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: JwksError,
    },
}

/// Reads their key sets.
///
/// # Errors
/// The first file that does not serve.
pub(super) fn read(trust: &[Trust]) -> Result<Vec<TrustedIssuer>, IssuersError> {
    let issuer = |trust: &Trust| {
        let path = || trust.jwks.clone();
        let text = std::fs::read(&trust.jwks).map_err(|cause| IssuersError::Unreadable { path: path(), cause })?;
        let keys = Jwks::parse(&text).map_err(|cause| IssuersError::Jwks { path: path(), cause })?;
        Ok(TrustedIssuer::new(&trust.issuer, keys, &trust.algorithms))
    };
    trust.iter().map(issuer).collect()
}
