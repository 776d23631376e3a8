//! The encrypted connection: rustls with ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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
    /// The daemon's own certificate or key.
    #[error("{key} {path}: {reason}")]
    Own {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("mqtt.{given} is of no use alone; set mqtt.{missing} as well")]
    Alone {
        /// The key that is set.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// The system has no certificates.
    #[error("the system has no certificates to trust; install ca-certificates or set mqtt.ca_file")]
    NoRoots,
    /// The library's words.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Trust the authority in the file, or the system's, and show a certificate where there is one.
pub(super) fn client(
    ca_file: Option<&Path>,
    own: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => from_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = own else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let fault = |name: &'static str, path: &Path, reason: String| TlsError::Own {
        key: name,
        path: path.display().to_string(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault("mqtt.cert_file", certificate, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| fault("mqtt.key_file", key, error.to_string()))?;
    let config = config
        .with_client_auth_cert(chain, key_der)
        .map_err(|error| fault("mqtt.cert_file", certificate, error.to_string()))?;
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
