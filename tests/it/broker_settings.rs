//! The broker's settings and the certificates, as the documents give them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::broker::Broker;
use crate::common::commands::denoised;
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;
use crate::common::{golden, repository};

/// Returns the code block of a document that contains `text`.
fn code_block(document: &str, text: &str) -> String {
    let document = std::fs::read_to_string(repository().join(document)).unwrap();
    let blocks = document.split("```").skip(1).step_by(2);
    let found = blocks.into_iter().find(|block| block.contains(text)).unwrap();
    found.split_once('\n').unwrap().1.to_owned()
}

/// Publishes as many requests with one mosquitto_pub. The broker acknowledges each.
fn publish_requests(broker: &Broker, count: usize) {
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &broker.port.to_string(), "-q", "1", "-t", "denoised/board/request", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = publisher.stdin.take().unwrap();
    for number in 0..count {
        writeln!(lines, "{{\"id\": \"burst-{number}\", \"steps\": 1, \"seed\": 1}}").unwrap();
    }
    drop(lines);
    assert!(publisher.wait().unwrap().success());
}

/// Publishes requests while the daemon is off, and returns how many of them it gets when it starts again.
fn received_of_burst(settings: &str, count: usize, expected: usize) -> usize {
    let broker = Broker::with_config(&format!("{settings}\npersistence_location {{dir}}/\n"));
    let limits = format!("[limits]\nqueue = {count}\n");
    let configuration = configuration(&broker, "board", &[&golden("gaussian")], &limits);
    let mut first = Daemon::start(&configuration);
    first.wait_for("ready");
    let spool = first.spool.clone();
    first.terminate();
    publish_requests(&broker, count);
    let mut results = Subscriber::start(&broker, "denoised/board/result/#");
    let _second = Daemon::with_spool(&configuration, &spool);
    for _ in 0..expected {
        results.next(|_| true);
    }
    // This request was published last, so that nothing of the burst comes after it.
    crate::common::broker::publish(&broker, "denoised/board/request", r#"{"id": "last", "steps": 1}"#, &[]);
    results.on("denoised/board/result/last");
    results.seen.iter().filter(|message| message.topic.contains("/burst-")).count()
}

/// mosquitto acknowledged 2,000 requests to the requester, and dropped those that it did not queue.
#[test]
fn a_burst_survives_with_the_documented_settings_and_is_dropped_beyond_a_limit() {
    let documented = code_block("docs/reliability.md", "max_queued_messages 0");
    assert_eq!(received_of_burst(&documented, 1500, 1500), 1500);
    let limited = documented.replace("max_queued_messages 0", "max_queued_messages 100");
    assert_eq!(received_of_burst(&limited, 300, 100), 100);
}

/// Runs a script, and lets mosquitto's own user read the files that it makes.
fn run_script(directory: &Path, script: &str) {
    let script = format!("{script}\nchmod a+r *.key; chmod a+rx .\n");
    let output = Command::new("sh").args(["-e", "-c", &script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The recipe for certificates, with this name of the broker.
fn recipe(name: &str) -> String {
    let script = code_block("docs/security.md", "openssl req -x509");
    assert!(script.contains("BROKER=DNS:broker.example"));
    // Keys of this kind are made faster.
    let script = script.replace("rsa:3072", "ec -pkeyopt ec_paramgen_curve:prime256v1");
    script.replace("BROKER=DNS:broker.example", &format!("BROKER={name}"))
}

/// The documented listener with TLS, on the test's port and with the files in this directory.
fn listener(directory: &Path) -> String {
    let settings = code_block("docs/security.md", "listener 8883");
    let files = directory.display().to_string();
    settings.replace("listener 8883", "listener {port} 127.0.0.1").replace("/etc/mosquitto/certs", &files)
}

/// The documented configuration of the daemon, with the files in this directory.
fn daemon_configuration(directory: &Path, port: u16) -> String {
    let keys = code_block("docs/security.md", "cert_file = ");
    let files = directory.display().to_string();
    let keys =
        keys.replace("broker.example:8883", &format!("127.0.0.1:{port}")).replace("/etc/denoised", &files);
    format!("node = \"board\"\n{keys}[models]\npaths = [{:?}]\n", golden("gaussian").display().to_string())
}

/// What `doctor` finds about the broker with this configuration: the finding and what to do.
fn doctor(configuration: &str) -> (String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, configuration).unwrap();
    let output = denoised().args(["doctor", "--json", "--config"]).arg(file.path()).output().unwrap();
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let broker = findings.iter().find(|finding| finding["about"] == "broker").unwrap();
    let text = |key: &str| broker[key].as_str().unwrap_or_default().to_owned();
    (text("found"), text("next"))
}

#[test]
fn the_documented_certificates_work_and_each_fault_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run_script(path, &recipe("IP:127.0.0.1"));
    let broker = Broker::with_config(&listener(path));
    let configuration = daemon_configuration(path, broker.port);
    let mut daemon = Daemon::start(&configuration);
    daemon.wait_for("connected to the broker");
    let (found, _) = doctor(&configuration);
    assert!(found.contains("speaks MQTT 5"), "{found}");

    let without_client = configuration.replace("cert_file", "#cert_file").replace("key_file", "#key_file");
    let (found, next) = doctor(&without_client);
    assert!(found.contains("the broker requires a client certificate"), "{found}");
    assert!(next.contains("set mqtt.cert_file and mqtt.key_file"), "{next}");

    let unknown = configuration.replace("ca_file", "#ca_file");
    let (found, next) = doctor(&unknown);
    assert!(found.contains("signed by an authority that this system does not know"), "{found}");
    assert!(next.contains("set mqtt.ca_file"), "{next}");

    let plain = configuration.replace("mqtts://", "mqtt://");
    let (found, next) = doctor(&plain);
    assert!(found.contains("the port speaks TLS"), "{found}");
    assert!(next.contains("use mqtts:// in mqtt.url"), "{next}");

    let other_name = configuration.replace("mqtts://127.0.0.1", "mqtts://localhost");
    let (found, next) = doctor(&other_name);
    assert!(found.contains("the broker's certificate is for 127.0.0.1, not for localhost"), "{found}");
    assert!(next.contains("use one of its names in mqtt.url"), "{next}");

    // Another authority with the same name.
    let other = tempfile::tempdir().unwrap();
    run_script(other.path(), &recipe("IP:127.0.0.1"));
    let other_authority = configuration
        .replace(&format!("{}/ca.pem", path.display()), &format!("{}/ca.pem", other.path().display()));
    let (found, next) = doctor(&other_authority);
    assert!(found.contains("mqtt.ca_file holds another authority with the same name"), "{found}: {next}");
}

#[test]
fn a_plain_port_and_certificates_that_are_expired_or_of_an_authority_say_what_to_do() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run_script(path, &recipe("IP:127.0.0.1"));
    let (found, next) = doctor(&daemon_configuration(path, broker.port));
    assert!(found.contains(&format!("port {} is without TLS", broker.port)), "{found}");
    assert!(next.contains("use mqtt:// in mqtt.url"), "{next}");

    let listener = listener(path)
        .replace("require_certificate true", "")
        .replace("use_identity_as_username", "allow_anonymous");
    let self_signed = Broker::with_config(&listener.replace("server.", "ca."));
    let (found, next) = doctor(&daemon_configuration(path, self_signed.port));
    assert!(found.contains("uses the certificate of an authority as its own"), "{found}");
    assert!(next.contains("create an authority and a server certificate"), "{next}");

    // OpenSSL's `-days -1` makes a certificate that has expired.
    let expired = tempfile::tempdir().unwrap();
    run_script(expired.path(), &recipe("IP:127.0.0.1").replace("DAYS=825", "DAYS=-1"));
    let expired_broker = Broker::with_config(
        &listener.replace(&path.display().to_string(), &expired.path().display().to_string()),
    );
    let (found, next) = doctor(&daemon_configuration(expired.path(), expired_broker.port));
    assert!(found.contains("the broker's certificate has expired"), "{found}");
    assert!(next.contains("renew the certificate, or set the clock"), "{next}");
}
