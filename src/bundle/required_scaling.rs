//! The keys of an autoencoder's configuration without which a pipeline of diffusers fails when it converts latents.

use std::path::Path;

use serde_json::Value as Json;

use super::autoencoder_config::configuration_file;
use super::config_keys::read_keys;
use super::pipeline_kind::LatentScaling;
use super::{BundleError, LatentComponents, PipelineKind};

/// Checks the configuration, if there is one.
pub(super) fn check(
    directory: &Path,
    latent: &LatentComponents,
    kind: PipelineKind,
) -> Result<(), BundleError> {
    let Some(path) = configuration_file(directory) else { return Ok(()) };
    let keys = read_keys(&path)?;
    let facts = kind.facts();
    let (scaling, shift) = facts.published_scaling;
    // Every class of autoencoders has a default for the scale, but of those with a shift only AutoencoderTiny for it.
    let required = [("scaling_factor", true, scaling), ("shift_factor", latent.vae.is_deterministic, shift)];
    for (key, has_default, published) in required {
        let state = match keys.get(key) {
            _ if key == "shift_factor" && facts.latent_scaling != LatentScaling::FactorAndShift => continue,
            None if !has_default => "missing",
            Some(Json::Null) => "null",
            _ => continue,
        };
        let fault = format!(
            "{key} is {state}, but {} needs a number; set that of the autoencoder ({published} for the published one)",
            kind.title()
        );
        return Err(BundleError::Content { path, fault });
    }
    Ok(())
}
