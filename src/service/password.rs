//! Reads secrets from their files: the password of the MQTT client, and the token of the HTTP server.

use std::path::{Path, PathBuf};

use super::ServiceError;
use crate::topic_name::MAX_BYTES;

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PasswordSource {
    /// The file that `mqtt.password_file` names.
    File(PathBuf),
    /// The credential that systemd passes.
    Credential(PathBuf),
}

impl PasswordSource {
    /// Reads the password, without the one line break that may end the file. A credential may be empty, because
    /// `denoised.service` needs its file also without a password.
    pub(super) fn read(&self) -> Result<String, ServiceError> {
        let (subject, path) = match self {
            Self::File(path) => ("mqtt.password_file", path),
            Self::Credential(path) => ("the systemd credential mqtt-password", path),
        };
        let fault = |reason: String| ServiceError::Password { subject, path: path.clone(), reason };
        let password = read_secret(path, "password").map_err(fault)?;
        if password.len() > MAX_BYTES {
            let reason = format!("{} bytes are more than a password can have, 65,535", password.len());
            return Err(fault(reason));
        }
        if password.trim().is_empty() && matches!(self, Self::File(_)) {
            return Err(fault(
                "it is empty; write the password to it, or remove mqtt.password_file if the user has none"
                    .to_owned(),
            ));
        }
        Ok(password)
    }
}

/// Reads a file that holds one line, without the line break at its end. `noun` is its name in an error.
pub(crate) fn read_secret(path: &Path, noun: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = match String::from_utf8(bytes) {
        Ok(text) if !text.starts_with('\u{feff}') => text,
        Ok(_) => {
            return Err(format!(
                "it begins with a byte order mark, which is not a part of the {noun}; save it as UTF-8 without one"
            ));
        }
        Err(_) => return Err("it is not UTF-8 text; save it as UTF-8 without a byte order mark".to_owned()),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let secret = line.strip_suffix('\r').unwrap_or(line);
    if secret.contains(['\r', '\n']) {
        return Err(format!("it has more than one line; write nothing but the {noun} to it, in one line"));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All line breaks at the end were removed, a second line and a byte order mark were sent to the broker, and an empty
    /// file was reported as no file.
    #[test]
    fn a_file_with_more_or_less_than_a_password_was_sent_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let result = |source: PasswordSource, contents: &[u8]| {
            std::fs::write(&path, contents).unwrap();
            source.read().map_err(|error| error.to_string())
        };
        let file = |contents: &[u8]| result(PasswordSource::File(path.clone()), contents);
        for contents in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(file(contents.as_bytes()).as_deref(), Ok("secret"), "{contents:?}");
        }
        assert_eq!(file(b" pass word \n").as_deref(), Ok(" pass word "));
        for (contents, reason) in [
            (&b""[..], "it is empty; write the password"),
            (b"\n", "it is empty; write the password"),
            (b"\xef\xbb\xbfsecret\n", "it begins with a byte order mark"),
            (b"\xff\xfes\0e\0", "it is not UTF-8 text"),
            (b"secret\n\n", "it has more than one line"),
            (b"board\nsecret\n", "it has more than one line"),
        ] {
            let error = file(contents).unwrap_err();
            let expected = format!("mqtt.password_file {}: {reason}", path.display());
            assert!(error.starts_with(&expected), "{error}");
        }
        let credential = |contents: &[u8]| result(PasswordSource::Credential(path.clone()), contents);
        assert_eq!(credential(b"").as_deref(), Ok(""));
        let error = credential(b"a\nb").unwrap_err();
        assert!(error.starts_with("the systemd credential mqtt-password "), "{error}");
    }
}
