//! One thing that `doctor` looked at.

use serde::Serialize;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// Worth knowing; the daemon runs all the same.
    Note,
    /// The daemon, or what the configuration asks for, does not work without it.
    Missing,
}

/// What was looked at, how it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The thing, in one or two words that don't change.
    pub(super) about: String,
    /// How it is.
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What makes it good, where it is not.
    pub(super) next: Option<String>,
}

impl Finding {
    pub(super) fn good(about: &str, found: impl Into<String>) -> Self {
        Self { about: about.to_owned(), state: State::Good, found: found.into(), next: None }
    }

    pub(super) fn note(about: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { about: about.to_owned(), state: State::Note, found: found.into(), next: Some(next.into()) }
    }

    pub(super) fn missing(about: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Missing, ..Self::note(about, found, next) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Good => "good",
            State::Note => "note",
            State::Missing => "MISSING",
        };
        write!(f, "{state:<8} {:<20} {}", self.about, self.found)?;
        match &self.next {
            Some(next) => write!(f, "\n{:<30}-> {next}", ""),
            None => Ok(()),
        }
    }
}
