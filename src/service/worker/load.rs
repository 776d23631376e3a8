//! Loads the models at the start and while others serve, and builds engines that take minutes on threads of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::WorkerCommand;
use crate::bundle::Bundle;
use crate::inference::{EngineOptions, OnStage, Policy, SessionPool, SessionSize};
use crate::model::{Model, ModelError};
use crate::panics::caught;
use crate::pipeline::{Pipeline, Wake, warm_up_model};
use crate::units::binary_size;

/// A model to load while others serve.
#[derive(Debug, Clone)]
pub(in crate::service) struct ModelLoad {
    /// Differs from that of every other load.
    pub(in crate::service) number: u64,
    /// The model's directory.
    pub(in crate::service) path: PathBuf,
    pub(in crate::service) options: EngineOptions,
    /// The digest that its graphs must have, in hexadecimal.
    pub(in crate::service) sha256: Option<String>,
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) enum LoadFault {
    /// Its graphs have this digest, and not that of the request.
    Digest(String),
    /// It cannot be loaded, for this reason.
    Model(String),
}

/// Loads a model into the pool on a thread of its own, and sends it to the worker.
pub(super) fn load_beside(
    load: ModelLoad,
    sessions: SessionPool,
    on_stage: OnStage,
    commands: mpsc::WeakSender<WorkerCommand>,
) -> Result<(), LoadFault> {
    let work = move || {
        let number = load.number;
        // A model that panics must not leave its requesters without an answer.
        let outcome = caught(|| load_checked(&load, &sessions, &on_stage));
        let outcome = outcome.unwrap_or_else(|panic| Err(LoadFault::Model(panic)));
        if let Some(commands) = commands.upgrade() {
            // The worker may have ended meanwhile.
            let _ =
                commands.blocking_send(WorkerCommand::AddModel { number, outcome: outcome.map(Box::new) });
        }
    };
    let spawned = std::thread::Builder::new().name("load".to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| LoadFault::Model(format!("cannot start a thread to load the model: {error}")))
}

fn load_checked(load: &ModelLoad, sessions: &SessionPool, on_stage: &OnStage) -> Result<Model, LoadFault> {
    let ModelLoad { path, options, sha256, .. } = load;
    let fault = |error: ModelError| LoadFault::Model(error.to_string());
    log::info!("loading {}", path.display());
    let bundle = Bundle::open(path).map_err(|error| fault(error.into()))?;
    if let Some(expected) = sha256 {
        let digests = bundle.digests_remembered_in(&options.cache).map_err(|error| fault(error.into()))?;
        if digests.total != *expected {
            return Err(LoadFault::Digest(digests.total.clone()));
        }
    }
    let options = options.interim().unwrap_or_else(|| options.clone());
    let mut model = Model::open_in(sessions, bundle, &options, Arc::clone(on_stage)).map_err(fault)?;
    warn_of_small_memory(&model, options.memory);
    warm_up_model(&mut model).map_err(|error| fault(error.into()))?;
    model.bundle.digests().map_err(|error| fault(error.into()))?;
    Ok(model)
}

/// Loads all models into one session pool, and evaluates each network as its default job does. The configuration has at
/// least one model, and no two of the same name. A model with an interim provider is loaded on that one.
pub(super) fn load_pipelines(
    models: &[(PathBuf, EngineOptions)],
    sessions: &SessionPool,
    wake: &Wake,
    on_stage: &OnStage,
) -> Result<Vec<Pipeline>, String> {
    let mut pipelines = Vec::new();
    for (path, engine) in models {
        log::info!("loading {}", path.display());
        let engine = engine.interim().unwrap_or_else(|| engine.clone());
        let pipeline = load_pipeline(sessions, path, &engine, wake, on_stage);
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

/// Loads a model that is on an interim provider again on its preferred providers in the background, and sends it as
/// replacement. Without an interim provider it does nothing.
pub(super) fn build_replacement(
    model: &Model,
    engine: &EngineOptions,
    commands: mpsc::WeakSender<WorkerCommand>,
) {
    if engine.interim().is_none() {
        return;
    }
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
