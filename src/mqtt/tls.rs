//! The encrypted connection: rustls with ring.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the configuration.
    #[error("mqtt.ca_file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The system has no certificates.
    #[error("the system has no certificates to trust; install ca-certificates or set mqtt.ca_file")]
    NoRoots,
    /// The library's words.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Trust the authority in the file, or the system's.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => from_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let fault = |reason: String| TlsError::File { path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fault("it holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("reading the system's certificates: {error}");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}
