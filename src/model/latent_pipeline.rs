//! The text encoders and the autoencoder around a denoiser of latents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Predictor;
use super::component::Component;
use super::denoiser::{Denoiser, digest};
use super::error::LatentError;
use super::example_inputs;
use super::pipeline_graphs::{PipelineGraphs, SizeLimits, TextEncoderGraph};
use super::text_encoder::{Embedding, Layer, TextEncoder, concat_features, concat_tokens};
use super::vae::{self, Autoencoder, LatentDistribution, Tiling};
use crate::bundle::{
    AutoencoderIo, Bundle, BundleError, LatentComponents, Manifest, PipelineKind, Role, Signature,
    TensorInput,
};
use crate::inference::{
    CaptureStatus, EngineOptions, ExampleInputs, GraphSource, MeasuredGraph, OnStage, PooledSession,
    ProvenBackend, SessionMemory, SessionPool, component_options, load,
};
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

impl TextConditioning {
    /// An empty prompt without guidance.
    fn empty() -> Self {
        Self {
            prompt: [String::new(), String::new()],
            negative: None,
            clip_skip: None,
            max_sequence_length: None,
            guidance: 1.0,
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
        let session = |graph: ComponentGraph| pooled_session(bundle, graph, options, pool, network, on_stage);
        let open_text_encoder = |(i, graph): (usize, TextEncoderGraph)| {
            let TextEncoderGraph { path, tokenizer, io, config } = graph;
            let session = session(ComponentGraph {
                role: format!("text_encoder_{}", i + 1),
                path: &path,
                example: example_inputs::of_text_encoder(&io, tokenizer.length),
                values_per_token: None,
            })?;
            let component = Component::new(directory_name(&path), session, io.batch);
            Ok::<_, BundleError>(TextEncoder::new(tokenizer, io, config, component))
        };
        // Both halves have attention over the positions of the latent, with one head.
        let autoencoder =
            |role: &str, channels: usize, per_token: usize, (path, io): (PathBuf, AutoencoderIo)| {
                let session = session(ComponentGraph {
                    role: role.to_owned(),
                    path: &path,
                    example: example_inputs::of_autoencoder(&io, channels),
                    values_per_token: Some((channels * per_token) as u64),
                })?;
                let component = Component::new(directory_name(&path), session, io.batch);
                Ok::<_, BundleError>(Autoencoder { component, io })
            };
        let (channels, factor) = (components.vae.channels, components.vae.factor);
        let text_encoders =
            text_encoders.into_iter().enumerate().map(open_text_encoder).collect::<Result<_, _>>()?;
        let decoder = decoder.map(|graph| autoencoder(DECODER, channels, 1, graph)).transpose()?;
        let encoder =
            encoder.map(|graph| autoencoder("vae_encoder", 3, factor * factor, graph)).transpose()?;
        let overlaps = pool.fits_denoiser_and_another(&bundle.name);
        let tiling = Tiling { configured: options.vae_tile, denoiser: network.memory().cloned() };
        Ok(Self { components, kind, overlaps, limits, text_encoders, decoder, encoder, tiling })
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
            conditions.unconditional = input_tensors(&negative, text, signature, shape)?;
        }
        conditions.conditional = input_tensors(&prompt, text, signature, shape)?;
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
        let t5_length = text.max_sequence_length.unwrap_or(self.limits.sequence_length);
        let encode = |which: usize, layer: Layer| -> Result<Embedding, LatentError> {
            let encoder = &self.text_encoders[which];
            let length = if Some(which) == facts.t5 { t5_length } else { encoder.tokenizer.length };
            // Without the reference's `prompt_3`, the third encoder gets the first prompt.
            encoder.encode(&prompt[usize::from(which == 1)], layer, length)
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
            self.encode_prompt(&text.prompt, None, &text)?;
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

/// A graph beside the denoiser.
struct ComponentGraph<'a> {
    role: String,
    path: &'a Path,
    example: ExampleInputs,
    /// How many values of a sample have one token of the largest attention.
    values_per_token: Option<u64>,
}

/// Adds the session of a component to the pool.
fn pooled_session(
    bundle: &Bundle,
    graph: ComponentGraph<'_>,
    options: &EngineOptions,
    pool: &SessionPool,
    network: &Denoiser,
    on_stage: &OnStage,
) -> Result<PooledSession, BundleError> {
    let ComponentGraph { role, path, example, values_per_token } = graph;
    let (proven, on_stage) = (ProvenBackend::default(), Arc::clone(on_stage));
    let files = bundle.files(path)?;
    let graph =
        MeasuredGraph { files: Arc::clone(&files), values_per_token, proven: ProvenBackend::clone(&proven) };
    let memory = SessionMemory::new(graph, network.backend(), options);
    let source = GraphSource {
        name: format!("{}-{role}", bundle.name),
        files,
        digest: digest(bundle, path, &options.cache),
        profile: None,
        capture: (role == DECODER).then(CaptureStatus::default),
        example,
    };
    let (options, network) = (options.clone(), ProvenBackend::clone(network.proven_backend()));
    let open = move || {
        let options = component_options(&options, network.get())?;
        load(&source, &options, &proven, &on_stage)
    };
    Ok(pool.insert(format!("{}/{role}", bundle.name), memory, Box::new(open)))
}

/// The tensor for each input of the denoiser that the pipeline fills.
fn input_tensors(
    prompt: &PromptEmbeddings,
    text: &TextConditioning,
    signature: &Signature,
    shape: &[usize],
) -> Result<Vec<Tensor>, LatentError> {
    let tensor = |input: &TensorInput| match input.role {
        Role::Text => prompt.rows.clone(),
        Role::Pooled => Tensor::new([prompt.pooled.len()], prompt.pooled.clone()),
        Role::TimeIds => Tensor::new([6], text.time_ids.to_vec()),
        Role::GuidanceEmbedding => {
            let width = input.shape.first().and_then(Dim::length).unwrap_or(256);
            Tensor::new([width], guidance_embedding(text.guidance - 1.0, width))
        }
        Role::Guidance => Tensor::new([], vec![text.guidance as f32]),
        Role::TextIds => positions(input, vec![0.0; prompt.rows.shape[0] * 3]),
        Role::ImageIds => positions(input, image_ids(shape)),
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

/// Positions of three numbers each, with the axes that the graph has.
fn positions(input: &TensorInput, values: Vec<f32>) -> Tensor {
    let count = values.len() / 3;
    let shape = if input.shape.len() == 3 { vec![1, count, 3] } else { vec![count, 3] };
    Tensor::new(shape, values)
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
fn image_ids(shape: &[usize]) -> Vec<f32> {
    let (height, width) = (shape[1] / 2, shape[2] / 2);
    let position = |i: usize| [0.0, (i / width) as f32, (i % width) as f32];
    (0..height * width).flat_map(position).collect()
}
