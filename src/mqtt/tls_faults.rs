//! Failures of a TLS connection in plain words, with advice.

use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::endpoint::TlsFacts;
use super::reasons::Reason;

const DAY_S: u64 = 24 * 60 * 60;

/// Returns the TLS error inside an I/O error.
pub(super) fn inside(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Returns whether the error may mean that the port does not speak TLS.
pub(super) fn may_be_plain(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(_))
}

/// Explains an error of a connection to this host.
pub(super) fn explain(error: &Error, host: &str, facts: &TlsFacts) -> Reason {
    let reason = match error {
        Error::InvalidCertificate(fault) => certificate(fault, host, facts),
        Error::AlertReceived(alert) => alert_received(*alert, facts),
        Error::InvalidMessage(_) => {
            Reason::new("the answer is not TLS", "if the port is without TLS, use mqtt:// in mqtt.url")
        }
        Error::PeerIncompatible(_) => Reason::new(
            format!("the broker supports neither TLS 1.2 nor 1.3 with this client ({error})"),
            "update the broker",
        ),
        other => Reason::without_advice(other.to_string()),
    };
    Reason { cause: format!("TLS: {}", reason.cause), ..reason }
}

fn certificate(fault: &CertificateError, host: &str, facts: &TlsFacts) -> Reason {
    match fault {
        CertificateError::UnknownIssuer => match &facts.ca_file {
            Some(path) => Reason::new(
                format!("the broker's certificate is not signed by an authority in mqtt.ca_file {path}"),
                "set mqtt.ca_file to the certificate of the authority that signed it",
            ),
            None => Reason::new(
                "the broker's certificate is signed by an authority that this system does not know",
                "set mqtt.ca_file to the certificate of that authority",
            ),
        },
        CertificateError::ExpiredContext { time, not_after } => Reason::new(
            format!(
                "the broker's certificate expired {} ago by this machine's clock",
                days(*not_after, *time)
            ),
            "renew the certificate, or set the clock if it is wrong (`timedatectl`)",
        ),
        CertificateError::Expired => Reason::new(
            "the broker's certificate has expired",
            "renew the certificate, or set the clock if it is wrong (`timedatectl`)",
        ),
        CertificateError::NotValidYetContext { time, not_before } => Reason::new(
            format!(
                "the broker's certificate becomes valid in {} by this machine's clock",
                days(*time, *not_before)
            ),
            "set the clock (`timedatectl`): boards without a battery start in the past",
        ),
        CertificateError::NotValidYet => {
            Reason::new("the broker's certificate is not valid yet", "set this machine's clock")
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => Reason::new(
            format!("the broker's certificate has no subjectAltName, so it is not valid for {host}"),
            "create it again with the broker's name (docs/security.md)",
        ),
        CertificateError::NotValidForNameContext { presented, .. } => Reason::new(
            format!(
                "the broker's certificate is for {}, not for {host}",
                presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", ")
            ),
            format!("use one of its names in mqtt.url, or add {host} to its subjectAltName"),
        ),
        CertificateError::NotValidForName => Reason::new(
            format!("the broker's certificate is not valid for {host}"),
            "add it to its subjectAltName",
        ),
        CertificateError::BadSignature => Reason::new(
            "a signature of the broker cannot be verified: mqtt.ca_file holds another authority with the same name, or a \
             key is too weak",
            "use the authority that signed the certificate, and RSA keys of 2048 bits or more",
        ),
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => Reason::new(
            "the broker's certificate is not for servers",
            "create it with extendedKeyUsage serverAuth",
        ),
        CertificateError::Revoked => Reason::new("the broker's certificate is revoked", "renew it"),
        CertificateError::Other(other) => {
            let text = other.to_string();
            if text.contains("CaUsedAsEndEntity") {
                Reason::new(
                    "the broker uses the certificate of an authority as its own",
                    "create an authority and a server certificate that it signs (docs/security.md)",
                )
            } else if text.contains("UnsupportedCertVersion") {
                Reason::new(
                    "a certificate has the X.509 version 1",
                    "create it again with extensions (docs/security.md)",
                )
            } else {
                Reason::without_advice(format!("the broker's certificate is not valid ({text})"))
            }
        }
        other => Reason::without_advice(format!("the broker's certificate is not valid ({other})")),
    }
}

fn alert_received(alert: AlertDescription, facts: &TlsFacts) -> Reason {
    use AlertDescription::*;
    let rejects = "the broker rejects the client certificate in mqtt.cert_file";
    match alert {
        CertificateRequired | NoCertificate if !facts.has_client_certificate => {
            Reason::new("the broker requires a client certificate", "set mqtt.cert_file and mqtt.key_file")
        }
        HandshakeFailure => {
            let certificate = if facts.has_client_certificate {
                "does not accept the client certificate in mqtt.cert_file"
            } else {
                "requires a client certificate (mqtt.cert_file and mqtt.key_file)"
            };
            Reason::new(
                format!("the broker {certificate}, or has no cipher or key in common with this client"),
                "read its log, which says which: its key must be RSA, Ed25519, or ECDSA with P-256 or P-384, and its \
                 ciphers must include AES-GCM or ChaCha20",
            )
        }
        UnknownCA if facts.has_client_certificate => Reason::new(
            format!("{rejects}: it does not know the authority that signed it"),
            "use one that the broker's authority signed",
        ),
        CertificateExpired if facts.has_client_certificate => Reason::new(
            format!("{rejects}: it has expired, by the broker's clock"),
            "renew it, or set the broker's clock if it is wrong",
        ),
        CertificateRevoked if facts.has_client_certificate => {
            Reason::new(format!("{rejects}: it is revoked"), "renew it")
        }
        BadCertificate | UnsupportedCertificate | CertificateUnknown | AccessDenied | DecryptError
            if facts.has_client_certificate =>
        {
            Reason::new(rejects, "check that it is for clients and signed by the broker's authority")
        }
        UnrecognisedName => Reason::new("the broker does not know the host name", "correct mqtt.url"),
        ProtocolVersion => {
            Reason::new("the broker supports neither TLS 1.2 nor TLS 1.3", "update the broker")
        }
        other => Reason::new(
            format!("the broker ended the connection with the alert {other:?}"),
            "read the broker's log, which has the reason",
        ),
    }
}

/// The time between two moments, rounded up to days.
fn days(from: UnixTime, to: UnixTime) -> String {
    let elapsed = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()));
    match elapsed.as_secs().div_ceil(DAY_S) {
        0 | 1 => "less than a day".to_owned(),
        days => format!("{days} days"),
    }
}

/// `DnsName("board")` and `IpAddress(127.0.0.1)` without the type.
fn plain_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_are_printed_without_their_type() {
        assert_eq!(plain_name("DnsName(\"board\")"), "board");
        assert_eq!(plain_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(plain_name("board"), "board");
    }

    /// A broker with a P-521 key or with CBC ciphers only was said to require a client certificate.
    #[test]
    fn a_failed_handshake_was_always_blamed_on_a_missing_client_certificate() {
        let explained = |alert: AlertDescription, has_client_certificate: bool| {
            let facts = TlsFacts { ca_file: None, has_client_certificate };
            explain(&Error::AlertReceived(alert), "broker", &facts).to_string()
        };
        assert_eq!(
            explained(AlertDescription::CertificateRequired, false),
            "TLS: the broker requires a client certificate; set mqtt.cert_file and mqtt.key_file"
        );
        for (has_certificate, expected) in [
            (
                false,
                "TLS: the broker requires a client certificate (mqtt.cert_file and mqtt.key_file), or has no cipher",
            ),
            (
                true,
                "TLS: the broker does not accept the client certificate in mqtt.cert_file, or has no cipher",
            ),
        ] {
            let text = explained(AlertDescription::HandshakeFailure, has_certificate);
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn a_certificate_from_the_future_is_blamed_on_the_clock() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * DAY_S));
        let fault = CertificateError::NotValidYetContext { time: at(0), not_before: at(20_000) };
        let message = certificate(&fault, "broker", &TlsFacts::default()).to_string();
        assert!(
            message.contains("becomes valid in 20000 days") && message.contains("timedatectl"),
            "{message}"
        );
        let fault = CertificateError::ExpiredContext { time: at(10), not_after: at(7) };
        let message = certificate(&fault, "broker", &TlsFacts::default()).to_string();
        assert!(message.contains("expired 3 days ago"), "{message}");
    }
}
