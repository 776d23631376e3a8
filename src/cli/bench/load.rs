//! How long a model takes to load.

use std::path::Path;
use std::time::Instant;

use super::figures::{LoadFigures, mebibytes, milliseconds};
use super::monitor::Monitor;
use crate::cli::open_model::open_model;
use crate::inference::EngineOptions;
use crate::model::{Model, ModelError};
use crate::platform::Platform;

/// Loads a model twice, the second time with what the first load left in the engine cache.
pub(super) fn measure(
    directory: &Path,
    options: &EngineOptions,
    is_cache_empty: bool,
    monitor: &Monitor,
) -> Result<(Model, LoadFigures), ModelError> {
    let load = || {
        let start = Instant::now();
        let (mut model, _display) = open_model(directory, options)?;
        model.warm_up(model.predictor.signature().smallest_batch())?;
        Ok::<_, ModelError>((model, start.elapsed()))
    };
    eprintln!("loading {}", directory.display());
    let ((model, first), readings) = monitor.during(load)?;
    drop(model);
    eprintln!("loading it again");
    let ((model, later), _) = monitor.during(load)?;
    let figures = LoadFigures {
        is_cache_empty,
        first_ms: milliseconds(first),
        later_ms: milliseconds(later),
        gpu_memory_mib: readings.gpu_memory_mib,
        resident_mib: Platform::default().resident_memory().map(|memory| mebibytes(memory.total)),
    };
    Ok((model, figures))
}
