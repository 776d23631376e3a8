//! TLS connections to mosquitto.

use std::path::Path;

use crate::common::broker::Broker;
use crate::common::daemon::Daemon;
use crate::common::golden;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Writes a certificate authority, and a certificate for 127.0.0.1 that it signed.
fn certificates(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // The subject must differ from the issuer's, or the certificate looks self-signed.
    server.distinguished_name.push(rcgen::DnType::CommonName, "board");
    let server = server.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("server.pem"), server.pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
}

fn configuration(broker: &Broker, more: &str) -> String {
    format!(
        "node = \"tls\"\n[mqtt]\nurl = \"mqtts://127.0.0.1:{}\"\n{more}\n[models]\npaths = [{:?}]\n",
        broker.port,
        golden("gaussian").display().to_string()
    )
}

#[test]
fn the_ca_file_is_trusted_and_an_unknown_authority_is_not() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let path = directory.path().display();
    // mosquitto reads the key before it drops root privileges.
    let broker = Broker::with_config(&format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\ncertfile {path}/server.pem\nkeyfile {path}/server.key\n"
    ));
    let trusting = format!("ca_file = \"{path}/ca.pem\"");
    let mut daemon = Daemon::start(&configuration(&broker, &trusting));
    daemon.wait_for("connected to the broker");

    let mut untrusting = Daemon::start(&configuration(&broker, ""));
    let line = untrusting.wait_for("next try in");
    assert!(line.contains("TLS"), "{line}");
    assert!(!untrusting.log.iter().any(|line| line.contains("connected to the broker")));
}

#[test]
fn a_plain_listener_is_rejected_if_tls_is_configured() {
    let broker = Broker::start();
    let mut daemon = Daemon::start(&configuration(&broker, ""));
    daemon.wait_for("next try in");
    assert!(!daemon.log.iter().any(|line| line.contains("connected to the broker")));
}

#[test]
fn the_client_certificate_is_sent_if_the_broker_requires_one() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let path = directory.path().display();
    let broker = Broker::with_config(&format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\ncertfile {path}/server.pem\nkeyfile {path}/server.key\n\
         cafile {path}/ca.pem\nrequire_certificate true\n"
    ));
    let trusting = format!("ca_file = \"{path}/ca.pem\"");
    let mut without = Daemon::start(&configuration(&broker, &trusting));
    without.wait_for("next try in");
    assert!(!without.log.iter().any(|line| line.contains("connected to the broker")));

    let complete = format!("{trusting}\ncert_file = \"{path}/server.pem\"\nkey_file = \"{path}/server.key\"");
    let mut daemon = Daemon::start(&configuration(&broker, &complete));
    daemon.wait_for("connected to the broker");

    let incomplete = format!("{trusting}\ncert_file = \"{path}/server.pem\"");
    let mut daemon = Daemon::start(&configuration(&broker, &incomplete));
    daemon.wait_for("mqtt.cert_file: requires mqtt.key_file; set both or neither");

    let missing = format!("{trusting}\ncert_file = \"{path}/none.pem\"\nkey_file = \"{path}/server.key\"");
    let mut daemon = Daemon::start(&configuration(&broker, &missing));
    let line = daemon.wait_for("mqtt.cert_file");
    assert!(line.contains("none.pem"), "{line}");
}

#[test]
fn a_wrong_password_is_logged_once_per_attempt_without_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["board", "right-one"])
        .status()
        .expect("cannot run mosquitto_passwd; run the tests with tests/run, which installs it");
    assert!(made.success());
    // mosquitto reads the file after it drops root privileges.
    std::fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = passwords.display();
    let broker = Broker::with_config(&format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous false\npassword_file {path}\n"
    ));
    let with = |password: &str| {
        let file = directory.path().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let keys = format!("username = \"board\"\npassword_file = {:?}", file.display().to_string());
        Daemon::start(&configuration(&broker, &keys).replace("mqtts://", "mqtt://"))
    };
    let mut refused = with("wrong-one");
    let line = refused.wait_for("next try in");
    assert!(line.contains("refused the connection"), "{line}");
    refused.wait_for("next try in");
    let count = refused.log.iter().filter(|line| line.contains("refused the connection")).count();
    assert_eq!(count, 2, "{:#?}", refused.log);
    assert!(!refused.log.iter().any(|line| line.contains("wrong-one")));
    let mut accepted = with("right-one");
    accepted.wait_for("connected to the broker");
    assert!(!accepted.log.iter().any(|line| line.contains("right-one")));
}
