//! Reads the MQTT client's settings from the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ServiceError;
use super::password::PasswordSource;
use crate::config::{BrokerUrl, Config, PublishQos};
use crate::mqtt::client::ClientSettings;
use crate::mqtt::{QoS, check_ca_file, check_client_certificate};

/// The client closes a connection without activity after this time, 2.5 keep-alive intervals.
const STALL_TIMEOUT: Duration = Duration::from_secs(25);

/// The password that `denoised.service` passes to the daemon as a credential.
pub(crate) const SERVICE_PASSWORD: &str = "/etc/denoised/mqtt-password";

/// Returns the password file that systemd passes as a credential, if there is one.
pub(crate) fn password_credential() -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&directory).join("mqtt-password")).filter(|path| path.is_file())
}

/// Returns whether a user name is configured, and no password that this process can know of.
pub(crate) fn lacks_password(config: &Config) -> bool {
    let has_service_password = || std::fs::metadata(SERVICE_PASSWORD).is_ok_and(|file| file.len() > 0);
    let has_password =
        config.mqtt.password_file.is_some() || password_credential().is_some() || has_service_password();
    !config.mqtt.username.is_empty() && !has_password
}

/// Returns the password file of the service that is not used because no user name is configured.
pub(crate) fn unused_password(config: &Config) -> Option<PathBuf> {
    let mqtt = &config.mqtt;
    if !mqtt.username.is_empty() || mqtt.password_file.is_some() {
        return None;
    }
    let files = password_credential().into_iter().chain([PathBuf::from(SERVICE_PASSWORD)]);
    files.into_iter().find(|path| path.metadata().is_ok_and(|file| file.len() > 0))
}

/// The report of a password file that is not used.
pub(crate) fn unused_password_warning(path: &Path) -> String {
    format!(
        "the password in {} is not sent, because mqtt.username is not set; set it, or empty the file",
        path.display()
    )
}

/// Reads the settings of a client with this id from the configuration and the files that it names.
pub(crate) fn settings(config: &Config, client_id: String) -> Result<ClientSettings, ServiceError> {
    let mqtt = &config.mqtt;
    let BrokerUrl { host, port, tls } = mqtt.url.clone();
    let file = mqtt.password_file.clone().map(PasswordSource::File);
    let password = file
        .or_else(|| password_credential().map(PasswordSource::Credential))
        .filter(|_| !mqtt.username.is_empty());
    let password = password.map(|source| source.read());
    if let Some(fault) = mqtt.incomplete_pair() {
        return Err(ServiceError::IncompletePair(fault));
    }
    if let Some(path) = unused_password(config) {
        log::warn!("{}", unused_password_warning(&path));
    }
    let client_certificate = mqtt.cert_file.clone().zip(mqtt.key_file.clone());
    let password = password.transpose()?.unwrap_or_default();
    if !mqtt.username.is_empty() && password.trim().is_empty() {
        log::warn!(
            "mqtt.username is set and there is no password; set mqtt.password_file, or write it to the systemd \
                    credential mqtt-password"
        );
    }
    Ok(ClientSettings {
        host,
        port,
        tls: tls.then(|| mqtt.ca_file.clone()),
        client_id,
        credentials: (!mqtt.username.is_empty()).then(|| (mqtt.username.clone(), password)),
        max_packet: u32::try_from(mqtt.max_packet.0).unwrap_or(u32::MAX),
        qos: publish_qos(mqtt.qos),
        client_certificate,
        stall_timeout: STALL_TIMEOUT,
    })
}

/// Returns why the daemon cannot use files that the configuration names and that this process can read.
pub(crate) fn file_faults(config: &Config) -> Vec<ServiceError> {
    let mqtt = &config.mqtt;
    let readable = |path: &Option<PathBuf>| path.clone().filter(|path| std::fs::File::open(path).is_ok());
    let password = readable(&mqtt.password_file).and_then(|path| PasswordSource::File(path).read().err());
    if !mqtt.url.tls {
        return password.into_iter().collect();
    }
    let ca_file = readable(&mqtt.ca_file).and_then(|path| check_ca_file(&path).err());
    let certificate = readable(&mqtt.cert_file).zip(readable(&mqtt.key_file));
    let certificate = certificate.and_then(|files| check_client_certificate(&files).err());
    password.into_iter().chain([ca_file, certificate].into_iter().flatten().map(ServiceError::Tls)).collect()
}

/// Returns why the daemon cannot use the password that systemd passes from a file, if this process can read it.
pub(crate) fn credential_fault(path: &Path) -> Option<ServiceError> {
    std::fs::File::open(path).ok()?;
    PasswordSource::Credential(path.to_owned()).read().err()
}

/// Converts the QoS of the configuration.
pub(super) fn publish_qos(qos: PublishQos) -> QoS {
    match qos {
        PublishQos::AtLeastOnce => QoS::AtLeastOnce,
        PublishQos::ExactlyOnce => QoS::ExactlyOnce,
    }
}
