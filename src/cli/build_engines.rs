//! `denoised build-engines`: builds the engines and prepares the graphs of all models before the daemon's first start.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::inference::{Backend, EngineKind, EngineOptions, LoadStage, OnStage};
use crate::model::{Model, ModelError};
use crate::platform::User;

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    super::start_log(log::LevelFilter::Warn);
    check_cache_owner(&config)?;
    for path in &config.models.paths {
        let start = Instant::now();
        let (has_built, prepared) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let options = EngineOptions { requires_cache: true, ..config.engine_options(path) };
        let on_stage: OnStage = {
            let (has_built, prepared) = (Arc::clone(&has_built), Arc::clone(&prepared));
            Arc::new(move |stage| {
                has_built.fetch_or(stage == LoadStage::BuildingEngine, Ordering::Relaxed);
                prepared.fetch_add(usize::from(stage == LoadStage::Preparing), Ordering::Relaxed);
            })
        };
        let mut model =
            load(path, &options, on_stage).map_err(|error| of_model(path, error.of_configured_model()))?;
        model.prepare_components().map_err(|error| of_model(path, error.to_string()))?;
        let made = match (has_built.load(Ordering::Relaxed), prepared.load(Ordering::Relaxed)) {
            (true, _) => Some("the engine was built and is kept".to_owned()),
            (false, 0) => None,
            (false, 1) => Some("its graph was prepared and is kept".to_owned()),
            (false, count) => Some(format!("{count} graphs were prepared and are kept")),
        };
        let backend = model.predictor.backend();
        writeln!(
            Stdout,
            "{}",
            report(&model.bundle.name, made.as_deref(), &options, backend, start.elapsed())
        )?;
    }
    Ok(())
}

/// The error of a model, which is named once.
fn of_model(path: &Path, error: String) -> anyhow::Error {
    let path = path.display().to_string();
    if error.contains(&path) { anyhow!(error) } else { anyhow!("{path}: {error}") }
}

fn load(path: &Path, options: &EngineOptions, on_stage: OnStage) -> Result<Model, ModelError> {
    Model::load_bundle(Bundle::open(path)?, options, on_stage)
}

/// Returns the line about one model. `made` says what is new in the cache.
fn report(
    name: &str,
    made: Option<&str>,
    options: &EngineOptions,
    backend: &Backend,
    elapsed: Duration,
) -> String {
    let builders: Vec<_> = options.providers.iter().filter(|provider| provider.builds_engines()).collect();
    let rejected = backend
        .rejected_providers
        .iter()
        .find(|rejected| builders.iter().any(|builder| builder.to_string() == rejected.provider));
    let result = match (rejected, made) {
        (Some(rejected), _) => format!("no engine is kept, because {} does not work here", rejected.provider),
        (None, Some(made)) => format!("{made} in {}", options.cache.display()),
        (None, None) => "nothing had to be built".to_owned(),
    };
    let Backend { engine, version, provider, .. } = backend;
    format!("{name}: {result}, {elapsed:.1?}; it runs on {engine} {version} with {provider}")
}

/// Checks that the daemon will be able to replace the engines: root must not build them in another user's directory.
fn check_cache_owner(config: &Config) -> anyhow::Result<()> {
    let builds =
        |path: &Path| config.engine_options(path).providers.iter().any(|provider| provider.builds_engines());
    let is_needed =
        config.engine.kind != EngineKind::Embedded && config.models.paths.iter().any(|path| builds(path));
    if !is_needed || User::of_this_process().uid != 0 {
        return Ok(());
    }
    match config.board.platform().owner(&config.engine.cache) {
        Some(owner) => bail!(
            "engine.cache {} belongs to the user {1}, who could not replace engines that root builds; run sudo -u {1} \
             denoised build-engines",
            config.engine.cache.display(),
            owner.name
        ),
        None => Ok(()),
    }
}
