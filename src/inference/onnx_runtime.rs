//! ONNX Runtime through `ort`, whose library is loaded at run time. No other module uses `ort`.

mod build_progress;
mod commit;
mod cuda_graph;
mod dylib;
mod execution_provider;
mod io_binding;
mod library_file;
mod loaded_library;
mod messages;
mod preparation;
mod profile;
mod proof;
mod provider_selection;
mod selected_session;
mod session_builder;
mod values;

use ort::session::RunOptions;
use ort::sys::ONNXTensorElementDataType;
use ort::value::ValueType;

use super::backend::Backend;
use super::engine_cache::EntryLock;
use super::error::EvaluationError;
use super::load_advice::{self, with_advice};
use super::prepared_graph::Prepared;
use super::provider::Provider;
use super::session::{Input, Session};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
use cuda_graph::CudaGraphBuffers;
use io_binding::IoBindingCache;
use messages::message;

pub(super) use dylib::{Runtime, is_at_least, load_if_present, load_required};
pub(super) use execution_provider::is_compiled_in;
pub(super) use selected_session::open;

pub(super) const ENGINE: &str = "onnxruntime";

/// The backend of a graph on a provider, of which no profile exists yet.
pub(super) fn backend(runtime: &Runtime, provider: Option<Provider>) -> Backend {
    let provider = provider.unwrap_or(Provider::Cpu).to_string();
    Backend::new(ENGINE, runtime.version.clone(), provider)
}

/// A graph opened by ONNX Runtime.
struct OnnxRuntimeSession {
    /// Dropped before the session, whose memory the buffers may be.
    buffers: Buffers,
    session: ort::session::Session,
    graph: GraphIo,
    /// Keeps the entry of the engine cache from which weights are mapped.
    _entry: Option<EntryLock>,
}

/// The memory of a session's inputs and outputs.
enum Buffers {
    /// In host memory.
    Host(IoBindingCache),
    /// In the GPU's memory, at the addresses that a captured CUDA graph uses.
    CudaGraph(Box<CudaGraphBuffers>),
}

impl OnnxRuntimeSession {
    /// With buffers in host memory. They are `pinned` if a GPU reads them without a copy.
    fn new(session: ort::session::Session, pinned: bool, options: RunOptions) -> Self {
        let graph = graph_io(&session);
        let buffers = Buffers::Host(IoBindingCache::new(pinned, options));
        Self { session, graph, buffers, _entry: None }
    }

    /// With buffers on a GPU, for a provider that captures CUDA graphs.
    fn with_cuda_graph(session: ort::session::Session, device: i32) -> Result<Self, String> {
        let graph = graph_io(&session);
        let buffers = CudaGraphBuffers::new(&session, &graph, device)?;
        Ok(Self { session, graph, buffers: Buffers::CudaGraph(Box::new(buffers)), _entry: None })
    }

    /// Protects the entry of a prepared graph from eviction as long as the session is open.
    fn protecting(self, prepared: Option<Prepared>) -> Self {
        Self { _entry: prepared.and_then(|prepared| prepared.lock), ..self }
    }
}

fn graph_io(session: &ort::session::Session) -> GraphIo {
    GraphIo {
        inputs: session.inputs().iter().map(value_info).collect(),
        outputs: session.outputs().iter().map(value_info).collect(),
    }
}

fn value_info(outlet: &ort::value::Outlet) -> ValueInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            // Both number the types alike up to FLOAT4E2M1.
            DataType::from_onnx(ONNXTensorElementDataType::from(*ty) as i32),
            shape.iter().map(|&n| usize::try_from(n).map_or(Dim::Dynamic, Dim::Fixed)).collect(),
        ),
        _ => (DataType::from_onnx(0), Vec::new()),
    };
    ValueInfo { name: outlet.name().to_owned(), element, shape }
}

impl Session for OnnxRuntimeSession {
    fn graph(&self) -> &GraphIo {
        &self.graph
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let Self { buffers, session, graph, .. } = self;
        match buffers {
            Buffers::Host(cache) => cache.run(session, graph, inputs, names, outputs),
            Buffers::CudaGraph(buffers) => buffers.run(session, graph, inputs, names, outputs),
        }
    }
}

fn failed<R>(error: ort::Error<R>) -> EvaluationError {
    let reason = message(&error.to_string());
    EvaluationError::engine(ENGINE, with_advice(&reason, load_advice::evaluation(&reason)))
}
