//! Why a model cannot be loaded.

use std::path::PathBuf;

use super::tokenizer::TokenizerError;
use crate::bundle::{BundleError, SignatureError};
use crate::inference::{EngineError, EvaluationError};

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files of the bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The inputs or outputs of the graph.
    #[error("{graph}: {error}")]
    Signature {
        /// The file of the graph.
        graph: PathBuf,
        /// The fault.
        error: SignatureError,
    },
    /// The engine cannot serve a graph.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A tokenizer of the bundle.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The bundle has too few text encoders.
    #[error(
        "{name}: its network takes a prompt, so that {needed} text encoders are needed and {found} are there; \
         export the whole pipeline: text_encoder/model.onnx and tokenizer/, their siblings with _2 and _3, and \
         vae_decoder/"
    )]
    MissingTextEncoders {
        /// The bundle.
        name: String,
        /// The number of text encoders that are needed.
        needed: usize,
        /// The number of text encoders in the bundle.
        found: usize,
    },
}

/// A job that the pipeline cannot prepare or finish.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// A graph could not be evaluated.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The prompt cannot be tokenized.
    #[error("the prompt cannot be tokenized: {0}")]
    Tokens(String),
    /// The text encoder's graph has no outputs for the layers before the last.
    #[error(
        "clip_skip is not supported: the text encoder's graph has its last layer as its only output, as optimum exports \
         it for this kind of pipeline; remove clip_skip"
    )]
    NoLayers,
    /// The job skips more layers than the text encoder has.
    #[error("clip_skip is {requested}, but the text encoder has {max} layers to skip; use {max} or less")]
    Layers {
        /// The requested number.
        requested: usize,
        /// The largest number.
        max: usize,
    },
    /// The network does inpainting, and the job has no image or no mask.
    #[error("this network fills in parts of an image: give image and mask")]
    MissingImage,
    /// The bundle lacks a component.
    #[error("the bundle has no {0}, which this job needs")]
    MissingComponent(&'static str),
}
