//! The text encoders and the autoencoder around a denoiser of latents.

use std::path::Path;

use super::ModelError;
use super::error::LatentError;
use super::text_encoder::{Embedding, Layer, TextEncoder, concat_features, concat_tokens};
use super::tokenizer::Tokenizer;
use super::vae::{self, LatentDistribution};
use crate::bundle::latent_components::{text_positions, vocabulary_size};
use crate::bundle::{LatentComponents, Manifest, PipelineKind, Projection, Role, Signature, onnx_file};
use crate::inference::{EngineOptions, GraphSource, InputShapes, PooledSession, SessionPool, Warmup, load};
use crate::tensor::{GraphIo, Tensor};

/// A job's prompts and what else the text encoders and the denoiser are conditioned on.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConditioning {
    /// The prompt for the first text encoder and the one for the others.
    pub prompt: [String; 2],
    /// The negative prompts, if one is given.
    pub negative: Option<[String; 2]>,
    /// How many of CLIP's last layers are skipped.
    pub clip_skip: Option<usize>,
    /// The number of T5 tokens.
    pub max_sequence_length: Option<usize>,
    /// The guidance weight.
    pub guidance: f64,
    /// Whether the network is evaluated without the prompt too.
    pub guided: bool,
    /// SDXL's micro-conditioning: height and width of the original, top and left of the crop, height and width of the
    /// target.
    pub time_ids: [f32; 6],
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
    text_encoders: Vec<TextEncoder>,
    decoder: Option<PooledSession>,
    encoder: Option<PooledSession>,
    /// The longest side in pixels that the autoencoder processes at once.
    tile: Option<usize>,
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
    pooled: Vec<f32>,
    truncated: Vec<String>,
}

impl LatentPipeline {
    /// Adds the sessions to the pool, which opens each when it is first used. Returns `None` if the denoiser takes no text.
    pub(super) fn open(
        name: &str,
        components: &LatentComponents,
        signature: &Signature,
        options: &EngineOptions,
        pool: &SessionPool,
    ) -> Result<Option<Self>, ModelError> {
        let Some(kind) = PipelineKind::from_signature(signature) else {
            return Ok(None);
        };
        let (allowed, found) = (&kind.facts().text_encoders, components.text_encoders.len());
        if !allowed.contains(&found) {
            let (name, needed) = (name.to_owned(), *allowed.start());
            return Err(ModelError::MissingTextEncoders { name, needed, found });
        }
        let session = |component: &str, graph: &Path| pooled_session(name, component, graph, options, pool);
        let mut text_encoders = Vec::new();
        for (i, (graph, directory)) in components.text_encoders.iter().enumerate() {
            let session = session(&format!("text_encoder_{}", i + 1), graph);
            let class = components.tokenizer_classes.get(i).and_then(Option::as_deref);
            let tokenizer = Tokenizer::open(directory, class, text_positions(graph)?)?;
            tokenizer.check_vocabulary(directory, vocabulary_size(graph)?, graph)?;
            text_encoders.push(TextEncoder::new(tokenizer, session));
        }
        let decoder = components.decoder.as_ref().map(|graph| session("vae_decoder", graph));
        let encoder = components.encoder.as_ref().map(|graph| session("vae_encoder", graph));
        let vae = components.vae.reduced_to(kind.facts().latent_scaling);
        let (components, tile) = (LatentComponents { vae, ..components.clone() }, options.vae_tile);
        let overlaps = pool.fits_denoiser_and_another(name);
        Ok(Some(Self { components, kind, overlaps, text_encoders, decoder, encoder, tile }))
    }

    /// Encodes the prompts for samples of this shape.
    pub fn conditions(
        &self,
        text: &TextConditioning,
        signature: &Signature,
        shape: &[usize],
    ) -> Result<Conditions, LatentError> {
        let prompt = self.encode_prompt(&text.prompt, text.clip_skip, text)?;
        let mut conditions = Conditions { truncated: prompt.truncated.clone(), ..Conditions::default() };
        if text.guided {
            let zeros =
                self.components.force_zeros_for_empty_prompt && self.kind.facts().may_zero_unconditional;
            let negative = match &text.negative {
                None if zeros => PromptEmbeddings {
                    rows: Tensor::zeros(prompt.rows.shape.clone()),
                    pooled: vec![0.0; prompt.pooled.len()],
                    truncated: Vec::new(),
                },
                None => self.encode_prompt(&[String::new(), String::new()], None, text)?,
                Some(negative) => self.encode_prompt(negative, None, text)?,
            };
            conditions.truncated.extend(negative.truncated.iter().cloned());
            conditions.unconditional = input_tensors(&negative, text, signature, shape);
        }
        conditions.conditional = input_tensors(&prompt, text, signature, shape);
        Ok(conditions)
    }

    fn encode_prompt(
        &self,
        prompt: &[String; 2],
        clip_skip: Option<usize>,
        text: &TextConditioning,
    ) -> Result<PromptEmbeddings, LatentError> {
        let skip = clip_skip.unwrap_or(0);
        let facts = self.kind.facts();
        let t5_length = text.max_sequence_length.unwrap_or(facts.sequence_length);
        let encode = |which: usize, layer: Layer| -> Result<Embedding, LatentError> {
            let encoder = &self.text_encoders[which];
            let length = if Some(which) == facts.t5 { t5_length } else { encoder.tokenizer.length };
            encoder.encode(&prompt[which.min(1)], layer, length)
        };
        let (rows, pooled, truncated) = match self.kind {
            PipelineKind::StableDiffusion | PipelineKind::LatentConsistency => {
                let layer = if skip == 0 { Layer::Last } else { Layer::BeforeLast(skip) };
                let clip = encode(0, layer)?;
                (clip.rows, Vec::new(), vec![clip.truncated])
            }
            PipelineKind::StableDiffusionXl => {
                let all = (0..self.text_encoders.len())
                    .map(|which| encode(which, Layer::BeforeLast(1 + skip)))
                    .collect::<Result<Vec<_>, _>>()?;
                let rows = concat_features(&all.iter().map(|one| &one.rows).collect::<Vec<_>>());
                let pooled = all.last().map(|last| last.pooled.clone()).unwrap_or_default();
                (rows, pooled, all.into_iter().map(|one| one.truncated).collect())
            }
            PipelineKind::StableDiffusion3 => {
                let first = encode(0, Layer::BeforeLast(1 + skip))?;
                let second = encode(1, Layer::BeforeLast(1 + skip))?;
                let clip = concat_features(&[&first.rows, &second.rows]);
                let (t5, t5_truncated) = if self.text_encoders.len() > 2 {
                    let t5 = encode(2, Layer::Last)?;
                    (t5.rows, t5.truncated)
                } else {
                    let width = self.components.joint_attention_dim.unwrap_or(clip.shape[1]);
                    (Tensor::zeros([t5_length, width]), None)
                };
                let pooled = [first.pooled, second.pooled].concat();
                let truncated = vec![first.truncated, second.truncated, t5_truncated];
                (concat_tokens(&clip, &t5), pooled, truncated)
            }
            PipelineKind::Flux => {
                let clip = encode(0, Layer::Last)?;
                let t5 = encode(1, Layer::Last)?;
                // Flux uses only the pooled embedding of CLIP, so truncation by CLIP is normal.
                (t5.rows, clip.pooled, vec![t5.truncated])
            }
        };
        let mut truncated: Vec<String> = truncated.into_iter().flatten().collect();
        truncated.dedup();
        Ok(PromptEmbeddings { rows, pooled, truncated })
    }

    /// The image [3, H, W] in −1..1 of a finished sample.
    pub fn decode(&self, sample: &[f32], shape: &[usize]) -> Result<Tensor, LatentError> {
        let decoder = self.decoder.as_ref().ok_or(LatentError::MissingComponent("vae_decoder"))?;
        vae::decode(decoder, self.components.vae, sample, shape, self.tile)
    }

    /// The distribution of the latents of an image [3, H, W] in −1..1.
    pub fn encode(&self, image: &Tensor) -> Result<LatentDistribution, LatentError> {
        let encoder = self.encoder.as_ref().ok_or(LatentError::MissingComponent("vae_encoder"))?;
        vae::encode(encoder, self.components.vae, image, self.tile)
    }

    /// A preview of a latent, if there is a projection for its channels.
    pub fn preview(&self, latent: &[f32], shape: &[usize], manifest: &Manifest) -> Option<Tensor> {
        let projection = manifest.preview.clone().or_else(|| Projection::published(self.kind))?;
        (projection.factors.len() == shape[0]).then(|| projection.apply(latent, shape))
    }

    /// Whether images can be encoded to latents.
    pub fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }
}

/// Adds the session of a component to the pool.
fn pooled_session(
    model: &str,
    component: &str,
    graph: &Path,
    options: &EngineOptions,
    pool: &SessionPool,
) -> PooledSession {
    let (name, options) = (format!("{model}-{component}"), options.clone());
    let (label, bytes, path) =
        (format!("{model}/{component}"), onnx_file::peak_memory(graph), graph.to_owned());
    let open = move || {
        let sha256 = onnx_file::sha256(&path)?;
        let warmup = one_shot_warmup(&onnx_file::graph_io(&path)?);
        let (name, path, sha256) = (name.clone(), path.as_path(), sha256.as_str());
        let source = GraphSource { name, path, sha256, profile: None, warmup };
        Ok(load(&source, &options, &mut |_| {})?.session)
    };
    pool.insert(label, bytes, None, Box::new(open))
}

/// The height and width in the warm-up of an autoencoder.
const WARMUP_SIZE: usize = 16;
/// The number of tokens in the warm-up of a text encoder.
const WARMUP_TOKENS: usize = 77;

/// The warm-up of a component that is evaluated once per job: one evaluation in a small shape, because a decoder takes as
/// long for a full image as for a job.
fn one_shot_warmup(graph: &GraphIo) -> Warmup {
    let (Some(input), Some(output)) = (graph.inputs.first(), graph.outputs.first()) else {
        return Warmup::default();
    };
    let size = if input.shape.len() == 2 { WARMUP_TOKENS } else { WARMUP_SIZE };
    let axes = input.shape.iter().enumerate();
    let shape = axes.map(|(i, axis)| axis.length().unwrap_or(if i == 0 { 1 } else { size })).collect();
    Warmup {
        shapes: vec![InputShapes(vec![(input.name.clone(), shape)])],
        output: output.name.clone(),
        ..Warmup::default()
    }
}

/// The tensor for each input of the denoiser that the pipeline fills.
fn input_tensors(
    prompt: &PromptEmbeddings,
    text: &TextConditioning,
    signature: &Signature,
    shape: &[usize],
) -> Vec<Tensor> {
    let tensor = |role: Role, width: Option<usize>| match role {
        Role::Text => prompt.rows.clone(),
        Role::Pooled => Tensor::new([prompt.pooled.len()], prompt.pooled.clone()),
        Role::TimeIds => Tensor::new([6], text.time_ids.to_vec()),
        Role::GuidanceEmbedding => {
            let width = width.unwrap_or(256);
            Tensor::new([width], guidance_embedding(text.guidance - 1.0, width))
        }
        Role::Guidance => Tensor::new([], vec![text.guidance as f32]),
        Role::TextIds => Tensor::zeros([prompt.rows.shape[0], 3]),
        Role::ImageIds => image_ids(shape),
    };
    let inputs = signature.tensors.iter();
    inputs.map(|input| tensor(input.role, input.shape.first().and_then(|axis| axis.length()))).collect()
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

/// The row and column of each 2×2 patch of a latent.
fn image_ids(shape: &[usize]) -> Tensor {
    let (height, width) = (shape[1] / 2, shape[2] / 2);
    let position = |i: usize| [0.0, (i / width) as f32, (i % width) as f32];
    Tensor::new([height * width, 3], (0..height * width).flat_map(position).collect())
}
