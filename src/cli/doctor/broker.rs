//! The broker, checked with MQTT as the daemon uses it.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::config::{BrokerUrl, Config};
use crate::mqtt::probe::{self, CheckError, Report};
use crate::mqtt::{BrokerLimits, Cause, Closure, Message, QoS, Reason, Topics};
use crate::service::broker;

/// What one pixel of a PNG takes at most: three bytes, and the overhead of its rows.
const BYTES_PER_PIXEL: f64 = 3.1;

/// What to do if the broker gives no reason.
const READ_THE_LOG: &str = "read the broker's log, and check [mqtt] in the configuration";

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let (config, unreadable_password) = with_service_password(config, Path::new(broker::SERVICE_PASSWORD));
    let client_id = format!("denoised-doctor-{:08x}", fastrand::u32(..));
    let settings = match broker::settings(&config, client_id) {
        Ok(settings) => settings,
        Err(error) => return vec![settings_finding(&error, &config)],
    };
    let topics = Topics::new(config.root()).with_shared_queue(config.mqtt.shared_queue.parts());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let found = format!("not checked: cannot start the async runtime: {error}");
            return vec![Finding::missing("broker", found, "check the limits of processes and open files")];
        }
    };
    // A progress message of a job that no requester knows.
    let message = Message::new(topics.progress("doctor"), r#"{"step":0,"of":0,"eta_ms":0}"#);
    match runtime.block_on(probe::check(&settings, &topics, message)) {
        Ok(report) => report_findings(report, &config),
        Err(CheckError::Tls(error)) => vec![settings_finding(&error, &config)],
        Err(CheckError::Closed(closure)) => {
            vec![closure_finding(closure, unreadable_password.as_deref(), &config.mqtt.url)]
        }
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
        // An empty file is no password; its finding says so.
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.len() == 0) => {}
        Ok(_) => config.mqtt.password_file = Some(service_password.to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            config.mqtt.username.clear();
            return (config, Some(service_password.to_owned()));
        }
        Err(_) => {}
    }
    (config, None)
}

/// A setting that cannot be used. The error names the key. A file that cannot be used has a finding of its own.
fn settings_finding(error: &impl Display, config: &Config) -> Finding {
    let mqtt = &config.mqtt;
    let files = [&mqtt.password_file, &mqtt.ca_file, &mqtt.cert_file, &mqtt.key_file];
    let is_unreadable = files.into_iter().flatten().any(|path| std::fs::File::open(path).is_err());
    if is_unreadable || !broker::file_faults(config).is_empty() {
        let found = format!("{} is not checked: {error}", mqtt.url);
        return Finding::note("broker", found, "do what the line about this file says");
    }
    let next = "correct this key in the configuration, or the file that it names";
    Finding::missing("broker", error.to_string(), next)
}

/// Why no connection can be made. `unreadable_password` is the service's password that this user must not read.
fn closure_finding(closure: Closure, unreadable_password: Option<&Path>, url: &BrokerUrl) -> Finding {
    match (closure.cause, unreadable_password) {
        (Cause::LoginRequired, Some(path)) => Finding::note(
            "broker",
            format!("{url} answers, but the login is not checked: {} is not readable", path.display()),
            "run `sudo denoised doctor`",
        ),
        (Cause::NothingListens, _) => Finding::missing(
            "broker",
            format!("cannot connect to {url}: nothing listens on this port"),
            "sudo apt install mosquitto && sudo systemctl enable --now mosquitto, or set [mqtt] url to your broker",
        ),
        _ => {
            let Reason { cause, advice } = closure.reason;
            let next = advice.unwrap_or_else(|| READ_THE_LOG.to_owned());
            Finding::missing("broker", format!("cannot connect to {url}: {cause}"), next)
        }
    }
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
    findings.extend(deficits.into_iter().map(|Reason { cause, advice }| {
        Finding::note("broker feature", cause, advice.unwrap_or_else(|| "use another broker".to_owned()))
    }));
    findings.extend(refused.into_iter().map(|(topic, Reason { cause, advice })| {
        let next = advice.unwrap_or_else(|| "read the broker's log, and check its access list".to_owned());
        Finding::missing("broker topic", format!("the broker refuses {topic}: {cause}"), next)
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

    /// A missing file was reported and counted as two missing things.
    #[test]
    fn a_missing_file_counted_twice() {
        let mut config = Config::default();
        config.mqtt.key_file = Some(PathBuf::from("/nonexistent/key.pem"));
        let finding = settings_finding(&"mqtt.key_file /nonexistent/key.pem: no such file", &config);
        assert_eq!(finding.state, super::super::finding::FindingState::Note);
        config.mqtt.key_file = Some(PathBuf::from("/etc/passwd"));
        let finding = settings_finding(&"mqtt.key_file /etc/passwd: no private key", &config);
        assert_eq!(finding.state, super::super::finding::FindingState::Missing);
    }

    /// The consequence of a missing feature was printed as the advice.
    #[test]
    fn each_finding_has_the_cause_and_the_advice_of_its_reason() {
        let reason = |cause: &str, advice: Option<&str>| Reason {
            cause: cause.to_owned(),
            advice: advice.map(str::to_owned),
        };
        let report = Report {
            limits: BrokerLimits::default(),
            deficits: vec![reason("no shared queue: requests on it are lost", Some("use another; or none"))],
            refused: vec![("jobs".to_owned(), reason("denied; twice", None))],
        };
        let findings = report_findings(report, &Config::default());
        let texts: Vec<_> =
            findings[1..].iter().map(|finding| (&*finding.found, finding.next.as_deref().unwrap())).collect();
        assert_eq!(
            texts,
            [
                ("no shared queue: requests on it are lost", "use another; or none"),
                (
                    "the broker refuses jobs: denied; twice",
                    "read the broker's log, and check its access list"
                ),
            ]
        );
    }

    #[test]
    fn a_finding_depends_on_the_cause_and_not_on_the_text() {
        let url = &Config::default().mqtt.url;
        let closure = |cause, text: &str| Closure {
            cause,
            reason: Reason { cause: text.to_owned(), advice: Some("advice".to_owned()) },
        };
        let path = Some(Path::new("/password"));
        let found = |closure, path| closure_finding(closure, path, url);
        let text = "nothing listens without a login";
        assert_eq!(
            found(closure(Cause::Other, text), path),
            Finding::missing("broker", format!("cannot connect to {url}: {text}"), "advice")
        );
        let login = found(closure(Cause::LoginRequired, "?"), path);
        assert!(login.found.ends_with("the login is not checked: /password is not readable"), "{login}");
        assert!(found(closure(Cause::LoginRequired, "?"), None).found.ends_with(": ?"));
        assert!(found(closure(Cause::NothingListens, "?"), None).found.ends_with("listens on this port"));
    }
}
