//! Runs an ONNX graph on an engine and an execution provider. Knows neither diffusion nor bundles.

mod backend;
mod cuda_graphs;
mod engine_cache;
mod error;
mod graph_source;
mod library_error;
mod load;
mod load_advice;
mod memory;
mod onnx_runtime;
mod options;
mod prepared_graph;
mod provider;
mod rten;
mod session;
mod session_pool;
mod typed_buffer;

pub use backend::{Backend, ProviderShare, RejectedProvider};
pub use error::{EngineError, EvaluationError, ProviderFailure};
pub use library_error::{LibraryError, LibraryFault};
pub(crate) use library_error::{advice as library_advice, cause as library_cause};
pub use memory::{EvaluationSize, MemoryBounds, ResidentMemory, SessionMemory};
pub use options::{EngineKind, EngineOptions, Host, LoadStage, LoraOptions, OnStage};
pub use provider::{
    Arena, ConvolutionSearch, Cuda, CudaGraphMode, OpenVino, OpenVinoPrecision, Policy, Provider,
    ProviderOptions, TensorRt,
};
pub use session_pool::{SessionPool, SessionSize};

pub(crate) use cuda_graphs::{CaptureStatus, padded_batch};
pub(crate) use graph_source::{ExampleInputs, GraphDigest, GraphSource, ProvenBackend};
pub(crate) use load::{component_options, load, planned_backend};
pub(crate) use memory::MeasuredGraph;
pub(crate) use prepared_graph::{Preparation, describe as describe_preparation};
pub(crate) use provider::{InputShapes, ShapeProfile};
pub(crate) use session::{Input, Session, Values};
pub(crate) use session_pool::PooledSession;
