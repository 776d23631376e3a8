//! The networks around the network: a pipeline that draws latents by a prompt.
//!
//! Which pipeline a bundle is, its network's inputs tell, whatever model_index.json calls it.

use crate::bundle::manifest::Manifest;
use crate::bundle::signature::{Role, Signature};
use crate::inference::session::Tensor;
use crate::inference::session_pool::PooledSession;
use crate::model::predictor::EvaluationError;

pub(crate) use crate::bundle::latent_components::open;
use crate::bundle::latent_components::{LatentComponents, PipelineKind};

use super::text_encoder::{Embedding, Layer, TextEncoder, beside, one_after_the_other};
use super::vae::{self, Posterior};
use crate::bundle::preview_projection::Projection;

/// A job that a pipeline can't prepare or finish.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// A graph.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A prompt.
    #[error("the prompt can't be tokenized: {0}")]
    Tokens(String),
    /// Layers before the last one are not in the graph.
    #[error(
        "clip_skip can't be served: the text encoder's graph gives its last layer only, as optimum exports it for this family"
    )]
    NoLayers,
    /// More layers are to be skipped than there are.
    #[error("clip_skip is {asked}, but the text encoder has no more than {most} layers to skip")]
    Layers {
        /// As asked for.
        asked: usize,
        /// The most.
        most: usize,
    },
    /// A network that is told a picture and its mask, and a job without them.
    #[error("this network fills in parts of a picture: give image and mask")]
    NoPicture,
    /// A part that the bundle lacks.
    #[error("the bundle has no {0}, which this job needs")]
    Lacks(&'static str),
}

/// What a job tells the pipeline's text encoders and its network.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConditioning {
    /// For the first encoder, and for the second one where that has its own.
    pub prompt: [String; 2],
    /// The same for what is not wanted; none was said where it is `None`.
    pub negative: Option<[String; 2]>,
    /// How many of CLIP's last layers are left out.
    pub clip_skip: Option<usize>,
    /// How many tokens T5 takes.
    pub max_sequence_length: Option<usize>,
    /// The weight of guidance.
    pub guidance: f64,
    /// Whether the network is evaluated without the prompt too.
    pub guided: bool,
    /// SDXL's height and width of the original, top and left of the crop, height and width of the target.
    pub sizes: [f32; 6],
}

/// What the network is fed beside samples and times, in the order of its signature.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// With the prompt.
    pub with: Vec<Tensor>,
    /// Without it, where there is guidance.
    pub without: Vec<Tensor>,
    /// What of the prompts found no room.
    pub cut: Vec<String>,
}

/// The text encoders and the autoencoder of a pipeline.
pub struct LatentPipeline {
    /// What the bundle's files say.
    pub bundle: LatentComponents,
    /// Which pipeline it is.
    pub family: PipelineKind,
    pub(crate) texts: Vec<TextEncoder>,
    pub(crate) decoder: Option<PooledSession>,
    pub(crate) encoder: Option<PooledSession>,
    /// The longest side in pixels that the autoencoder works on at once.
    pub(crate) tile: Option<usize>,
    /// Whether memory allows any of these graphs to be open beside the network.
    pub overlaps: bool,
}

impl std::fmt::Debug for LatentPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latent").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

/// A prompt as the network takes it.
struct PromptEmbeddings {
    rows: Tensor,
    pooled: Vec<f32>,
    cut: Vec<String>,
}

impl LatentPipeline {
    /// What the network is fed for a wish, for samples of this shape.
    pub fn conditions(
        &self,
        wish: &TextConditioning,
        signature: &Signature,
        shape: &[usize],
    ) -> Result<Conditions, LatentError> {
        let with = self.understand(&wish.prompt, wish.clip_skip, wish)?;
        let mut conditions = Conditions { cut: with.cut.clone(), ..Conditions::default() };
        if wish.guided {
            let without = match &wish.negative {
                None if self.bundle.zeros_for_none && self.family == PipelineKind::StableDiffusionXl => {
                    PromptEmbeddings {
                        rows: Tensor::zeros(with.rows.shape.clone()),
                        pooled: vec![0.0; with.pooled.len()],
                        cut: Vec::new(),
                    }
                }
                None => self.understand(&[String::new(), String::new()], None, wish)?,
                Some(negative) => self.understand(negative, None, wish)?,
            };
            conditions.cut.extend(without.cut.iter().cloned());
            conditions.without = tensors(&without, wish, signature, shape);
        }
        conditions.with = tensors(&with, wish, signature, shape);
        Ok(conditions)
    }

    fn understand(
        &self,
        prompt: &[String; 2],
        clip_skip: Option<usize>,
        wish: &TextConditioning,
    ) -> Result<PromptEmbeddings, LatentError> {
        let skip = clip_skip.unwrap_or(0);
        let family = self.family;
        let t5_length = wish.max_sequence_length.unwrap_or(family.sequence_length());
        let encode = |which: usize, layer: Layer| -> Result<Embedding, LatentError> {
            let text = &self.texts[which];
            let length = if which == family.t5() { t5_length } else { text.tokenizer.length };
            text.encode(&prompt[which.min(1)], layer, length)
        };
        let (rows, pooled, cut) = match family {
            PipelineKind::StableDiffusion => {
                let layer = if skip == 0 { Layer::Last } else { Layer::Before(skip) };
                let only = encode(0, layer)?;
                (only.rows, Vec::new(), vec![only.cut])
            }
            PipelineKind::StableDiffusionXl => {
                let all = (0..self.bundle.texts.len())
                    .map(|which| encode(which, Layer::Before(1 + skip)))
                    .collect::<Result<Vec<_>, _>>()?;
                let rows = beside(&all.iter().map(|one| &one.rows).collect::<Vec<_>>());
                let pooled = all.last().map(|last| last.pooled.clone()).unwrap_or_default();
                (rows, pooled, all.into_iter().map(|one| one.cut).collect())
            }
            PipelineKind::StableDiffusion3 => {
                let first = encode(0, Layer::Before(1 + skip))?;
                let second = encode(1, Layer::Before(1 + skip))?;
                let clip = beside(&[&first.rows, &second.rows]);
                let third = if self.bundle.texts.len() > 2 { Some(encode(2, Layer::Last)?) } else { None };
                let (t5, third_cut) = match third {
                    Some(third) => (third.rows, third.cut),
                    None => {
                        (Tensor::zeros([t5_length, self.bundle.text_width.unwrap_or(clip.shape[1])]), None)
                    }
                };
                let pooled = [first.pooled, second.pooled].concat();
                (one_after_the_other(&clip, &t5), pooled, vec![first.cut, second.cut, third_cut])
            }
            PipelineKind::Flux => {
                let clip = encode(0, Layer::Last)?;
                let t5 = encode(1, Layer::Last)?;
                // CLIP's one vector is cut as a matter of course where T5 has room.
                (t5.rows, clip.pooled, vec![t5.cut])
            }
        };
        let mut cut: Vec<String> = cut.into_iter().flatten().collect();
        cut.dedup();
        Ok(PromptEmbeddings { rows, pooled, cut })
    }

    /// The picture [3, H, W] in −1..1 of a finished sample.
    pub fn decode(&self, sample: &[f32], shape: &[usize]) -> Result<Tensor, LatentError> {
        let decoder = self.decoder.as_ref().ok_or(LatentError::Lacks("vae_decoder"))?;
        vae::decode(decoder, self.bundle.vae, sample, shape, self.tile)
    }

    /// Where the latents of a picture [3, H, W] in −1..1 lie.
    pub fn encode(&self, picture: &Tensor) -> Result<Posterior, LatentError> {
        let encoder = self.encoder.as_ref().ok_or(LatentError::Lacks("vae_encoder"))?;
        vae::encode(encoder, self.bundle.vae, picture, self.tile)
    }

    /// What latents look like, where that is known.
    pub fn shown(&self, latent: &[f32], shape: &[usize], manifest: &Manifest) -> Option<Tensor> {
        let projection = manifest.preview.clone().or_else(|| Projection::of(self.family))?;
        (projection.factors.len() == shape[0]).then(|| projection.apply(latent, shape))
    }

    /// Whether pictures can be turned into latents.
    pub fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }
}

/// What each of the network's inputs is filled with.
fn tensors(
    text: &PromptEmbeddings,
    wish: &TextConditioning,
    signature: &Signature,
    shape: &[usize],
) -> Vec<Tensor> {
    let tensor = |role: Role, width: Option<usize>| match role {
        Role::Text => text.rows.clone(),
        Role::Pooled => Tensor::new([text.pooled.len()], text.pooled.clone()),
        Role::TimeIds => Tensor::new([6], wish.sizes.to_vec()),
        Role::GuidanceEmbedding => {
            let width = width.unwrap_or(256);
            Tensor::new([width], guidance_embedding(wish.guidance - 1.0, width))
        }
        Role::Guidance => Tensor::new([], vec![wish.guidance as f32]),
        Role::TextIds => Tensor::zeros([text.rows.shape[0], 3]),
        Role::ImageIds => picture_places(shape),
    };
    let inputs = signature.tensors.iter();
    inputs.map(|input| tensor(input.role, input.shape.first().and_then(|axis| axis.length()))).collect()
}

/// The weight w as the network of a latent consistency model takes it: sines and cosines of 1000·w
/// (Luo et al. 2023, section 4.3; Vaswani et al. 2017).
fn guidance_embedding(w: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = (10_000.0_f32).ln() / (half.max(2) - 1) as f32;
    let angle = |i: usize| 1000.0 * w as f32 * (-step * i as f32).exp();
    let sines = (0..half).map(|i| angle(i).sin());
    let cosines = (0..half).map(|i| angle(i).cos());
    sines.chain(cosines).chain(std::iter::repeat_n(0.0, width % 2)).collect()
}

/// Row and column of each patch of a latent whose patches are two by two.
fn picture_places(shape: &[usize]) -> Tensor {
    let (height, width) = (shape[1] / 2, shape[2] / 2);
    let place = |i: usize| [0.0, (i / width) as f32, (i % width) as f32];
    Tensor::new([height * width, 3], (0..height * width).flat_map(place).collect())
}
