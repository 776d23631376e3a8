//! A pipeline's folders: which networks stand in them, and what their configurations say.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::bundle::signature::{Role, Signature, SignatureError};
use crate::bundle::{BundleError, json, optional, sha256};
use crate::inference::load::{self, GraphSource, Warmup, WarmupError};
use crate::inference::provider::{Shapes, TensorRt};
use crate::inference::session::{Input, Session, Values};
use crate::inference::session_pool::SessionPool;
use crate::model::latent_pipeline::LatentPipeline;
use crate::model::text_encoder::TextEncoder;
use crate::model::tokenizer::Tokenizer;
use crate::model::vae::VaeConfig;
use crate::model::{EngineOptions, ModelError};
use crate::tensor::{Dim, GraphIo};

/// The pipelines that a text-to-image network may belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineKind {
    /// Stable Diffusion 1 and 2, and latent consistency models.
    StableDiffusion,
    /// SDXL.
    StableDiffusionXl,
    /// Stable Diffusion 3.
    StableDiffusion3,
    /// Flux.
    Flux,
}

impl PipelineKind {
    /// The pipeline whose network has these inputs; none for a network that takes no text.
    pub(crate) fn of(signature: &Signature) -> Option<Self> {
        let has = |role: Role| signature.tensors.iter().any(|input| input.role == role);
        if !has(Role::Text) {
            return None;
        }
        Some(match (has(Role::ImageIds), has(Role::Pooled), has(Role::TimeIds)) {
            (true, ..) => Self::Flux,
            (false, true, true) => Self::StableDiffusionXl,
            (false, true, false) => Self::StableDiffusion3,
            (false, false, _) => Self::StableDiffusion,
        })
    }

    /// The place of T5 among the text encoders, or beyond all of them.
    pub(crate) fn t5(self) -> usize {
        match self {
            Self::Flux => 1,
            Self::StableDiffusion3 => 2,
            Self::StableDiffusion | Self::StableDiffusionXl => usize::MAX,
        }
    }

    /// How many tokens T5 takes unless told.
    pub(crate) fn sequence_length(self) -> usize {
        if self == Self::Flux { 512 } else { 256 }
    }

    fn texts(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::StableDiffusion => 1..=1,
            Self::StableDiffusionXl => 1..=2,
            Self::StableDiffusion3 => 2..=3,
            Self::Flux => 2..=2,
        }
    }
}

/// What stands in a pipeline's folders.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentComponents {
    /// The text encoders' graphs and the tokenizers' folders, in order.
    pub texts: Vec<(PathBuf, PathBuf)>,
    /// The decoder's graph.
    pub decoder: Option<PathBuf>,
    /// The encoder's graph.
    pub encoder: Option<PathBuf>,
    /// The autoencoder.
    pub vae: VaeConfig,
    /// Whether a safety checker lies in the folder, which is not run.
    pub has_safety_checker: bool,
    /// Whether a negative prompt that was not given is all zeros.
    pub zeros_for_none: bool,
    /// The width of the network's text rows, where its configuration says so.
    pub text_width: Option<usize>,
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
struct EncoderFile {
    vocab_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkFile {
    joint_attention_dim: Option<usize>,
}

impl LatentComponents {
    /// Of a bundle's directory; none where nothing in it makes pictures of latents, or takes text.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, BundleError> {
        let graph =
            |folder: &str| Some(directory.join(folder).join("model.onnx")).filter(|file| file.is_file());
        let texts: Vec<_> = [
            ("text_encoder", "tokenizer"),
            ("text_encoder_2", "tokenizer_2"),
            ("text_encoder_3", "tokenizer_3"),
        ]
        .into_iter()
        .filter_map(|(encoder, tokenizer)| Some((graph(encoder)?, directory.join(tokenizer))))
        .collect();
        let (decoder, encoder) = (graph("vae_decoder"), graph("vae_encoder"));
        let Some(beside) = decoder.as_ref().or(encoder.as_ref()) else {
            return Ok(None);
        };
        let path = beside.with_file_name("config.json");
        let vae: VaeFile = read(&path)?;
        let index: IndexFile = read(&directory.join("model_index.json"))?;
        let network: NetworkFile = read(&directory.join("transformer/config.json"))?;
        let blocks = vae.block_out_channels.map_or(4, |blocks| blocks.len());
        Ok(Some(Self {
            texts,
            decoder,
            encoder,
            vae: VaeConfig {
                channels: vae.latent_channels.unwrap_or(4),
                factor: 1 << blocks.saturating_sub(1),
                scaling: vae.scaling_factor.unwrap_or(0.18215),
                shift: vae.shift_factor.unwrap_or(0.0),
            },
            has_safety_checker: graph("safety_checker").is_some(),
            zeros_for_none: index.force_zeros_for_empty_prompt.unwrap_or(true),
            text_width: network.joint_attention_dim,
        }))
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(path: &Path) -> Result<T, BundleError> {
    optional(path)?.map_or_else(|| Ok(T::default()), |text| json(path, &text))
}

/// A graph that is evaluated for one job at a time.
struct Once;

impl Warmup for Once {
    /// In a small shape: a decoder at a picture's full size takes as long as a job's.
    fn warm(&self, session: &mut dyn Session, _: bool) -> Result<(), WarmupError> {
        let graph = session.graph();
        let (Some(input), Some(output)) = (graph.inputs.first(), graph.outputs.first()) else {
            return Ok(());
        };
        let (input, output) = (input.clone(), output.name.clone());
        let is_text = input.shape.len() == 2;
        let small = |(i, axis): (usize, &Dim)| {
            axis.length().unwrap_or(if i == 0 {
                1
            } else if is_text {
                77
            } else {
                SMALL
            })
        };
        let shape: Vec<usize> = input.shape.iter().enumerate().map(small).collect();
        let zeros = vec![0.0; shape.iter().product()];
        session.run(&[Input::new(&input.name, shape, Values::F32(&zeros))], &output, &mut Vec::new())?;
        Ok(())
    }

    fn shapes(&self, _: &GraphIo, _: &TensorRt) -> Result<Option<Shapes>, SignatureError> {
        Ok(None)
    }
}

/// The height and width at which an autoencoder is tried.
const SMALL: usize = 16;

/// Lay the networks around a bundle's network on the shelf, where each is opened when it is first needed.
pub(crate) fn open(
    name: &str,
    bundle: &LatentComponents,
    signature: &Signature,
    options: &EngineOptions,
    shelf: &SessionPool,
) -> Result<Option<LatentPipeline>, ModelError> {
    let Some(family) = PipelineKind::of(signature) else {
        return Ok(None);
    };
    if !family.texts().contains(&bundle.texts.len()) {
        let found = bundle.texts.len();
        return Err(ModelError::Texts { name: name.to_owned(), needed: *family.texts().start(), found });
    }
    let part = |folder: &str, graph: &Path| {
        let (graph, options, called) = (graph.to_owned(), options.clone(), format!("{name}-{folder}"));
        let (place, label) = (graph.clone(), format!("{name}/{folder}"));
        let open = move || {
            let digest = sha256(&graph)?;
            let source = GraphSource { name: called.clone(), graph: &graph, sha256: &digest, purpose: &Once };
            load::open(&source, &options, &mut |_| {}).map(|opened| opened.session)
        };
        shelf.put(label, &place, None, Box::new(open))
    };
    let mut texts = Vec::new();
    for (which, (graph, tokenizer)) in bundle.texts.iter().enumerate() {
        let encoder = part(&format!("text_encoder_{}", which + 1), graph);
        let tokens = Tokenizer::open(tokenizer)?;
        let config: EncoderFile = read(&graph.with_file_name("config.json"))?;
        tokens.fits(tokenizer, config.vocab_size, graph)?;
        texts.push(TextEncoder::new(tokens, encoder));
    }
    let decoder = bundle.decoder.as_ref().map(|graph| part("vae_decoder", graph));
    let encoder = bundle.encoder.as_ref().map(|graph| part("vae_encoder", graph));
    let (bundle, tile) = (bundle.clone(), options.vae_tile);
    let overlaps = shelf.holds_network_and_another(name);
    Ok(Some(LatentPipeline { bundle, family, texts, decoder, encoder, tile, overlaps }))
}

impl Dim {
    /// How long it is, where the graph fixes that.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Dynamic => None,
        }
    }
}
