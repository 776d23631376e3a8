//! The configuration of an autoencoder: how latents are converted between it and the denoiser.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::BundleError;
use super::convolutions::Convolutions;
use super::graphs::Graphs;
use super::json_file::read_or_default;
use super::latent_sizes::MAX_LEVELS;
use super::model_index::ModelIndex;
use super::pipeline_kind::LatentScaling;
use super::sample_size::check_channels;

/// The configuration of an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VaeConfig {
    /// The channels of a latent.
    pub channels: usize,
    /// How many pixels of the image one pixel of a latent covers along each axis.
    pub factor: usize,
    /// `scaling_factor`.
    pub scaling: f32,
    /// `shift_factor`.
    pub shift: f32,
    /// `latents_mean` and `latents_std`, if both are set.
    pub statistics: Option<LatentStatistics>,
    /// Whether the encoder gives one latent for an image instead of a distribution.
    pub is_deterministic: bool,
}

/// The mean and the standard deviation of each channel of a latent. Pipelines have them for four channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentStatistics {
    /// `latents_mean`.
    pub mean: [f32; CHANNELS],
    /// `latents_std`.
    pub deviation: [f32; CHANNELS],
}

const CHANNELS: usize = 4;
/// The defaults of diffusers' `AutoencoderKL`.
const DEFAULT_SCALING: f32 = 0.18215;
const DEFAULT_FACTOR: usize = 8;
/// Autoencoders whose latents need no scaling without `scaling_factor`, and are no distribution.
const DETERMINISTIC: [&str; 3] = ["AutoencoderTiny", "AutoencoderDC", AUTOENCODER_OF_FLUX2];
/// The autoencoder of FLUX.2, whose graphs take and give patches of 2×2, normalised by its batch norm.
pub(super) const AUTOENCODER_OF_FLUX2: &str = "AutoencoderKLFlux2";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VaeFile {
    _class_name: Option<String>,
    latent_channels: Option<usize>,
    block_out_channels: Option<Vec<usize>>,
    encoder_block_out_channels: Option<Vec<usize>>,
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
}

/// The configuration that applies: the decoder's, or else the encoder's, or that of the exported model.
pub(super) fn configuration_file(directory: &Path) -> Option<PathBuf> {
    let files =
        ["vae_decoder", "vae_encoder", "vae"].map(|folder| directory.join(folder).join("config.json"));
    files.into_iter().find(|file| file.is_file())
}

impl VaeConfig {
    /// Reads the configuration of a bundle. What it lacks is taken from the graphs.
    pub(super) fn read(
        directory: &Path,
        decoder: Option<&Path>,
        encoder: Option<&Path>,
        index: &ModelIndex,
        graphs: &mut Graphs,
    ) -> Result<Self, BundleError> {
        let path = configuration_file(directory);
        let file: VaeFile = path.as_deref().map(read_or_default).transpose()?.unwrap_or_default();
        let fault = |fault: String| BundleError::Content { path: path.clone().unwrap_or_default(), fault };
        let own_path = path.as_deref().unwrap_or(directory);
        check_channels(own_path, "latent_channels", file.latent_channels)?;
        let named = index.class_of("vae").filter(|class| class.starts_with("Autoencoder"));
        let class = named.or(file._class_name.as_deref());
        let is_deterministic = class.is_some_and(|class| DETERMINISTIC.contains(&class));
        let channels = match file.latent_channels {
            Some(channels) => channels,
            None => {
                let own = decoder.map(|decoder| latent_channels(decoder, graphs)).transpose()?;
                own.flatten().unwrap_or(CHANNELS)
            }
        };
        let blocks = file.block_out_channels.map(|blocks| ("block_out_channels", blocks.len()));
        let of_encoder = file.encoder_block_out_channels;
        let blocks = blocks.or_else(|| of_encoder.map(|blocks| ("encoder_block_out_channels", blocks.len())));
        let factor = match blocks {
            Some((key, levels)) if levels > MAX_LEVELS => {
                return Err(fault(format!(
                    "{key} has {levels} values, but an autoencoder has at most {MAX_LEVELS} levels; correct it"
                )));
            }
            Some((key, levels)) => {
                let factor = 1 << levels.saturating_sub(1);
                check_factor(own_path, decoder, &format!("{key} has {levels} values"), factor)?;
                factor
            }
            None => scale([decoder, encoder])?,
        };
        let (channels, factor) = match (class, decoder) {
            (Some(AUTOENCODER_OF_FLUX2), Some(decoder)) => {
                let (own, patched) = (latent_channels(decoder, graphs)?, 4 * channels);
                if own.is_some_and(|own| own != patched) {
                    return Err(BundleError::Content {
                        path: decoder.to_owned(),
                        fault: format!(
                            "it takes latents of {channels} channels, but those of FLUX.2 are patches of {patched}, \
                             normalised by the autoencoder's batch norm, whose numbers are in no configuration; export \
                             the decoder with its batch norm by models/export"
                        ),
                    });
                }
                (patched, 2 * factor)
            }
            _ => (channels, factor),
        };
        let scaling = file.scaling_factor.unwrap_or(if is_deterministic { 1.0 } else { DEFAULT_SCALING });
        if !scaling.is_normal() {
            return Err(fault(format!("scaling_factor is {scaling}, but must be a number other than 0")));
        }
        let statistics = match (file.latents_mean, file.latents_std) {
            (Some(mean), Some(deviation)) => {
                let of_channels = |key: &str, values: Vec<f32>| {
                    <[f32; CHANNELS]>::try_from(values).map_err(|values| {
                        let found = values.len();
                        fault(format!(
                            "{key} has {found} values, but pipelines support {CHANNELS}, one for each channel"
                        ))
                    })
                };
                let deviation = of_channels("latents_std", deviation)?;
                if !deviation.iter().all(|value| value.is_normal()) {
                    return Err(fault(
                        "latents_std has a value that is not a number other than 0".to_owned(),
                    ));
                }
                Some(LatentStatistics { mean: of_channels("latents_mean", mean)?, deviation })
            }
            _ => None,
        };
        if statistics.is_some() && channels != CHANNELS {
            return Err(fault(format!(
                "latents_mean is for {CHANNELS} channels, but latent_channels is {channels}"
            )));
        }
        Ok(Self {
            channels,
            factor,
            scaling,
            shift: file.shift_factor.unwrap_or(0.0),
            statistics,
            is_deterministic,
        })
    }

    /// The configuration without the keys that a pipeline does not use.
    #[must_use]
    pub fn reduced_to(self, scaling: LatentScaling) -> Self {
        Self {
            shift: if scaling == LatentScaling::FactorAndShift { self.shift } else { 0.0 },
            statistics: self.statistics.filter(|_| scaling == LatentScaling::FactorAndStatistics),
            ..self
        }
    }

    /// The configuration for the image of an inpainting job, which pipelines encode by the scaling factor alone even where
    /// they decode by the statistics.
    #[must_use]
    pub fn without_statistics(self) -> Self {
        Self { statistics: None, ..self }
    }

    /// Converts a latent [C, H, W] of the encoder to the denoiser's.
    pub fn scale(&self, latent: &mut [f32]) {
        let scaling = self.scaling;
        match self.statistics {
            None => latent.iter_mut().for_each(|x| *x = (*x - self.shift) * scaling),
            Some(statistics) => {
                statistics.each(latent, |x, mean, deviation| (x - mean) * scaling / deviation)
            }
        }
    }

    /// Converts a latent [C, H, W] of the denoiser to the decoder's.
    pub fn unscale(&self, latent: &mut [f32]) {
        let scaling = self.scaling;
        match self.statistics {
            None => latent.iter_mut().for_each(|x| *x = *x / scaling + self.shift),
            Some(statistics) => statistics.each(latent, |x, mean, deviation| x * deviation / scaling + mean),
        }
    }
}

impl LatentStatistics {
    fn each(&self, latent: &mut [f32], convert: impl Fn(f32, f32, f32) -> f32) {
        let plane = (latent.len() / CHANNELS).max(1);
        for (channel, (mean, deviation)) in
            latent.chunks_mut(plane).zip(self.mean.iter().zip(&self.deviation))
        {
            channel.iter_mut().for_each(|x| *x = convert(*x, *mean, *deviation));
        }
    }
}

/// The channels that a decoder takes.
fn latent_channels(decoder: &Path, graphs: &mut Graphs) -> Result<Option<usize>, BundleError> {
    let files = graphs.open(decoder)?;
    let Some(input) = files.header.io.inputs.first() else { return Ok(None) };
    match input.shape.get(1).and_then(|axis| axis.length()) {
        Some(channels) => Ok(Some(channels)),
        None => Ok(Convolutions::read(decoder)?.input_channels(&input.name)),
    }
}

/// Checks that the decoder enlarges its latents by the factor that a configuration gives.
fn check_factor(
    config: &Path,
    decoder: Option<&Path>,
    subject: &str,
    factor: usize,
) -> Result<(), BundleError> {
    let Some(decoder) = decoder else { return Ok(()) };
    match Convolutions::read(decoder)?.scale() {
        Some(own) if own != factor => {
            let fault = format!(
                "{subject}, which mean pictures {factor} times as large as a latent, but the graph of the decoder enlarges \
                 latents {own} times; correct it, or export both again"
            );
            Err(BundleError::Content { path: config.to_owned(), fault })
        }
        _ => Ok(()),
    }
}

/// By how much the first of these graphs that changes the size of an image changes it.
fn scale(graphs: [Option<&Path>; 2]) -> Result<usize, BundleError> {
    for graph in graphs.into_iter().flatten() {
        if let Some(scale) = Convolutions::read(graph)?.scale() {
            return Ok(scale);
        }
    }
    Ok(DEFAULT_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: VaeConfig = VaeConfig {
        channels: 4,
        factor: 8,
        scaling: 0.5,
        shift: 3.0,
        statistics: Some(LatentStatistics { mean: [1.0, 2.0, 3.0, 4.0], deviation: [2.0, 4.0, 8.0, 16.0] }),
        is_deterministic: false,
    };

    #[test]
    fn each_pipeline_converts_latents_by_its_own_keys() {
        let converted = |config: VaeConfig| {
            let mut latent = [1.0; 8];
            config.unscale(&mut latent);
            let found = latent;
            config.scale(&mut latent);
            assert_eq!(latent, [1.0; 8]);
            found
        };
        assert_eq!(converted(CONFIG.reduced_to(LatentScaling::Factor)), [2.0; 8]);
        assert_eq!(converted(CONFIG.reduced_to(LatentScaling::FactorAndShift)), [5.0; 8]);
        // z·std / scaling + mean.
        let expected = [5.0, 5.0, 10.0, 10.0, 19.0, 19.0, 36.0, 36.0];
        assert_eq!(converted(CONFIG.reduced_to(LatentScaling::FactorAndStatistics)), expected);
        let inpainting = CONFIG.reduced_to(LatentScaling::FactorAndStatistics).without_statistics();
        assert_eq!(converted(inpainting), [2.0; 8]);
    }

    fn read(decoder: &str, encoder: Option<&str>, index: &str) -> Result<VaeConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        for (part, text) in [("vae_decoder", Some(decoder)), ("vae_encoder", encoder)] {
            let folder = directory.path().join(part);
            std::fs::create_dir(&folder).unwrap();
            text.iter().for_each(|text| std::fs::write(folder.join("config.json"), text).unwrap());
        }
        std::fs::write(directory.path().join("model_index.json"), index).unwrap();
        let index = ModelIndex::read(directory.path()).unwrap();
        VaeConfig::read(directory.path(), None, None, &index, &mut Graphs::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_autoencoder_s_class() {
        let plain = read("{}", None, "{}").unwrap();
        assert_eq!((plain.scaling, plain.factor, plain.is_deterministic), (0.18215, 8, false));
        let blocks = r#"{"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [64, 64, 64]}"#;
        let tiny = read(blocks, None, "{}").unwrap();
        assert_eq!((tiny.scaling, tiny.factor, tiny.is_deterministic), (1.0, 4, true));
        // model_index.json decides between two classes.
        let kl = r#"{"_class_name": "AutoencoderKL"}"#;
        let named = read(kl, None, r#"{"vae": ["diffusers", "AutoencoderTiny"]}"#).unwrap();
        assert!(named.is_deterministic);
        let runtime = read(blocks, None, r#"{"vae": ["diffusers", "OnnxRuntimeModel"]}"#).unwrap();
        assert!(runtime.is_deterministic);
    }

    #[test]
    fn the_decoder_s_configuration_counts_where_the_encoder_has_another() {
        let config = read(r#"{"scaling_factor": 0.5}"#, Some(r#"{"scaling_factor": 2.0}"#), "{}").unwrap();
        assert_eq!(config.scaling, 0.5);
        let levels = format!(r#"{{"block_out_channels": {:?}}}"#, [1; 65]);
        assert!(read(&levels, None, "{}").unwrap_err().contains("block_out_channels has 65 values"));
        let one = read(r#"{"latents_mean": [1, 2, 3, 4]}"#, None, "{}").unwrap();
        assert_eq!(one.statistics, None);
        let zero = r#"{"latents_mean": [1, 2, 3, 4], "latents_std": [1, 0, 1, 1]}"#;
        assert!(
            read(zero, None, "{}")
                .unwrap_err()
                .contains("latents_std has a value that is not a number other than 0")
        );
    }
}
