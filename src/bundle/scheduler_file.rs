//! The scheduler of a bundle: which file it is in, and what a pipeline makes of it.

use std::path::Path;

use diffusion_samplers::sampler;
use diffusion_samplers::scheduler_settings::KeyStatus;

use super::BundleError;
use super::PipelineKind;
use super::manifest::Manifest;
use super::missing_file::{first_file, scheduler_advice};
use super::model_index::ModelIndex;
use super::pipeline_keys;
use super::scheduler_config::SchedulerConfig;

/// The scheduler's configuration, of the class that model_index.json names.
pub(super) fn scheduler(
    directory: &Path,
    index: &ModelIndex,
    description: &Path,
    manifest: &Manifest,
) -> Result<SchedulerConfig, BundleError> {
    let files = ["scheduler/scheduler_config.json", "scheduler_config.json"];
    let file = first_file(directory, &files, scheduler_advice);
    let file = match (file, &manifest.scheduler) {
        (Ok(file), _) => file,
        (Err(_), Some(section)) => return Ok(SchedulerConfig::from_section(description, section)?),
        (Err(missing), None) => return Err(missing),
    };
    let named = index.class_of("scheduler");
    if let Some(Err(error)) = named.map(sampler::by_class) {
        return Err(index.fault(format!("scheduler: {error}")));
    }
    let config = SchedulerConfig::read_as(&file, named)?;
    if let Some(other) = &config.class_in_file {
        log::warn!(
            "{}: _class_name is {other}, but model_index.json names {}, which is used with the keys of this file",
            file.display(),
            config.class
        );
    }
    Ok(config)
}

/// Logs the keys of a folder's scheduler_config.json that no class has, and that are spelt like one.
pub(super) fn warn_of_misspelt_keys(scheduler: &SchedulerConfig) {
    let is_file = scheduler.path.extension().is_some_and(|extension| extension == "json");
    let report = scheduler.report().ok().filter(|_| is_file).unwrap_or_default();
    for line in report.iter().filter(|line| line.status == KeyStatus::Unknown) {
        if let Some(nearest) = scheduler.nearest_key(&line.key) {
            log::warn!(
                "{}: {} is not a key of {} and has no effect; did you mean {nearest}?",
                scheduler.path.display(),
                line.key,
                scheduler.class
            );
        }
    }
}

/// The scheduler, if a pipeline of this kind works with it.
pub(super) fn fitting(
    scheduler: SchedulerConfig,
    kind: Option<PipelineKind>,
) -> Result<SchedulerConfig, BundleError> {
    match kind.and_then(|kind| pipeline_keys::scheduler_fault(kind, &scheduler)) {
        Some(fault) => Err(BundleError::Content { path: scheduler.path, fault }),
        None => Ok(scheduler),
    }
}

/// The scheduler as the pipeline's constructor makes it.
pub(super) fn for_pipeline(
    scheduler: SchedulerConfig,
    kind: Option<PipelineKind>,
    index: &ModelIndex,
) -> Result<SchedulerConfig, BundleError> {
    let mut scheduler = fitting(scheduler, kind)?;
    if pipeline_keys::replaces_keys(kind, index) {
        scheduler.set_by_pipeline = pipeline_keys::replaced_keys(&scheduler);
    }
    Ok(scheduler.checked()?)
}
