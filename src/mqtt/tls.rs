//! TLS to the broker: rustls with the ring provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

const CERT_FILE: &str = "mqtt.cert_file";
const KEY_FILE: &str = "mqtt.key_file";

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
    let Some(client_certificate) = client_certificate else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    Ok(Arc::new(with_client_certificate(config, client_certificate)?))
}

/// Checks that a CA file can be used.
pub(crate) fn check_ca_file(path: &Path) -> Result<(), TlsError> {
    roots_from_file(path).map(drop)
}

/// Checks that the files of a client certificate and its key can be used together.
pub(crate) fn check_client_certificate(files: &(PathBuf, PathBuf)) -> Result<(), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty());
    with_client_certificate(config, files).map(drop)
}

fn with_client_certificate(
    config: ConfigBuilder<ClientConfig, WantsClientCert>,
    (certificate, key): &(PathBuf, PathBuf),
) -> Result<ClientConfig, TlsError> {
    let error = |name: &'static str, path: &Path, reason: String| TlsError::ClientCertificate {
        key: name,
        path: path.display().to_string(),
        reason,
    };
    let chain = certificates(certificate).map_err(|reason| error(CERT_FILE, certificate, reason))?;
    let key_der = private_key(key).map_err(|reason| error(KEY_FILE, key, reason))?;
    config.with_client_auth_cert(chain, key_der).map_err(|fault| match fault {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!(
                "the key does not belong to the certificate in {CERT_FILE} {}; set both to files that were made together",
                certificate.display()
            );
            error(KEY_FILE, key, reason)
        }
        rustls::Error::InvalidCertificate(fault) => {
            error(CERT_FILE, certificate, format!("the certificate is not valid ({fault})"))
        }
        _ => {
            let reason = "the key is of a kind that is not supported; use RSA with 2048 bits or more, ECDSA with P-256 \
                          or P-384, or Ed25519";
            error(KEY_FILE, key, reason.to_owned())
        }
    })
}

/// Reads the certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|cause| cause.to_string())?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|cause| format!("the file is not valid PEM ({cause})"))?;
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    let has_key = contains(&text, "PRIVATE KEY-----");
    Err(match text.first() {
        // The tag with which every certificate in DER begins.
        Some(0x30) => format!(
            "the file contains no certificate in PEM format; if it is in DER format, convert it with openssl x509 \
             -inform der -in {} -out FILE.pem",
            path.display()
        ),
        _ if has_key => "the file holds a private key, and no certificate".to_owned(),
        _ => "the file contains no certificate in PEM format".to_owned(),
    })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read(path).map_err(|cause| cause.to_string())?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|cause| match cause {
        _ if contains(&text, "ENCRYPTED") => format!(
            "the key is encrypted, and the daemon asks for no passphrase; decrypt it with openssl pkey -in {} -out \
             FILE.key",
            path.display()
        ),
        rustls::pki_types::pem::Error::NoItemsFound if contains(&text, "BEGIN CERTIFICATE") => {
            "the file holds a certificate, and no private key".to_owned()
        }
        rustls::pki_types::pem::Error::NoItemsFound => {
            "the file contains no private key in PEM format".to_owned()
        }
        cause => format!("the file is not valid PEM ({cause})"),
    })
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn roots_from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let error = |reason: String| TlsError::CaFile { path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).map_err(error)? {
        roots
            .add(certificate)
            .map_err(|fault| error(format!("a certificate in the file is not valid ({fault})")))?;
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
