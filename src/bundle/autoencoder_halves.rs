//! The configurations of the two halves of an autoencoder, which may differ.

use std::path::Path;

use serde_json::Value as Json;

use super::config_keys::{AUTOENCODER_USED, read_keys};
use super::pipeline_kind::LatentScaling;
use super::{BundleError, PipelineKind};

/// The keys that a pipeline of this kind uses and in which the encoder's configuration differs from the decoder's, which
/// applies.
pub(super) fn differing_keys(
    directory: &Path,
    kind: Option<PipelineKind>,
) -> Result<Vec<String>, BundleError> {
    let [decoder, encoder] =
        ["vae_decoder", "vae_encoder"].map(|folder| directory.join(folder).join("config.json"));
    if !decoder.is_file() || !encoder.is_file() {
        return Ok(Vec::new());
    }
    let (decoder, encoder) = (read_keys(&decoder)?, read_keys(&encoder)?);
    let differs =
        |key: &&&str| decoder.get(**key).unwrap_or(&Json::Null) != encoder.get(**key).unwrap_or(&Json::Null);
    let used = AUTOENCODER_USED.iter().filter(|key| is_used(key, kind));
    Ok(used.filter(differs).map(|key| (*key).to_owned()).collect())
}

/// Logs the keys that differ.
pub(super) fn warn_of_differences(directory: &Path, kind: Option<PipelineKind>) -> Result<(), BundleError> {
    let differing = differing_keys(directory, kind)?;
    if !differing.is_empty() {
        log::warn!(
            "{}: the config.json of vae_encoder and vae_decoder differ in {}; that of vae_decoder is used",
            directory.display(),
            differing.join(", ")
        );
    }
    Ok(())
}

/// Whether a pipeline of this kind uses a key of the autoencoder.
pub(super) fn is_used(key: &str, kind: Option<PipelineKind>) -> bool {
    let scaling = kind.map_or(LatentScaling::Factor, |kind| kind.facts().latent_scaling);
    match key {
        "shift_factor" => scaling == LatentScaling::FactorAndShift,
        "latents_mean" | "latents_std" => scaling == LatentScaling::FactorAndStatistics,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_pipeline_uses_were_reported_as_used() {
        let directory = tempfile::tempdir().unwrap();
        for (folder, mean) in [("vae_decoder", "[0, 0, 0, 0]"), ("vae_encoder", "[1, 1, 1, 1]")] {
            std::fs::create_dir(directory.path().join(folder)).unwrap();
            let text = format!("{{\"latents_mean\": {mean}, \"scaling_factor\": {}}}", folder.len());
            std::fs::write(directory.path().join(folder).join("config.json"), text).unwrap();
        }
        let differing = |kind| differing_keys(directory.path(), kind).unwrap();
        assert_eq!(differing(Some(PipelineKind::StableDiffusion)), Vec::<String>::new());
        assert_eq!(differing(None), Vec::<String>::new());
        assert_eq!(differing(Some(PipelineKind::StableDiffusionXl)), ["latents_mean"]);
        let text = "{\"shift_factor\": 0.5, \"scaling_factor\": 11}";
        std::fs::write(directory.path().join("vae_encoder/config.json"), text).unwrap();
        assert_eq!(differing(Some(PipelineKind::Flux)), ["shift_factor"]);
    }
}
