//! An encrypted connection to a real mosquitto.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::golden;
use common::program::{Broker, Daemon};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, and a certificate of 127.0.0.1 signed by it, as files in a directory.
fn certificates(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
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
