//! Loads the models at the start, and builds engines that take minutes on threads of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::WorkerCommand;
use crate::inference::{EngineOptions, OnStage, Policy, SessionPool, SessionSize};
use crate::model::{Model, ModelError};
use crate::pipeline::{Pipeline, Wake};
use crate::units::binary_size;

/// Loads all models into one session pool, and evaluates each network as its default job does. The configuration has at
/// least one model, and no two of the same name. A model with an interim provider is loaded on that one.
pub(super) fn load_pipelines(
    models: &[(PathBuf, EngineOptions)],
    wake: &Wake,
    on_stage: &OnStage,
) -> Result<Vec<Pipeline>, String> {
    let sessions = SessionPool::with_budget(models.first().and_then(|(_, engine)| engine.memory));
    let mut pipelines = Vec::new();
    for (path, engine) in models {
        log::info!("loading {}", path.display());
        let engine = engine.interim().unwrap_or_else(|| engine.clone());
        let pipeline = load_pipeline(&sessions, path, &engine, wake, on_stage);
        pipelines.push(pipeline.map_err(|error| error.of_configured_model())?);
    }
    Ok(pipelines)
}

fn load_pipeline(
    sessions: &SessionPool,
    path: &Path,
    engine: &EngineOptions,
    wake: &Wake,
    on_stage: &OnStage,
) -> Result<Pipeline, ModelError> {
    let model = Model::open(sessions, path, engine, Arc::clone(on_stage))?;
    warn_of_small_memory(&model, engine.memory);
    let mut pipeline = Pipeline::with_wake(model, Arc::clone(wake));
    pipeline.warm_up()?;
    // The published state has the digests, which were made meanwhile.
    pipeline.model().bundle.digests()?;
    Ok(pipeline)
}

/// Logs a model whose jobs will all be refused, because its largest graph does not fit in `limit` bytes.
fn warn_of_small_memory(model: &Model, limit: Option<u64>) {
    let largest = model.session_sizes.iter().max_by_key(|session| session.bytes);
    if let (Some(SessionSize { name, bytes }), Some(limit)) = (largest, limit)
        && *bytes > limit
    {
        log::warn!(
            "engine.memory allows {}, but {name} alone needs {}, so that every job of {} will be refused; raise it, or \
             remove the model from models.paths",
            binary_size(limit),
            binary_size(*bytes),
            model.bundle.name
        );
    }
}

/// Loads a model again on its preferred providers in the background, and sends it as replacement of the one on the
/// interim provider.
pub(super) fn build_replacement(
    model: &Model,
    engine: &EngineOptions,
    commands: mpsc::WeakSender<WorkerCommand>,
) {
    let (bundle, engine) = (model.bundle.clone(), engine.clone());
    let spawned = std::thread::Builder::new().name("build".to_owned()).spawn(move || {
        let interim = engine.interim_provider.map(|provider| provider.to_string()).unwrap_or_default();
        let command = match Model::load_bundle(bundle, &engine, Arc::new(|_| {})) {
            Ok(model) if model.predictor.backend().provider == interim => return,
            Ok(model) => WorkerCommand::ReplaceModel(Box::new(model)),
            Err(error) if engine.policy == Policy::Required => WorkerCommand::Abort(error.to_string()),
            Err(error) => return log::warn!("{interim} continues to serve: {error}"),
        };
        if let Some(commands) = commands.upgrade() {
            // The worker may have ended meanwhile.
            let _ = commands.blocking_send(command);
        }
    });
    if let Err(error) = spawned {
        log::error!("cannot start a thread to build an engine: {error}");
    }
}
