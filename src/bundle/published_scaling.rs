//! The scaling of latents of each published family, for folders whose autoencoder has no configuration.

use std::path::Path;

use super::autoencoder_config::configuration_file;
use super::{LatentComponents, PipelineKind};

/// `scaling_factor` and `shift_factor` of the autoencoder that was published with a kind of pipeline.
fn published(kind: PipelineKind) -> (f32, f32) {
    match kind {
        PipelineKind::StableDiffusion | PipelineKind::LatentConsistency => (0.18215, 0.0),
        PipelineKind::StableDiffusionXl => (0.13025, 0.0),
        PipelineKind::StableDiffusion3 => (1.5305, 0.0609),
        PipelineKind::Flux => (0.3611, 0.1159),
    }
}

/// Sets the scaling of the family, with a warning, if no configuration of the autoencoder is there.
pub(super) fn set_if_unconfigured(directory: &Path, latent: &mut LatentComponents, kind: PipelineKind) {
    if configuration_file(directory).is_some() || latent.vae.is_deterministic {
        return;
    }
    let (scaling, shift) = published(kind);
    log::warn!(
        "{}: vae_decoder/config.json is missing; latents are scaled as those of {} (scaling_factor {scaling}, shift_factor \
         {shift})",
        directory.display(),
        kind.title()
    );
    latent.vae.scaling = scaling;
    latent.vae.shift = shift;
}
