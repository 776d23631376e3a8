//! Why a command failed.

/// The reason why a command failed, and the exit code.
#[derive(Debug)]
pub(super) struct CommandError {
    /// The process's exit code: 1 for a failure, 2 for wrong usage or configuration.
    pub(super) exit_code: u8,
    pub(super) cause: anyhow::Error,
}

impl CommandError {
    /// Wrong usage or configuration.
    pub(super) fn usage(cause: impl Into<anyhow::Error>) -> Self {
        Self { exit_code: 2, cause: cause.into() }
    }
}

impl std::fmt::Display for CommandError {
    /// Prints each cause once: an error of another library may contain the text of its cause.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut printed = String::new();
        for cause in self.cause.chain().map(ToString::to_string) {
            if printed.is_empty() {
                printed = cause;
            } else if !printed.contains(&cause) {
                printed = format!("{printed}: {cause}");
            }
        }
        f.write_str(&printed)
    }
}

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(cause: E) -> Self {
        Self { exit_code: 1, cause: cause.into() }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let refused = || std::io::Error::other("connection refused");
        let plain = Err::<(), _>(refused()).context("no broker answers").unwrap_err();
        assert_eq!(CommandError::from(plain).to_string(), "no broker answers: connection refused");
        let nested =
            anyhow::Error::new(refused()).context("I/O: connection refused").context("no broker answers");
        assert_eq!(CommandError::from(nested).to_string(), "no broker answers: I/O: connection refused");
    }
}
