//! Why a graph cannot be loaded or evaluated.

use std::path::PathBuf;

use super::library_error::LibraryError;
use super::provider::Provider;
use crate::onnx::OnnxError;

/// A graph that no engine can serve.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot load the graph.
    #[error("{engine} cannot load {graph}: {reason}. {hint}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// The file of the graph.
        graph: PathBuf,
        /// The engine's message.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The files of the graph.
    #[error(transparent)]
    Files(#[from] OnnxError),
    /// ONNX Runtime's library is missing or cannot be loaded.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A required provider does not work.
    #[error(
        "the execution provider {provider} is required but does not work here: {failure}. {} [engine] policy = \
         \"preferred\" to let the next provider serve",
        failure.hint()
    )]
    Provider {
        /// The provider.
        provider: Provider,
        /// Why it does not work.
        failure: ProviderFailure,
    },
    /// No configured provider works.
    #[error(
        "none of [engine] providers works here; {provider}, the last of them: {failure}. Add \"cpu\" to [engine] providers to \
         let the processor serve"
    )]
    NoProvider {
        /// The last provider.
        provider: Provider,
        /// Why it does not work.
        failure: ProviderFailure,
    },
    /// The digest of the graph, which a provider's engine is kept under.
    #[error(transparent)]
    Digest(Box<dyn std::error::Error + Send + Sync>),
    /// The first evaluation, made while loading, failed.
    #[error("{graph}: the first evaluation failed: {error}")]
    Warmup {
        /// The file of the graph.
        graph: PathBuf,
        /// The cause.
        error: EvaluationError,
    },
    /// A file or directory that loading needs cannot be read or written. This is no fault of a provider, so that no
    /// other provider is tried.
    #[error("cannot {operation} {path}: {error}. {hint}")]
    Io {
        /// The operation that failed, as a verb with its object.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// Why an execution provider does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderFailure {
    /// ONNX Runtime's library does not contain the provider.
    #[error("the library of ONNX Runtime {version} was built without it")]
    NotCompiledIn {
        /// The version of the library.
        version: String,
    },
    /// No library of ONNX Runtime was found.
    #[error(
        "no ONNX Runtime library was found in [engine] library, ORT_DYLIB_PATH, /usr/lib/denoised or the loader's path"
    )]
    NoLibrary,
    /// The provider cannot be registered, or cannot run the graph.
    #[error("{0}")]
    Failed(String),
}

impl ProviderFailure {
    /// The beginning of the advice that ends in a key of the configuration.
    fn hint(&self) -> &'static str {
        match self {
            Self::NoLibrary => "Name libonnxruntime.so.X.Y.Z in one of them, or set",
            Self::NotCompiledIn { .. } => "Install a library of ONNX Runtime that has it, or set",
            Self::Failed(reason) if reason.contains("cannot open shared object file") => {
                "Install the missing library, or set"
            }
            Self::Failed(_) => "Set",
        }
    }
}

/// An evaluation that failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The engine reported an error.
    #[error("{engine}: {reason}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// The engine's message.
        reason: String,
    },
    /// The output has neither one nor two values per value of the samples.
    #[error(
        "the output has {found} values, but {expected} or twice as many are needed; export the model again"
    )]
    OutputLength {
        /// The number of values of the samples.
        expected: usize,
        /// The number of values of the output.
        found: usize,
    },
    /// The session cannot be opened, or no provider runs it.
    #[error(transparent)]
    Open(Box<EngineError>),
    /// The session was removed from its pool.
    #[error("the session was closed because its model was replaced")]
    Closed,
    /// The output has an unexpected shape.
    #[error("the output {output} has the axes {found:?}, but {expected} are needed; export the model again")]
    OutputShape {
        /// The output.
        output: String,
        /// The shape that is needed.
        expected: String,
        /// The shape that it has.
        found: Vec<usize>,
    },
    /// The output has an unsupported type.
    #[error("the output is not a float tensor; export the model again with float32 or float16 outputs")]
    OutputType,
}

impl EvaluationError {
    /// An error that an engine reported.
    pub(super) fn engine(engine: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Engine { engine, reason: reason.to_string() }
    }
}
