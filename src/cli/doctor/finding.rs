//! One result of `doctor`.

use serde::Serialize;

/// Whether something has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FindingState {
    /// Nothing to do.
    Good,
    /// The daemon runs without it.
    Note,
    /// The daemon, or a part that the configuration requires, does not run without it.
    Missing,
}

/// What was checked, the result, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked; a stable name.
    pub(super) about: String,
    /// The result.
    pub(super) state: FindingState,
    /// The details.
    pub(super) found: String,
    /// What to do, unless it is good.
    pub(super) next: Option<String>,
}

impl Finding {
    pub(super) fn good(about: &str, found: impl Into<String>) -> Self {
        Self { about: about.to_owned(), state: FindingState::Good, found: found.into(), next: None }
    }

    pub(super) fn note(about: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            about: about.to_owned(),
            state: FindingState::Note,
            found: found.into(),
            next: Some(next.into()),
        }
    }

    pub(super) fn missing(about: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: FindingState::Missing, ..Self::note(about, found, next) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            FindingState::Good => "good",
            FindingState::Note => "note",
            FindingState::Missing => "MISSING",
        };
        write!(f, "{state:<8} {:<20} {}", self.about, self.found)?;
        match &self.next {
            Some(next) => write!(f, "\n{:<30}-> {next}", ""),
            None => Ok(()),
        }
    }
}
