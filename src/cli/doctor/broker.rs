//! The broker, checked with MQTT as the daemon uses it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::config::Config;
use crate::mqtt::probe::{self, Report};
use crate::mqtt::{BrokerLimits, Message, QoS, Topics};
use crate::service::broker;

/// What one pixel of a PNG takes at most: three bytes, and the overhead of its rows.
const BYTES_PER_PIXEL: f64 = 3.1;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let (config, unreadable_password) = with_service_password(config, Path::new(broker::SERVICE_PASSWORD));
    let client_id = format!("denoised-doctor-{:08x}", fastrand::u32(..));
    let settings = match broker::settings(&config, client_id) {
        Ok(settings) => settings,
        Err(error) => return vec![finding_from(error.to_string(), &config)],
    };
    let topics = Topics::new(config.root()).with_shared_queue(config.mqtt.shared_queue.parts());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![finding_from(format!("cannot start the async runtime: {error}"), &config)],
    };
    // A progress message of a job that no requester knows.
    let message = Message::new(topics.progress("doctor"), r#"{"step":0,"of":0,"eta_ms":0}"#);
    match (runtime.block_on(probe::check(&settings, &topics, message)), unreadable_password) {
        (Ok(report), _) => report_findings(report, &config),
        (Err(reason), Some(path)) if reason.contains("without a login") => vec![Finding::note(
            "broker",
            format!(
                "{} answers, but the login is not checked: {} is not readable",
                config.mqtt.url,
                path.display()
            ),
            "run `sudo denoised doctor`",
        )],
        (Err(reason), _) => vec![finding_from(reason, &config)],
    }
}

/// Uses the service's password, as systemd passes it to the daemon. Also returns its file if it cannot be read.
fn with_service_password(config: &Config, service_password: &Path) -> (Config, Option<PathBuf>) {
    let mut config = config.clone();
    let needs_it = !config.mqtt.username.is_empty() && config.mqtt.password_file.is_none();
    if !needs_it || broker::password_credential().is_some() {
        return (config, None);
    }
    match std::fs::File::open(service_password) {
        Ok(_) => config.mqtt.password_file = Some(service_password.to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            config.mqtt.username.clear();
            return (config, Some(service_password.to_owned()));
        }
        Err(_) => {}
    }
    (config, None)
}

/// A failure, whose reason may end with what to do.
fn finding_from(reason: String, config: &Config) -> Finding {
    if reason.contains("nothing listens") {
        return Finding::missing(
            "broker",
            format!("cannot connect to {}: nothing listens on this port", config.mqtt.url),
            "sudo apt install mosquitto && sudo systemctl enable --now mosquitto, or set [mqtt] url to your broker",
        );
    }
    if reason.starts_with("mqtt.") {
        return Finding::missing(
            "broker",
            reason,
            "correct this key in the configuration, or the file that it names",
        );
    }
    let (found, next) = reason
        .split_once("; ")
        .unwrap_or((&reason, "read the broker's log, and check [mqtt] in the configuration"));
    Finding::missing("broker", format!("cannot connect to {}: {found}", config.mqtt.url), next)
}

fn report_findings(report: Report, config: &Config) -> Vec<Finding> {
    let Report { limits, deficits, refused } = report;
    let mut findings = vec![Finding::good("broker", summary(&limits, config))];
    if let Some(size) = limits.max_packet_size.filter(|size| u64::from(*size) < config.mqtt.max_packet.0) {
        findings.push(Finding::note(
            "broker packet size",
            format!("the broker accepts packets of {}, less than mqtt.max_packet", indicatif::BinaryBytes(size.into())),
            "if pictures are larger, raise the broker's limit (mosquitto: max_packet_size); a larger one is an error \
             `out_of_range`",
        ));
    }
    findings.extend(deficits.iter().map(|deficit| {
        let (found, next) = deficit.split_once(": ").unwrap_or((deficit, "use another broker"));
        Finding::note("broker feature", found, next)
    }));
    findings.extend(refused.iter().map(|(topic, reason)| {
        let (found, next) =
            reason.split_once("; ").unwrap_or((reason, "read the broker's log, and check its access list"));
        Finding::missing("broker topic", format!("the broker refuses {topic}: {found}"), next)
    }));
    findings
}

fn summary(limits: &BrokerLimits, config: &Config) -> String {
    let max_packet = limits
        .max_packet_size
        .map_or(config.mqtt.max_packet.0, |size| config.mqtt.max_packet.0.min(size.into()));
    let side = (max_packet as f64 / BYTES_PER_PIXEL).sqrt() as u64;
    let qos = match limits.max_qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce => 1,
        QoS::ExactlyOnce => 2,
    };
    let has = |is_available: bool| if is_available { "" } else { "no " };
    format!(
        "{} speaks MQTT 5 and accepts this login; packets of {} (room for a PNG of {side}x{side}), QoS {qos}, \
         {}retained messages, {}shared subscriptions",
        config.mqtt.url,
        indicatif::BinaryBytes(max_packet),
        has(limits.retain),
        has(limits.shared_subscriptions),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_password_is_used_if_the_configuration_names_none() {
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        let mut config = Config::default();
        std::fs::write(&password, "secret").unwrap();
        assert_eq!(with_service_password(&config, &password).0.mqtt.password_file, None);
        config.mqtt.username = "board".to_owned();
        assert_eq!(with_service_password(&config, &password).0.mqtt.password_file, Some(password.clone()));
        let missing = directory.path().join("missing");
        assert_eq!(with_service_password(&config, &missing), (config, None));
    }
}
