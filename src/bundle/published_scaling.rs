//! The scaling of latents of each published family, for folders whose autoencoder has no configuration.

use std::path::Path;

use super::autoencoder_config::configuration_file;
use super::{LatentComponents, PipelineKind};

/// Sets the scaling of the family, with a warning, if no configuration of the autoencoder is there.
pub(super) fn set_if_unconfigured(directory: &Path, latent: &mut LatentComponents, kind: PipelineKind) {
    if configuration_file(directory).is_some() || latent.vae.is_deterministic {
        return;
    }
    let (scaling, shift) = kind.facts().published_scaling;
    log::warn!(
        "{}: vae_decoder/config.json is missing; latents are scaled as those of {} (scaling_factor {scaling}, shift_factor \
         {shift})",
        directory.display(),
        kind.title()
    );
    latent.vae.scaling = scaling;
    latent.vae.shift = shift;
}
