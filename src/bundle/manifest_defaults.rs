//! `[default]` of denoised.toml: what every job without a value of its own would fail with.

use std::path::Path;

use super::{BundleError, Manifest, PipelineTask, SchedulerConfig};
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
    let Some(name) = &default.sampler else { return Ok(()) };
    match build(name, default.steps.unwrap_or(STEPS), scheduler) {
        Err(error @ SamplerError::Steps { .. }) if default.steps.is_some() => {
            fault("steps", error.to_string())
        }
        // Its number of steps is that of each job.
        Ok(()) | Err(SamplerError::Steps { .. } | SamplerError::NotFinite { .. }) => Ok(()),
        Err(error) => fault("sampler", error.to_string()),
    }
}

fn build(name: &str, steps: usize, scheduler: &SchedulerConfig) -> Result<(), SamplerError> {
    let sampler = sampler::by_name(name)?;
    sampler.check_class(&scheduler.class, &mut scheduler.settings())?;
    // A sampler that inpaints needs the known region of a job.
    if sampler.inpaints() {
        return Ok(());
    }
    let patches = Some(Patches { count: 4096, linear_sigmas: false, empirical_shift: false });
    let options = Options { patches, ..Options::new(steps) };
    sampler.build(&mut scheduler.settings_for(&sampler, PipelineTask::Generation), &options).map(drop)
}
