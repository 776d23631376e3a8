//! The text encoders and the autoencoder in a bundle of the diffusers layout.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::autoencoder_config::VaeConfig;
use super::graphs::Graphs;
use super::json_file::read_or_default;
use super::model_index::{Component, ModelIndex};
use super::{BundleError, PipelineKind, TextEncoderFacts, TextModel};

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
    /// `is_distilled` of model_index.json: the network applies guidance itself.
    pub is_distilled: bool,
    /// `joint_attention_dim` of transformer/config.json: the width of the text embeddings.
    pub joint_attention_dim: Option<usize>,
    /// `guidance_embeds_scale` of transformer/config.json: the factor of the guidance weight as an input.
    pub guidance_embeds_scale: Option<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerFile {
    tokenizer_class: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelFile {
    model_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TransformerFile {
    joint_attention_dim: Option<usize>,
    guidance_embeds_scale: Option<f32>,
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
            is_distilled: index.flag("is_distilled")?.unwrap_or(false),
            joint_attention_dim: transformer.joint_attention_dim,
            guidance_embeds_scale: transformer.guidance_embeds_scale,
        }))
    }

    /// The place of each text encoder among those of its pipeline, from 0.
    fn places(&self) -> Vec<usize> {
        let place = |graph: &Path| {
            let folder = graph.parent()?.file_name()?;
            TEXT_ENCODERS.iter().position(|(encoder, _)| folder == *encoder)
        };
        self.text_encoders.iter().filter_map(|(graph, _)| place(graph)).collect()
    }

    /// What a pipeline of this kind does with each text encoder, with its place among all of them, from 0.
    pub(crate) fn text_encoder_facts(&self, kind: PipelineKind) -> Vec<(usize, &'static TextEncoderFacts)> {
        let all = kind.facts().text_encoders;
        self.places().into_iter().filter_map(|place| Some((place, all.get(place)?))).collect()
    }

    /// Checks that no text encoder is missing before another, and that each tokenizer is of the model that a pipeline of
    /// this kind has in its place.
    pub(super) fn check_text_encoders(&self, kind: PipelineKind) -> Result<(), BundleError> {
        let places = self.places();
        let (title, all) = (kind.title(), kind.facts().text_encoders);
        let is_missing = |place: &usize| {
            !places.contains(place) && all.get(*place).is_none_or(|encoder| !encoder.is_optional)
        };
        let last = places.last().copied().unwrap_or(0);
        if let Some(missing) = (0..last).find(is_missing) {
            let path = self.text_encoders[0].1.parent().unwrap_or(Path::new("")).to_owned();
            let found = places.iter().find(|place| **place > missing).copied().unwrap_or(last);
            let (expected, found) = (TEXT_ENCODERS[missing].0, TEXT_ENCODERS[found].0);
            let fault =
                format!("{expected}/model.onnx is missing, but {found} is there; export the whole pipeline");
            return Err(BundleError::Content { path, fault });
        }
        for ((graph, directory), (named, (place, facts))) in
            self.text_encoders.iter().zip(self.tokenizer_classes.iter().zip(self.text_encoder_facts(kind)))
        {
            let path = graph.with_file_name("config.json");
            let model: ModelFile = read_or_default(&path)?;
            let is_other = |kind: &str| !facts.model.model_types.iter().any(|start| kind.starts_with(start));
            if let Some(kind) = model.model_type.filter(|kind| is_other(kind)) {
                let fault = format!(
                    "model_type is {kind:?}, but text encoder {} of {} is {}; export the pipeline again",
                    place + 1,
                    title,
                    facts.model.title
                );
                return Err(BundleError::Content { path, fault });
            }
            let config: TokenizerFile = read_or_default(&directory.join("tokenizer_config.json"))?;
            let Some(class) = named.as_ref().or(config.tokenizer_class.as_ref()) else { continue };
            if TextModel::of_tokenizer(class).is_some_and(|model| model != facts.model) {
                let fault = format!(
                    "the class of this tokenizer is {class}, but text encoder {} of {title} is {}; export the pipeline \
                     again",
                    place + 1,
                    facts.model.title
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
