//! Why a model cannot be loaded.

use std::path::PathBuf;

use super::tokenizer::TokenizerError;
use crate::bundle::{BundleError, SignatureError};
use crate::inference::EngineError;

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
        #[source]
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
