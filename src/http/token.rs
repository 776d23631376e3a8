//! The token that requests must have.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::HttpError;
use crate::config::HttpConfig;
use crate::service::password::read_secret;

/// The shortest token, in characters. A shorter one can be guessed.
const MIN_LEN: usize = 16;
/// The longest token, in characters. It is sent in a header.
const MAX_LEN: usize = 4096;

/// The digest of the token: neither the token nor its length shows in the time that a comparison takes.
#[derive(Debug, Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads the token from its file.
    pub(super) fn read(path: &Path) -> Result<Self, HttpError> {
        let fault = |reason: String| HttpError::Token { path: path.to_owned(), reason };
        let token = read_secret(path, "token").map_err(fault)?;
        let advice = "write one to it, for example with: openssl rand -hex 32";
        if token.is_empty() {
            return Err(fault(format!("it is empty; {advice}")));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fault(format!(
                "a token has visible ASCII characters only, without spaces; {advice}"
            )));
        }
        if !(MIN_LEN..=MAX_LEN).contains(&token.len()) {
            let message = format!(
                "the token has {} characters, but must have {MIN_LEN} to {MAX_LEN}; {advice}",
                token.len()
            );
            return Err(fault(message));
        }
        Ok(Self::from_text(&token))
    }

    fn from_text(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns whether this is the token.
    pub(super) fn is(&self, text: &str) -> bool {
        Sha256::digest(text).ct_eq(&self.0).into()
    }
}

/// Returns why the daemon cannot use the token's file, if this process can read it.
pub(crate) fn token_fault(config: &HttpConfig) -> Option<HttpError> {
    let path = config.token_file.as_ref()?;
    std::fs::File::open(path).ok()?;
    Token::read(path).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_of_16_visible_characters_or_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |contents: &str| {
            std::fs::write(&path, contents).unwrap();
            Token::read(&path).map_err(|error| error.to_string())
        };
        let token = read("0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!token.is(other), "{other:?}");
        }
        for (contents, reason) in [
            ("", "it is empty; write one to it"),
            ("short", "the token has 5 characters, but must have 16 to 4096"),
            ("0123456789 abcdef", "a token has visible ASCII characters only"),
            ("0123456789abcdef\nx\n", "it has more than one line; write nothing but the token to it"),
        ] {
            let error = read(contents).unwrap_err();
            assert!(error.starts_with(&format!("http.token_file {}: {reason}", path.display())), "{error}");
        }
    }
}
