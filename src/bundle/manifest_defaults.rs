//! `[default]` of denoised.toml: what every job without a value of its own would fail with.

use std::path::Path;

use super::{BundleError, Defaults, Manifest, PipelineTask, SchedulerConfig};
use diffusion_samplers::sampler::{self, Options, Patches, SamplerError};

/// The number of steps that the sampler is tried with where none are given.
const STEPS: usize = 10;

/// Checks the values that need no job.
pub(super) fn check(
    path: &Path,
    manifest: &Manifest,
    scheduler: &SchedulerConfig,
) -> Result<(), BundleError> {
    let fault = |key: &str, fault: String| {
        Err(BundleError::Content { path: path.to_owned(), fault: format!("default.{key}: {fault}") })
    };
    let default = &manifest.default;
    if let Some(guidance) = default.guidance.filter(|guidance| !(0.0..=100.0).contains(guidance)) {
        return fault("guidance", format!("it is {guidance}, but must lie between 0 and 100"));
    }
    if let Some(length) = default.max_sequence_length.filter(|length| !(1..=512).contains(length)) {
        return fault("max_sequence_length", format!("it is {length}, but must lie between 1 and 512"));
    }
    if default.sampler.is_none() && default.eta.is_none() {
        return Ok(());
    }
    match build(default, scheduler) {
        Err(error @ SamplerError::Steps { .. }) if default.steps.is_some() => {
            fault("steps", error.to_string())
        }
        Err(error @ SamplerError::Eta { .. }) => fault("eta", error.to_string()),
        // Its number of steps is that of each job.
        Ok(()) | Err(SamplerError::Steps { .. } | SamplerError::NotFinite { .. }) => Ok(()),
        Err(error) => fault("sampler", error.to_string()),
    }
}

fn build(default: &Defaults, scheduler: &SchedulerConfig) -> Result<(), SamplerError> {
    let by_class = || sampler::by_class(&scheduler.class);
    let sampler = default.sampler.as_deref().map_or_else(by_class, sampler::by_name)?;
    sampler.check_class(&scheduler.class, &mut scheduler.settings())?;
    // A sampler that inpaints needs the known region of a job.
    if sampler.inpaints() {
        return Ok(());
    }
    let patches = Some(Patches { count: 4096, linear_sigmas: false, empirical_shift: false });
    let options = Options { patches, eta: default.eta, ..Options::new(default.steps.unwrap_or(STEPS)) };
    sampler.build(&mut scheduler.settings_for(&sampler, PipelineTask::Generation), &options).map(drop)
}
