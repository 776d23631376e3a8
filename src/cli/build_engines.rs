//! `denoised build-engines`: builds the engines of all models before the daemon's first start.

use std::io::Write;
use std::time::Instant;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::inference::{LoadStage, SessionPool};
use crate::model::Model;

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    super::start_log(log::LevelFilter::Warn);
    for path in &config.models.paths {
        let start = Instant::now();
        let mut has_built = false;
        let model =
            Model::load_into(&SessionPool::default(), path, &config.engine_options(path), &mut |stage| {
                has_built |= stage == LoadStage::BuildingEngine;
            })?;
        let backend = model.predictor.backend();
        let result = if has_built { "the engine was built" } else { "nothing had to be built" };
        writeln!(
            Stdout,
            "{}: {result}, {:.1?}; it runs on {} {} with {}",
            model.bundle.name,
            start.elapsed(),
            backend.engine,
            backend.version,
            backend.provider
        )?;
    }
    Ok(())
}
