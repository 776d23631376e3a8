//! Those who ask for a model to be loaded or unloaded, and what they are answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::held_commands::HeldCommand;
use super::responses::Reply;
use crate::job::ModelCard;

/// The sender of a request, whose message is acknowledged once its answer is stored.
#[derive(Debug)]
pub(super) struct Requester {
    pub(super) id: String,
    pub(super) reply: Option<Reply>,
    /// The digest that the model must have.
    pub(super) sha256: Option<String>,
    /// When the request arrived.
    pub(super) arrival: Instant,
    pub(super) command: HeldCommand,
}

impl Requester {
    /// Whether the broker delivers the message again on the next connection.
    pub(super) fn is_redelivered(&self) -> bool {
        self.command.1.is_redelivered()
    }
}

/// What has become of a model.
#[derive(Debug)]
pub(super) enum ModelOutcome {
    /// It takes jobs.
    Loaded { card: Arc<ModelCard>, path: PathBuf },
    /// It has left memory, and takes none.
    Unloaded { name: String, path: PathBuf },
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(super) struct ModelAnswer<'a> {
    id: &'a str,
    model: &'a str,
    path: String,
    /// `loaded` or `unloaded`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    elapsed_ms: u64,
}

impl<'a> ModelAnswer<'a> {
    pub(super) fn new(id: &'a str, outcome: &'a ModelOutcome, elapsed_ms: u64) -> Self {
        match outcome {
            ModelOutcome::Loaded { card, path } => Self {
                id,
                model: &card.bundle.name,
                path: path.display().to_string(),
                status: "loaded",
                sha256: Some(card.digest()),
                engine: Some(card.backend.engine),
                provider: Some(&card.backend.provider),
                elapsed_ms,
            },
            ModelOutcome::Unloaded { name, path } => Self {
                id,
                model: name,
                path: path.display().to_string(),
                status: "unloaded",
                sha256: None,
                engine: None,
                provider: None,
                elapsed_ms,
            },
        }
    }
}
