//! The text encoders and the autoencoder in a bundle of the diffusers layout.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::autoencoder_config::VaeConfig;
use super::graphs::Graphs;
use super::json_file::read_or_default;
use super::model_index::{Component, ModelIndex};
use super::{BundleError, PipelineKind};

/// The components around the denoiser of a latent diffusion pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentComponents {
    /// The graph of each text encoder and the directory of its tokenizer, in order.
    pub text_encoders: Vec<(PathBuf, PathBuf)>,
    /// The graph of the autoencoder's decoder.
    pub decoder: Option<PathBuf>,
    /// The graph of the autoencoder's encoder.
    pub encoder: Option<PathBuf>,
    /// The class of each tokenizer in model_index.json.
    pub tokenizer_classes: Vec<Option<String>>,
    /// The configuration of the autoencoder.
    pub vae: VaeConfig,
    /// Whether the bundle has a safety checker. It is not run.
    pub has_safety_checker: bool,
    /// `force_zeros_for_empty_prompt` of model_index.json: a missing negative prompt has embeddings of zeros.
    pub force_zeros_for_empty_prompt: bool,
    /// `joint_attention_dim` of transformer/config.json: the width of the text embeddings.
    pub joint_attention_dim: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerFile {
    tokenizer_class: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TransformerFile {
    joint_attention_dim: Option<usize>,
}

/// The directories of the text encoders and their tokenizers.
pub(super) const TEXT_ENCODERS: [(&str, &str); 3] =
    [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"), ("text_encoder_3", "tokenizer_3")];

impl LatentComponents {
    /// Reads the latent-diffusion components of a bundle. Returns `None` if it has no autoencoder.
    pub(super) fn read(
        directory: &Path,
        index: &ModelIndex,
        graphs: &mut Graphs,
    ) -> Result<Option<Self>, BundleError> {
        let graph =
            |folder: &str| Some(directory.join(folder).join("model.onnx")).filter(|file| file.is_file());
        // A component that model_index.json sets to null is none, even if its folder was left.
        let text_encoders: Vec<_> = TEXT_ENCODERS
            .into_iter()
            .filter(|(encoder, _)| index.component(encoder) != Some(Component::Absent))
            .filter_map(|(encoder, tokenizer)| Some((graph(encoder)?, tokenizer)))
            .collect();
        let is_null = index.component("vae_encoder") == Some(Component::Absent);
        let (decoder, encoder) = (graph("vae_decoder"), graph("vae_encoder").filter(|_| !is_null));
        if decoder.is_none() && encoder.is_none() {
            return Ok(None);
        }
        let transformer: TransformerFile = read_or_default(&directory.join("transformer/config.json"))?;
        let class = |tokenizer: &str| index.class_of(tokenizer).map(str::to_owned);
        Ok(Some(Self {
            tokenizer_classes: text_encoders.iter().map(|(_, tokenizer)| class(tokenizer)).collect(),
            text_encoders: text_encoders
                .into_iter()
                .map(|(encoder, tokenizer)| (encoder, directory.join(tokenizer)))
                .collect(),
            vae: VaeConfig::read(directory, decoder.as_deref(), encoder.as_deref(), index, graphs)?,
            decoder,
            encoder,
            has_safety_checker: graph("safety_checker").is_some(),
            force_zeros_for_empty_prompt: index.flag("force_zeros_for_empty_prompt")?.unwrap_or(true),
            joint_attention_dim: transformer.joint_attention_dim,
        }))
    }

    /// Checks that no text encoder is missing before another, and that each tokenizer is of the model that a pipeline of
    /// this kind has in its place.
    pub(super) fn check_text_encoders(&self, kind: PipelineKind) -> Result<(), BundleError> {
        let folder =
            |graph: &Path| graph.parent()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let found: Vec<String> = self.text_encoders.iter().filter_map(|(graph, _)| folder(graph)).collect();
        // SDXL's pipeline works with the second one alone.
        let is_second_of_sdxl = kind == PipelineKind::StableDiffusionXl && found == [TEXT_ENCODERS[1].0];
        let missing = TEXT_ENCODERS.iter().zip(&found).find(|((expected, _), found)| expected != found);
        if let (Some(((expected, _), found)), false) = (missing, is_second_of_sdxl) {
            let path = self.text_encoders[0].1.parent().unwrap_or(Path::new("")).to_owned();
            let fault =
                format!("{expected}/model.onnx is missing, but {found} is there; export the whole pipeline");
            return Err(BundleError::Content { path, fault });
        }
        for (i, ((_, directory), named)) in self.text_encoders.iter().zip(&self.tokenizer_classes).enumerate()
        {
            let config: TokenizerFile = read_or_default(&directory.join("tokenizer_config.json"))?;
            let Some(class) = named.as_ref().or(config.tokenizer_class.as_ref()) else { continue };
            let expected = if kind.facts().t5 == Some(i) { "T5" } else { "CLIP" };
            if ["T5", "CLIP"].iter().any(|model| class.starts_with(model)) && !class.starts_with(expected) {
                let title = kind.title();
                let fault = format!(
                    "the class of this tokenizer is {class}, but text encoder {} of {title} is {expected}; export the \
                     pipeline again",
                    i + 1
                );
                return Err(BundleError::Content { path: directory.clone(), fault });
            }
        }
        Ok(())
    }
}

impl LatentComponents {
    /// The graphs of all components.
    pub(super) fn graphs(&self) -> impl Iterator<Item = &Path> {
        let text_encoders = self.text_encoders.iter().map(|(graph, _)| graph);
        text_encoders.chain(&self.decoder).chain(&self.encoder).map(PathBuf::as_path)
    }
}
