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

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(cause: E) -> Self {
        Self { exit_code: 1, cause: cause.into() }
    }
}
