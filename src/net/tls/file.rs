//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file does not serve. Names the file, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// It could not be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is no well-formed PEM.
    #[error("{}: not well-formed PEM", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// No `BEGIN CERTIFICATE` in it.
    #[error("{}: holds no certificate (\"BEGIN CERTIFICATE\")", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key in it.
    #[error("{}: holds no private key (\"BEGIN PRIVATE KEY\")", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that cannot be a root of trust.
    #[error("{}: certificate {} cannot be trusted as an authority: {cause}", .path.display(), .index + 1)]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 0.
        index: usize,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// The key is not that of the certificate, or of a kind that TLS does not use.
    #[error("{} and {} do not serve together: {cause}", .certificate.display(), .key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What does not fit.
        cause: rustls::Error,
    },
}

/// All certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let octets = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&octets)
        .collect::<Result<_, pem::Error>>()
        .map_err(|_| TlsFileError::NotPem { path: path.into() })?;
    if certificates.is_empty() {
        return Err(TlsFileError::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

/// The authorities in a file, at least one.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(path)?.into_iter().enumerate() {
        let refused = |cause| TlsFileError::NotAnAuthority { path: path.into(), index, cause };
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

/// The first private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsFileError::NoKey { path: path.into() }),
        Err(_) => Err(TlsFileError::NotPem { path: path.into() }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|cause| TlsFileError::Unreadable { path: path.into(), cause })
}
