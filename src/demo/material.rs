//! Keys, certificates and key sets of the demo: a development authority made afresh for each run.
//!
//! Nothing here is meant to outlive the run. Private keys are written to the bed's own folder alone, which only the
//! user can read, and appear in no error and no log.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Why material could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The certificate library refused.
    #[error("cannot make a key or certificate")]
    Certificate(#[from] rcgen::Error),
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A certificate authority that servers' callers trust.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A fresh authority.
    ///
    /// # Errors
    /// When the library cannot make a key.
    pub fn generate() -> Result<Self, MaterialError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "funicular demo authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate that proves `names`, written as `NAME.crt` and `NAME.key` into `folder`.
    ///
    /// # Errors
    /// When a key cannot be made or a file not be written.
    pub fn certify(&self, names: &[&str], folder: &Path, stem: &str) -> Result<Certified, MaterialError> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, stem);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let certified =
            Certified { certificate: folder.join(format!("{stem}.crt")), key: folder.join(format!("{stem}.key")) };
        write(&certified.certificate, &certificate.pem())?;
        write_private(&certified.key, &key.serialize_pem())?;
        Ok(certified)
    }
}

/// Where a server's certificate and key are.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub key: PathBuf,
}

/// A fresh Ed25519 key to sign callers' tokens with, PKCS#8 PEM.
///
/// # Errors
/// When the library cannot make a key.
pub fn signing_key_pem() -> Result<String, MaterialError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ED25519)?.serialize_pem())
}

/// Writes a file that anyone may read.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), MaterialError> {
    write_with_mode(path, text, 0o644)
}

/// Writes a file that only the user may read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), MaterialError> {
    write_with_mode(path, text, 0o600)
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> Result<(), MaterialError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| MaterialError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wire::jwt::SigningKey;

    #[test]
    fn a_server_key_is_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let certified = Authority::generate().unwrap().certify(&["orders.shop.peak"], folder.path(), "s1").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&certified.key), 0o600);
        assert!(std::fs::read_to_string(certified.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }

    #[test]
    fn a_signing_key_can_be_read_back() {
        let pem = signing_key_pem().unwrap();
        assert_eq!(SigningKey::from_pem(pem.as_bytes(), "web-1").unwrap().kid(), "web-1");
    }
}
