//! An encrypted connection to a real mosquitto.

use std::path::Path;

use crate::common::daemon::{Broker, Daemon};
use crate::common::golden;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, and a certificate of 127.0.0.1 signed by it, as files in a directory.
fn certificates(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // A name of its own: one that is the authority's looks like a certificate signed by itself.
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
fn an_authority_from_a_file_is_trusted_and_a_stranger_is_not() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let place = directory.path().display();
    // mosquitto started as root gives its rights up and reads the key before.
    let broker = Broker::with(&format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\ncertfile {place}/server.pem\nkeyfile {place}/server.key\n"
    ));
    let trusting = format!("ca_file = \"{place}/ca.pem\"");
    let mut daemon = Daemon::start(&configuration(&broker, &trusting));
    daemon.wait_for("connected to the broker");

    let mut stranger = Daemon::start(&configuration(&broker, ""));
    let line = stranger.wait_for("next try in");
    assert!(line.contains("TLS"), "{line}");
    assert!(!stranger.log.iter().any(|line| line.contains("connected to the broker")));
}

#[test]
fn a_plain_listener_where_tls_is_configured_is_no_connection() {
    let broker = Broker::start();
    let mut daemon = Daemon::start(&configuration(&broker, ""));
    daemon.wait_for("next try in");
    assert!(!daemon.log.iter().any(|line| line.contains("connected to the broker")));
}

#[test]
fn a_certificate_of_our_own_is_shown_where_the_broker_asks_for_one() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let place = directory.path().display();
    let broker = Broker::with(&format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\ncertfile {place}/server.pem\nkeyfile {place}/server.key\n\
         cafile {place}/ca.pem\nrequire_certificate true\n"
    ));
    let trusting = format!("ca_file = \"{place}/ca.pem\"");
    let mut without = Daemon::start(&configuration(&broker, &trusting));
    without.wait_for("next try in");
    assert!(!without.log.iter().any(|line| line.contains("connected to the broker")));

    let shown = format!("{trusting}\ncert_file = \"{place}/server.pem\"\nkey_file = \"{place}/server.key\"");
    let mut daemon = Daemon::start(&configuration(&broker, &shown));
    daemon.wait_for("connected to the broker");

    let alone = format!("{trusting}\ncert_file = \"{place}/server.pem\"");
    let mut daemon = Daemon::start(&configuration(&broker, &alone));
    daemon.wait_for("mqtt.cert_file is of no use alone; set mqtt.key_file as well");

    let missing = format!("{trusting}\ncert_file = \"{place}/none.pem\"\nkey_file = \"{place}/server.key\"");
    let mut daemon = Daemon::start(&configuration(&broker, &missing));
    let line = daemon.wait_for("mqtt.cert_file");
    assert!(line.contains("none.pem"), "{line}");
}

#[test]
fn a_wrong_password_is_told_once_a_try_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["board", "right-one"])
        .status()
        .expect("mosquitto_passwd can't be started; run the tests by tests/run, which installs it");
    assert!(made.success());
    // mosquitto gives its rights up before it reads the file.
    std::fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let place = passwords.display();
    let broker =
        Broker::with(&format!("listener {{port}} 127.0.0.1\nallow_anonymous false\npassword_file {place}\n"));
    let with = |password: &str| {
        let file = directory.path().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let keys = format!("username = \"board\"\npassword_file = {:?}", file.display().to_string());
        Daemon::start(&configuration(&broker, &keys).replace("mqtts://", "mqtt://"))
    };
    let mut refused = with("wrong-one");
    let line = refused.wait_for("next try in");
    assert!(line.contains("refused us"), "{line}");
    refused.wait_for("next try in");
    let told = refused.log.iter().filter(|line| line.contains("refused us")).count();
    assert_eq!(told, 2, "{:#?}", refused.log);
    assert!(!refused.log.iter().any(|line| line.contains("wrong-one")));
    let mut welcome = with("right-one");
    welcome.wait_for("connected to the broker");
    assert!(!welcome.log.iter().any(|line| line.contains("right-one")));
}
