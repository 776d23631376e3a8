//! The text encoders and the autoencoder around a denoiser of latents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Predictor;
use super::component::Component;
use super::component_session::{ComponentGraph, pooled_session};
use super::denoiser::{Denoiser, digest};
use super::embedding_cache::{EmbeddingCache, EncoderIdentity};
use super::embedding_store::EmbeddingStore;
use super::error::LatentError;
use super::example_inputs;
use super::lora_store::{JobLoras, LoraChoice, LoraFault, LoraStore};
use super::pipeline_graphs::{PipelineGraphs, SizeLimits};
use super::text_encoder::{EncoderInput, TextEncoder, concat_features, concat_tokens};
use super::text_encoder_graph::TextEncoderGraph;
use super::vae::{self, Autoencoder, LatentDistribution, Tiling};
use crate::bundle::{
    AutoencoderIo, Bundle, BundleError, GuidanceRule, LatentComponents, LiveInputs, Manifest, PipelineKind,
    Role, RowUse, Signature, TensorInput,
};
use crate::inference::{EngineOptions, OnStage, ProvenBackend, SessionPool};
use crate::tensor::{Dim, Tensor};

/// The role of the graph that is evaluated for every image.
const DECODER: &str = "vae_decoder";

/// A job's prompts and what else the text encoders and the denoiser are conditioned on.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConditioning {
    /// The prompt for the first and the third text encoder, and the one for the second.
    pub prompt: [String; 2],
    /// The negative prompts, if one is given.
    pub negative: Option<[String; 2]>,
    /// How many of CLIP's last layers are skipped.
    pub clip_skip: Option<usize>,
    /// The number of tokens of the text encoder that takes as many as a job asks for.
    pub max_sequence_length: Option<usize>,
    /// The guidance weight.
    pub guidance: f64,
    /// How the outputs with and without the prompt are combined.
    pub guidance_rule: GuidanceRule,
    /// The largest norm of a guided prediction, in norms of the prediction with the prompt.
    pub cfg_normalization: Option<f64>,
    /// The share of the way from noise to the image after which guidance ends.
    pub cfg_truncation: Option<f64>,
    /// Whether the network is evaluated without the prompt too.
    pub guided: bool,
    /// SDXL's micro-conditioning: height and width of the original, top and left of the crop, height and width of the
    /// target.
    pub time_ids: [f32; 6],
}

impl TextConditioning {
    /// An empty prompt without guidance.
    fn empty() -> Self {
        Self {
            prompt: [String::new(), String::new()],
            negative: None,
            clip_skip: None,
            max_sequence_length: None,
            guidance: 1.0,
            guidance_rule: GuidanceRule::FromUnconditional,
            cfg_normalization: None,
            cfg_truncation: None,
            guided: false,
            time_ids: [0.0; 6],
        }
    }
}

/// The tensors that the denoiser takes besides samples and time steps, in the order of its signature.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// The embeddings of the prompt.
    pub conditional: Vec<Tensor>,
    /// The embeddings of the negative prompt, or of an empty one. Empty if there is no guidance.
    pub unconditional: Vec<Tensor>,
    /// The parts of the prompts that exceed the length of their text encoders.
    pub truncated: Vec<String>,
}

/// The text encoders and the autoencoder of a pipeline.
pub struct LatentPipeline {
    /// The graphs' files and configurations.
    pub components: LatentComponents,
    /// The kind of pipeline.
    pub kind: PipelineKind,
    /// Whether the memory budget allows any of these sessions beside the denoiser's.
    pub overlaps: bool,
    /// The sizes and lengths that the graphs take.
    pub limits: SizeLimits,
    text_encoders: Vec<TextEncoder>,
    decoder: Option<Autoencoder>,
    encoder: Option<Autoencoder>,
    tiling: Tiling,
    loras: LoraStore,
}

impl std::fmt::Debug for LatentPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatentPipeline").field("components", &self.components).finish_non_exhaustive()
    }
}

/// A prompt as the denoiser takes it.
struct PromptEmbeddings {
    /// One row per token.
    rows: Tensor,
    /// For each row 1, or 0 if it is padding.
    mask: Vec<f32>,
    pooled: Vec<f32>,
    truncated: Vec<String>,
}

impl LatentPipeline {
    /// Adds the sessions to the pool, which opens each when it is first used, and reports its stages.
    pub(super) fn new(
        bundle: &Bundle,
        graphs: PipelineGraphs,
        options: &EngineOptions,
        pool: &SessionPool,
        network: &Denoiser,
        on_stage: &OnStage,
    ) -> Result<Self, BundleError> {
        let PipelineGraphs { components, kind, text_encoders, decoder, encoder, limits } = graphs;
        let of_network = network.for_components();
        let session =
            |graph: ComponentGraph| pooled_session(bundle, graph, options, pool, &of_network, on_stage);
        let open_text_encoder = |(i, graph): (usize, TextEncoderGraph)| {
            let length = graph.facts.length.default().unwrap_or(graph.tokenizer.length);
            let proven = ProvenBackend::default();
            let session = session(ComponentGraph {
                role: format!("text_encoder_{}", i + 1),
                path: &graph.path,
                example: example_inputs::of_text_encoder(&graph.io, length),
                values_per_token: None,
                captures: false,
                proven: ProvenBackend::clone(&proven),
            })?;
            let component = Component::new(directory_name(&graph.path), session, graph.io.batch);
            let config = graph.path.with_file_name("config.json");
            let files = EncoderIdentity::tokenizer_files(&graph.tokenizer_path).chain([config]).collect();
            let identity = EncoderIdentity::new(
                digest(bundle, &graph.path, &options.cache),
                files,
                format!("{:?}", graph.facts),
                options,
                network.backend().clone(),
                (ProvenBackend::clone(network.proven_backend()), proven),
            );
            let store = EmbeddingStore::new(&options.cache, options.cache_size);
            Ok::<_, BundleError>(TextEncoder::new(graph, component, EmbeddingCache::new(store, identity)))
        };
        // Both halves have attention over the positions of the latent, with one head.
        let autoencoder =
            |role: &str, channels: usize, per_token: usize, (path, io): (PathBuf, AutoencoderIo)| {
                let session = session(ComponentGraph {
                    role: role.to_owned(),
                    path: &path,
                    example: example_inputs::of_autoencoder(&io, channels),
                    values_per_token: Some((channels * per_token) as u64),
                    captures: role == DECODER,
                    proven: ProvenBackend::default(),
                })?;
                let component = Component::new(directory_name(&path), session, io.batch);
                Ok::<_, BundleError>(Autoencoder { component, io })
            };
        let layers = |live: &LiveInputs| live.layers.iter().map(|input| input.layer.clone()).collect();
        let loras = LoraStore::new(
            layers(&network.signature().live),
            text_encoders.iter().map(|graph| layers(&graph.io.live)).collect(),
            options.loras.max_rank,
        );
        let (channels, factor) = (components.vae.channels, components.vae.factor);
        let text_encoders =
            text_encoders.into_iter().enumerate().map(open_text_encoder).collect::<Result<_, _>>()?;
        let decoder = decoder.map(|graph| autoencoder(DECODER, channels, 1, graph)).transpose()?;
        let encoder =
            encoder.map(|graph| autoencoder("vae_encoder", 3, factor * factor, graph)).transpose()?;
        let overlaps = pool.fits_denoiser_and_another(&bundle.name);
        let tiling = Tiling { configured: options.vae_tile, denoiser: network.memory().cloned() };
        Ok(Self { components, kind, overlaps, limits, text_encoders, decoder, encoder, tiling, loras })
    }

    /// Whether any graph has inputs for LoRAs.
    pub fn takes_loras(&self) -> bool {
        self.loras.has_layers()
    }

    /// Loads the LoRAs of a job.
    ///
    /// # Errors
    ///
    /// The index of the LoRA at fault, and the fault.
    pub fn load_loras(&self, choices: &[LoraChoice]) -> Result<Arc<JobLoras>, (usize, LoraFault)> {
        self.loras.load(choices)
    }

    /// Encodes the prompts for samples of this shape.
    pub fn conditions(
        &self,
        text: &TextConditioning,
        signature: &Signature,
        shape: &[usize],
        loras: Option<&JobLoras>,
    ) -> Result<Conditions, LatentError> {
        let facts = self.kind.facts();
        let packing = facts.packing.unwrap_or(1);
        let guidance = facts.guidance_input(text.guidance, self.components.guidance_embeds_scale);
        let tensors =
            |prompt: &PromptEmbeddings| input_tensors(prompt, text, guidance, signature, shape, packing);
        let prompt = self.encode_prompt(&text.prompt, false, text, loras)?;
        let mut conditions = Conditions { truncated: prompt.truncated.clone(), ..Conditions::default() };
        if text.guided {
            let zeros = self.components.force_zeros_for_empty_prompt && facts.may_zero_unconditional;
            let negative = match &text.negative {
                None if zeros => PromptEmbeddings {
                    rows: Tensor::zeros(prompt.rows.shape.clone()),
                    mask: prompt.mask.clone(),
                    pooled: vec![0.0; prompt.pooled.len()],
                    truncated: Vec::new(),
                },
                None => self.encode_prompt(&[String::new(), String::new()], true, text, loras)?,
                Some(negative) => self.encode_prompt(negative, true, text, loras)?,
            };
            conditions.truncated.extend(negative.truncated.iter().cloned());
            conditions.unconditional = tensors(&negative)?;
        }
        conditions.conditional = tensors(&prompt)?;
        Ok(conditions)
    }

    fn encode_prompt(
        &self,
        prompt: &[String; 2],
        is_negative: bool,
        text: &TextConditioning,
        loras: Option<&JobLoras>,
    ) -> Result<PromptEmbeddings, LatentError> {
        let sequence_length = text.max_sequence_length.unwrap_or(self.limits.sequence_length);
        // The reference skips no layers for a negative prompt.
        let skipped_layers = text.clip_skip.filter(|_| !is_negative).unwrap_or(0);
        let mut embeddings = PromptEmbeddings {
            rows: Tensor::zeros([0, 0]),
            mask: Vec::new(),
            pooled: Vec::new(),
            truncated: Vec::new(),
        };
        for encoder in &self.text_encoders {
            // Without the reference's `prompt_3`, the third encoder gets the first prompt.
            let prompt = &prompt[usize::from(encoder.place() == 1)];
            let loras = loras.and_then(|loras| loras.of_text_encoder(encoder.place()));
            let input = EncoderInput { prompt, is_negative, skipped_layers, sequence_length, loras };
            let own = encoder.encode(&input)?;
            let PromptEmbeddings { rows, mask, pooled, truncated } = &mut embeddings;
            match encoder.facts().rows {
                // Truncation is normal for an encoder of which only the pooled embedding is used.
                RowUse::Unused => {}
                RowUse::Beside if rows.shape[0] > 0 => *rows = concat_features(&[rows, &own.rows]),
                RowUse::After => {
                    *rows = concat_tokens(rows, &own.rows);
                    mask.extend(own.mask);
                }
                RowUse::Beside | RowUse::Unpadded | RowUse::FirstAndLast => {
                    (*rows, *mask) = (own.rows, own.mask);
                }
            }
            if encoder.facts().has_rows() {
                truncated.extend(own.truncated);
            }
            if encoder.facts().pooled.is_some() {
                pooled.extend(own.pooled);
            }
        }
        let missing = self.kind.facts().text_encoders.iter().skip(self.text_encoders.len());
        if missing.into_iter().any(|facts| facts.rows == RowUse::After) {
            let width = self.components.joint_attention_dim.unwrap_or(embeddings.rows.shape[1]);
            let zeros = Tensor::zeros([sequence_length, width]);
            embeddings.rows = concat_tokens(&embeddings.rows, &zeros);
        }
        embeddings.truncated.dedup();
        Ok(embeddings)
    }

    /// The image [3, H, W] in −1..1 of a finished sample.
    pub fn decode(&self, sample: &[f32], shape: &[usize]) -> Result<Tensor, LatentError> {
        let decoder = self.decoder.as_ref().ok_or(LatentError::MissingComponent("vae_decoder"))?;
        vae::decode(decoder, self.components.vae, sample, shape, &self.tiling)
    }

    /// The distribution of the latents of an image [3, H, W] in −1..1.
    pub fn encode(&self, image: &Tensor) -> Result<LatentDistribution, LatentError> {
        let encoder = self.encoder.as_ref().ok_or(LatentError::MissingComponent("vae_encoder"))?;
        vae::encode(encoder, self.components.vae, image, &self.tiling)
    }

    /// Closes the text encoders, whose embeddings stay cached. A prompt that is not cached opens them again.
    pub(crate) fn close_text_encoders(&self) {
        self.text_encoders.iter().for_each(TextEncoder::close);
    }

    /// Opens the decoder without evaluating it, if it is not open.
    pub(crate) fn open_decoder(&self) -> Result<(), LatentError> {
        self.decoder.as_ref().map_or(Ok(()), |decoder| decoder.component.open())
    }

    /// Opens each graph once, so that what is prepared for its provider is in the engine cache, and closes it again. Where
    /// providers build engines in the first evaluation, that is made too: with empty prompts, and for a latent of this
    /// `shape`.
    pub(super) fn prepare(&self, shape: &[usize], evaluates: bool) -> Result<(), LatentError> {
        let halves = [(&self.decoder, false), (&self.encoder, true)];
        if evaluates {
            let text = TextConditioning::empty();
            self.encode_prompt(&text.prompt, false, &text, None)?;
        }
        for text_encoder in &self.text_encoders {
            text_encoder.open()?;
            text_encoder.close();
        }
        for (half, is_encoder) in halves {
            let Some(half) = half else { continue };
            match (evaluates, is_encoder) {
                (false, _) => half.component.open()?,
                (true, false) => drop(self.decode(&vec![0.0; shape.iter().product()], shape)?),
                (true, true) => {
                    let factor = self.components.vae.factor;
                    drop(self.encode(&Tensor::zeros([3, shape[1] * factor, shape[2] * factor]))?);
                }
            }
            half.component.close();
        }
        Ok(())
    }

    /// A preview of a latent, if there is a projection for its channels.
    pub fn preview(&self, latent: &[f32], shape: &[usize], manifest: &Manifest) -> Option<Tensor> {
        Some(manifest.projection(self.kind, shape[0])?.apply(latent, shape))
    }

    /// Whether images can be encoded to latents.
    pub fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }
}

/// The name of a graph's directory in the bundle.
fn directory_name(graph: &Path) -> String {
    let name = graph.parent().and_then(Path::file_name);
    name.map_or_else(|| graph.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The tensor for each input of the denoiser that the pipeline fills. `guidance` is the weight as an input of its own.
fn input_tensors(
    prompt: &PromptEmbeddings,
    text: &TextConditioning,
    guidance: f32,
    signature: &Signature,
    shape: &[usize],
    packing: usize,
) -> Result<Vec<Tensor>, LatentError> {
    let tensor = |input: &TensorInput| match input.role {
        Role::Text => prompt.rows.clone(),
        Role::TextMask => Tensor::new([prompt.mask.len()], prompt.mask.clone()),
        Role::Pooled => Tensor::new([prompt.pooled.len()], prompt.pooled.clone()),
        Role::TimeIds => Tensor::new([6], text.time_ids.to_vec()),
        Role::GuidanceEmbedding => {
            let width = input.shape.first().and_then(Dim::length).unwrap_or(256);
            Tensor::new([width], guidance_embedding(text.guidance - 1.0, width))
        }
        Role::Guidance => Tensor::new([], vec![guidance]),
        Role::TextIds => positions(input, text_ids(prompt.rows.shape[0], position_width(input))),
        Role::ImageIds => positions(input, image_ids(shape, packing, position_width(input))),
    };
    let checked = |input: &TensorInput| {
        let tensor = tensor(input);
        if input.accepts(&tensor.shape) {
            return Ok(tensor);
        }
        let declared = signature.graph.inputs.iter().find(|value| value.name == input.name);
        let input = declared.map_or_else(|| input.name.clone(), ToString::to_string);
        Err(LatentError::Embeddings { input, found: tensor.shape })
    };
    signature.tensors.iter().map(checked).collect()
}

/// How many numbers a position has: three in Flux, four in FLUX.2.
fn position_width(input: &TensorInput) -> usize {
    input.shape.last().and_then(Dim::length).unwrap_or(3)
}

/// Positions with the axes that the graph has.
fn positions(input: &TensorInput, values: Vec<f32>) -> Tensor {
    let width = position_width(input);
    let count = values.len() / width;
    let shape = if input.shape.len() == 3 { vec![1, count, width] } else { vec![count, width] };
    Tensor::new(shape, values)
}

/// The positions of tokens: zeros, or with four numbers the place of a token as the last one.
fn text_ids(tokens: usize, width: usize) -> Vec<f32> {
    let position = |i: usize| (0..width).map(move |axis| if axis == 3 { i as f32 } else { 0.0 });
    (0..tokens).flat_map(position).collect()
}

/// The embedding of a guidance weight for a latent consistency model: sines and cosines of 1000·w
/// (Luo et al. 2023, section 4.3; Vaswani et al. 2017).
fn guidance_embedding(w: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = (10_000.0_f32).ln() / (half.max(2) - 1) as f32;
    let angle = |i: usize| 1000.0 * w as f32 * (-step * i as f32).exp();
    let sines = (0..half).map(|i| angle(i).sin());
    let cosines = (0..half).map(|i| angle(i).cos());
    sines.chain(cosines).chain(std::iter::repeat_n(0.0, width % 2)).collect()
}

/// The row and column of each patch of a latent, as the second and third of `numbers`.
fn image_ids(shape: &[usize], side: usize, numbers: usize) -> Vec<f32> {
    let (height, width) = (shape[1] / side, shape[2] / side);
    let position = |i: usize| [0.0, (i / width) as f32, (i % width) as f32, 0.0].into_iter().take(numbers);
    (0..height * width).flat_map(position).collect()
}
