//! TLS to the broker: rustls with the ring provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// An error in the TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA file can't be used.
    #[error("mqtt.ca_file {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The client certificate or its key can't be used.
    #[error("{key} {path}: {reason}")]
    ClientCertificate {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The system has no trusted certificates.
    #[error("the system has no trusted certificates; install ca-certificates or set mqtt.ca_file")]
    NoSystemRoots,
    /// An error of rustls.
    #[error("TLS: {0}")]
    Rustls(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}

/// Returns a configuration that trusts the CA file, or else the system's certificates, and that
/// authenticates with the client certificate if there is one.
pub(super) fn client_config(
    ca_file: Option<&Path>,
    client_certificate: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca_file {
        Some(path) => roots_from_file(path)?,
        None => roots_from_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = client_certificate else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let error = |name: &'static str, path: &Path, reason: String| TlsError::ClientCertificate {
        key: name,
        path: path.display().to_string(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| error("mqtt.cert_file", certificate, cause.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|cause| error("mqtt.key_file", key, cause.to_string()))?;
    let config = config
        .with_client_auth_cert(chain, key_der)
        .map_err(|cause| error("mqtt.cert_file", certificate, cause.to_string()))?;
    Ok(Arc::new(config))
}

fn roots_from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let error = |reason: String| TlsError::CaFile { path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|cause| error(cause.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|cause| error(cause.to_string()))?;
        roots.add(certificate).map_err(|cause| error(cause.to_string()))?;
    }
    if roots.is_empty() {
        return Err(error("the file contains no certificate in PEM format".to_owned()));
    }
    Ok(roots)
}

fn roots_from_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        log::warn!("cannot read one of the system's certificates: {error}");
    }
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}
