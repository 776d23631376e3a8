//! The text encoders and the autoencoder in a bundle of the diffusers layout.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::BundleError;
use super::json_file::read_or_default;

/// The components around the denoiser of a latent diffusion pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentComponents {
    /// The graph of each text encoder and the directory of its tokenizer, in order.
    pub text_encoders: Vec<(PathBuf, PathBuf)>,
    /// The graph of the autoencoder's decoder.
    pub decoder: Option<PathBuf>,
    /// The graph of the autoencoder's encoder.
    pub encoder: Option<PathBuf>,
    /// The configuration of the autoencoder.
    pub vae: VaeConfig,
    /// Whether the bundle has a safety checker. It is not run.
    pub has_safety_checker: bool,
    /// `force_zeros_for_empty_prompt` of model_index.json: a missing negative prompt has embeddings of zeros.
    pub force_zeros_for_empty_prompt: bool,
    /// `joint_attention_dim` of transformer/config.json: the width of the text embeddings.
    pub joint_attention_dim: Option<usize>,
}

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
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VaeFile {
    latent_channels: Option<usize>,
    block_out_channels: Option<Vec<usize>>,
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IndexFile {
    force_zeros_for_empty_prompt: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TextEncoderFile {
    vocab_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TransformerFile {
    joint_attention_dim: Option<usize>,
}

impl LatentComponents {
    /// Reads the latent-diffusion components of a bundle. Returns `None` if it has no autoencoder.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, BundleError> {
        let graph =
            |folder: &str| Some(directory.join(folder).join("model.onnx")).filter(|file| file.is_file());
        let text_encoders: Vec<_> = [
            ("text_encoder", "tokenizer"),
            ("text_encoder_2", "tokenizer_2"),
            ("text_encoder_3", "tokenizer_3"),
        ]
        .into_iter()
        .filter_map(|(encoder, tokenizer)| Some((graph(encoder)?, directory.join(tokenizer))))
        .collect();
        let (decoder, encoder) = (graph("vae_decoder"), graph("vae_encoder"));
        let Some(vae_graph) = decoder.as_ref().or(encoder.as_ref()) else {
            return Ok(None);
        };
        let vae: VaeFile = read_or_default(&vae_graph.with_file_name("config.json"))?;
        let index: IndexFile = read_or_default(&directory.join("model_index.json"))?;
        let transformer: TransformerFile = read_or_default(&directory.join("transformer/config.json"))?;
        let blocks = vae.block_out_channels.map_or(4, |blocks| blocks.len());
        Ok(Some(Self {
            text_encoders,
            decoder,
            encoder,
            vae: VaeConfig {
                channels: vae.latent_channels.unwrap_or(4),
                factor: 1 << blocks.saturating_sub(1),
                scaling: vae.scaling_factor.unwrap_or(0.18215),
                shift: vae.shift_factor.unwrap_or(0.0),
            },
            has_safety_checker: graph("safety_checker").is_some(),
            force_zeros_for_empty_prompt: index.force_zeros_for_empty_prompt.unwrap_or(true),
            joint_attention_dim: transformer.joint_attention_dim,
        }))
    }
}

impl LatentComponents {
    /// The graphs of all components.
    pub(super) fn graphs(&self) -> impl Iterator<Item = &Path> {
        let text_encoders = self.text_encoders.iter().map(|(graph, _)| graph);
        text_encoders.chain(&self.decoder).chain(&self.encoder).map(PathBuf::as_path)
    }
}

/// `vocab_size` of the configuration beside a text encoder's graph.
pub(crate) fn vocabulary_size(graph: &Path) -> Result<Option<usize>, BundleError> {
    let file: TextEncoderFile = read_or_default(&graph.with_file_name("config.json"))?;
    Ok(file.vocab_size)
}
