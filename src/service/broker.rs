//! Reads the MQTT client's settings from the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ServiceError;
use crate::config::{BrokerUrl, Config};
use crate::mqtt::TlsError;
use crate::mqtt::client::ClientSettings;

/// The client closes a connection without activity after this time, 2.5 keep-alive intervals.
const STALL_TIMEOUT: Duration = Duration::from_secs(25);

/// Returns the password file that systemd passes as a credential, if there is one.
fn password_credential() -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&directory).join("mqtt-password")).filter(|path| path.is_file())
}

/// Reads the settings from the configuration and the files that it names.
pub(super) fn settings(config: &Config) -> Result<ClientSettings, ServiceError> {
    let mqtt = &config.mqtt;
    let BrokerUrl { host, port, tls } = mqtt.url.clone();
    let password =
        mqtt.password_file.clone().or_else(password_credential).filter(|_| !mqtt.username.is_empty());
    let password = password.map(|path| {
        std::fs::read_to_string(&path)
            .map_err(|error| ServiceError::Password { path: path.display().to_string(), error })
    });
    let client_certificate = match (&mqtt.cert_file, &mqtt.key_file) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (Some(_), None) => {
            return Err(TlsError::IncompletePair { given: "cert_file", missing: "key_file" }.into());
        }
        (None, Some(_)) => {
            return Err(TlsError::IncompletePair { given: "key_file", missing: "cert_file" }.into());
        }
    };
    let password = password.transpose()?.unwrap_or_default();
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    Ok(ClientSettings {
        host,
        port,
        tls: tls.then(|| mqtt.ca_file.clone()),
        client_id: format!("denoised-{}", config.node.as_str()),
        credentials: (!mqtt.username.is_empty()).then(|| (mqtt.username.clone(), password)),
        max_packet: u32::try_from(mqtt.max_packet.0).unwrap_or(u32::MAX),
        client_certificate,
        stall_timeout: STALL_TIMEOUT,
    })
}
