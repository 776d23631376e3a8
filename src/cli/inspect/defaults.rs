//! What a job gets that leaves out its settings, and why.

use super::row;
use crate::job::ModelCard;
use crate::model::Model;
use diffusion_samplers::sampler;

/// Lists each default with its reason.
pub(super) fn list(model: &Model) -> anyhow::Result<()> {
    let (bundle, card) = (&model.bundle, ModelCard::new(model));
    let defaults = &bundle.defaults;
    match &bundle.manifest.default.sampler {
        Some(name) => row("sampler", format_args!("{name} ([default] in denoised.toml)"))?,
        None => {
            let name = sampler::by_class(&bundle.scheduler.class)?.name;
            row("sampler", format_args!("{name} (the class of the scheduler)"))?;
        }
    }
    row("steps", format_args!("{} ({})", defaults.steps.value, defaults.steps.reason))?;
    let evaluations = |is_guided| if is_guided { "two evaluations a step" } else { "one evaluation a step" };
    let (weight, reason) = (defaults.guidance.value, &defaults.guidance.reason);
    if let Some((kind, _)) = &card.latent {
        let is_guided = kind.facts().guidance_rule.is_on(weight) && !card.has_embedded_guidance();
        row("guidance", format_args!("{weight}, {} ({reason})", evaluations(is_guided)))?;
    } else if bundle.manifest.classes.null.is_some() {
        row("guidance", format_args!("{weight}, with a class {} ({reason})", evaluations(weight != 1.0)))?;
    }
    if let Some(eta) = &defaults.eta {
        row("eta", format_args!("{} ({})", eta.value, eta.reason))?;
    }
    if let Some(length) = &defaults.max_sequence_length {
        row("max_sequence_length", format_args!("{} ({})", length.value, length.reason))?;
    }
    defaults.note.as_ref().map_or(Ok(()), |note| Ok(row("note", note)?))
}
