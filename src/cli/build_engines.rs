//! `denoised warm`: every engine is built now, and not at the first start.

use std::io::Write;
use std::time::Instant;

use super::stdout::Stdout;
use super::{ConfigFile, Failure};
use crate::inference::{SessionPool, Stage};
use crate::model::Model;

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = super::configuration(file.config.as_deref())?;
    super::start_log(log::LevelFilter::Warn);
    for path in &config.models.paths {
        let began = Instant::now();
        let mut builds = false;
        let model = Model::load_into(&SessionPool::default(), path, &config.engine_of(path), &mut |stage| {
            builds |= stage == Stage::BuildingEngine;
        })?;
        let origin = model.predictor.backend();
        let how = if builds { "its engine was built" } else { "nothing had to be built" };
        writeln!(
            Stdout,
            "{}: {how}, {:.1?}; it runs on {} {} with {}",
            model.bundle.name,
            began.elapsed(),
            origin.engine,
            origin.version,
            origin.provider
        )?;
    }
    Ok(())
}
