//! The samplers that can serve a bundle, and why the others cannot.

use std::io::Write;

use super::{row, section};
use crate::bundle::{Bundle, PipelineTask};
use crate::cli::stdout::Stdout;
use diffusion_samplers::sampler::{self, Options, Patches, SamplerError};

/// Lists the samplers that can serve a bundle. With `all`, also the others, by the reason.
pub(super) fn list(bundle: &Bundle, all: bool) -> std::io::Result<()> {
    let steps = bundle.manifest.default.steps.unwrap_or(10);
    // Schedules that depend on the image's size need its number of patches; any number shows whether they build.
    let options = Options {
        patches: Some(Patches { count: 4096, linear_sigmas: false, empirical_shift: false }),
        ..Options::new(steps)
    };
    let build = |name: &str| {
        sampler::by_name(name).and_then(|choice| {
            choice.check_class(&bundle.scheduler.class, &mut bundle.scheduler.settings())?;
            choice.build(&mut bundle.scheduler.settings_for(&choice, PipelineTask::Generation), &options)
        })
    };
    let mut suitable = Vec::new();
    // The samplers of each reason, in the order of the first one.
    let mut unsuitable: Vec<(String, Vec<&str>)> = Vec::new();
    for name in sampler::names() {
        match build(name) {
            Ok(_) => {
                writeln!(Stdout, "  {name}")?;
                suitable.push(name);
            }
            Err(SamplerError::Steps { max, .. }) => {
                writeln!(Stdout, "  {name} (up to {max} steps)")?;
                suitable.push(name);
            }
            Err(error) => {
                let error = error.to_string();
                // A message that begins with the sampler's name says the same of others.
                let reason = error.strip_prefix(&format!("{name} ")).unwrap_or(&error).to_owned();
                match unsuitable.iter_mut().find(|(other, _)| *other == reason) {
                    Some((_, names)) => names.push(name),
                    None => unsuitable.push((reason, vec![name])),
                }
            }
        }
    }
    suffixes(&suitable, |name| build(name).is_ok())?;
    let count: usize = unsuitable.iter().map(|(_, names)| names.len()).sum();
    match (count, all) {
        (0, _) => Ok(()),
        (n, false) => {
            writeln!(Stdout, "  {n} more can't serve this bundle; --all lists them with the reasons")
        }
        (n, true) => {
            section(&format!("{n} samplers that can't serve this bundle"))?;
            for (reason, names) in unsuitable {
                writeln!(Stdout, "  {}: {reason}", names.join(", "))?;
            }
            Ok(())
        }
    }
}

/// Lists the suffixes that change the noise levels of at least one of these samplers, with an example.
fn suffixes(samplers: &[&str], builds: impl Fn(&str) -> bool) -> std::io::Result<()> {
    // The usual one, if it is among them.
    let usual = samplers.iter().filter(|name| **name == "dpmpp_2m");
    let example = |suffix: &'static str| {
        let name =
            usual.clone().chain(samplers).map(|name| format!("{name}_{suffix}")).find(|name| builds(name))?;
        Some((suffix, name))
    };
    let served: Vec<(&str, String)> = sampler::suffixes().into_iter().filter_map(example).collect();
    let Some((_, example)) = served.first() else { return Ok(()) };
    let names: Vec<&str> = served.iter().map(|(suffix, _)| *suffix).collect();
    row("with a suffix", format_args!("{}, as in {example}", names.join(", ")))
}
