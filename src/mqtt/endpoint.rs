//! A broker's address with everything that a connection to it needs, and streams to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::events::ClientSettings;
use super::tls::{self, TlsError};

/// How long one address, and then the TLS handshake, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the advice on a TLS failure depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsFacts {
    pub(super) ca_file: Option<String>,
    pub(super) has_client_certificate: bool,
}

#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None` without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) tls_facts: TlsFacts,
    pub(super) credentials: Option<(String, String)>,
}

impl std::fmt::Debug for Endpoint {
    /// Omits the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Endpoint {
    pub(super) fn new(settings: &ClientSettings) -> Result<Self, TlsError> {
        let ca_file = settings.tls.clone().flatten();
        let config = match &settings.tls {
            None => None,
            Some(ca_file) => {
                Some(tls::client_config(ca_file.as_deref(), settings.client_certificate.as_ref())?)
            }
        };
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            tls: config,
            tls_facts: TlsFacts {
                ca_file: ca_file.map(|path| path.display().to_string()),
                has_client_certificate: settings.client_certificate.is_some(),
            },
            credentials: settings.credentials.clone(),
        })
    }

    /// Connects with TLS if it is configured.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.tls {
            None => Ok(Box::new(self.connect_tcp().await?)),
            Some(config) => Ok(Box::new(self.connect_tls(Arc::clone(config)).await?)),
        }
    }

    /// Connects to the first of the host's addresses that answers.
    pub(super) async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the host name has no address");
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(stream) => {
                    // Nagle's algorithm together with delayed TCP acknowledgements delays small packets by 40 ms.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) async fn connect_tls(
        &self,
        config: Arc<ClientConfig>,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let stream = self.connect_tcp().await?;
        timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await?
    }

    /// Returns whether the port speaks TLS, by a handshake that trusts no certificate.
    pub(super) async fn speaks_tls(&self) -> bool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let Ok(config) = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
        else {
            return false;
        };
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        match self.connect_tls(Arc::new(config)).await {
            Ok(_) => true,
            // The broker's certificate was received and not trusted.
            Err(error) => super::tls_faults::inside(&error).is_some_and(|error| {
                matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
            }),
        }
    }
}
