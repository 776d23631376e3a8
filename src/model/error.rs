//! Why a model cannot be loaded.

use std::path::PathBuf;

use super::tokenizer::TokenizerError;
use crate::bundle::{BundleError, SignatureError};
use crate::inference::{EngineError, EvaluationError, MemoryBounds};
use crate::units::binary_size;

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
    /// The graphs of the bundle do not fit together.
    #[error("{graph}: {fault}")]
    Mismatch {
        /// The file of the graph.
        graph: PathBuf,
        /// The fault, and what to do.
        fault: String,
    },
    /// The network is larger than the memory that is left.
    #[error(
        "{name}: its network needs {} of memory, but there are {bounds}; raise that limit, close other programs, or \
         use a smaller model. [engine] memory = \"none\" turns this check off",
        binary_size(*bytes)
    )]
    Memory {
        /// The bundle.
        name: String,
        /// The memory of the open network in bytes.
        bytes: u64,
        /// What bounds the memory.
        bounds: MemoryBounds,
    },
    /// A tokenizer of the bundle.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The network takes a part of a prompt, but no text embeddings.
    #[error(
        "{graph}: it takes {input}, but has no input for the text embeddings, such as encoder_hidden_states; name that input \
         in denoised.toml: [graph] text"
    )]
    NoTextInput {
        /// The file of the graph.
        graph: PathBuf,
        /// The input that a prompt fills.
        input: String,
    },
    /// The inputs of the network are those of several families.
    #[error(
        "{graph}: several families of models have these inputs; name the class of the pipeline in model_index.json, such as \
         \"_class_name\": \"SanaPipeline\""
    )]
    UnknownFamily {
        /// The file of the graph.
        graph: PathBuf,
    },
    /// The bundle has more text encoders than the pipeline.
    #[error(
        "{name}: it has {found} text encoders, but the pipeline of its network has {max}; remove the folders of the last \
         ones, or export the whole pipeline"
    )]
    TooManyTextEncoders {
        /// The bundle.
        name: String,
        /// The number of text encoders in the bundle.
        found: usize,
        /// The number of text encoders of the pipeline.
        max: usize,
    },
}

impl ModelError {
    /// The error of a model that `models.paths` names. It begins with that key if the path is no model's directory.
    pub(crate) fn of_configured_model(&self) -> String {
        match self {
            Self::Bundle(BundleError::NoDirectory(_) | BundleError::Missing { .. }) => {
                format!("models.paths: {self}")
            }
            _ => self.to_string(),
        }
    }
}

/// A job that the pipeline cannot prepare or finish.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// A graph could not be evaluated.
    #[error("{component}: {error}")]
    Evaluation {
        /// The graph's directory in the bundle, with what it was fed with if the engine failed.
        component: String,
        /// The cause.
        error: EvaluationError,
    },
    /// A graph could not be opened.
    #[error(transparent)]
    Session(EvaluationError),
    /// A graph's output contains NaN or infinity.
    #[error(
        "{component}: its output {output} contains NaN or infinity; if the graph is in float16, try one in float32"
    )]
    NonFinite {
        /// The graph's directory in the bundle.
        component: String,
        /// The output.
        output: String,
    },
    /// An autoencoder's output does not have the axes that its configuration means.
    #[error(
        "{component}: its output {output} has the axes {found:?}, but latent_channels and block_out_channels in its \
         config.json mean {expected}; correct the keys, or export it again"
    )]
    Autoencoder {
        /// The graph's directory in the bundle.
        component: String,
        /// The output.
        output: String,
        /// The axes that are needed.
        expected: String,
        /// The axes that it has.
        found: Vec<usize>,
    },
    /// The embeddings of a prompt are not what the network takes.
    #[error(
        "the text encoders give {found:?} for each prompt, but the network's input {input} takes other axes; they are not \
         of one model, so export the whole pipeline again"
    )]
    Embeddings {
        /// The network's input with its type and axes.
        input: String,
        /// The axes of the embeddings.
        found: Vec<usize>,
    },
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
