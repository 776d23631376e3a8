//! ONNX Runtime through `ort`, whose library is loaded at run time. No other module uses `ort`.

mod build_progress;
mod capture;
mod commit;
mod cuda_graph;
mod dylib;
mod execution_provider;
mod gpu_lock;
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
mod shape_graphs;
mod values;

use std::time::Duration;

use ort::session::RunOptions;
use ort::session::Session as OrtSession;
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
use shape_graphs::ShapeGraphs;

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
    /// `None` only while it is dropped.
    open: Option<OpenSession>,
    graph: GraphIo,
    uses_gpu: bool,
    /// Keeps the entry of the engine cache from which weights are mapped.
    _entry: Option<EntryLock>,
}

struct OpenSession {
    /// Dropped before the session, whose memory the buffers may be.
    buffers: Buffers,
    session: OrtSession,
}

/// The memory of a session's inputs and outputs.
enum Buffers {
    /// In host memory.
    Host(IoBindingCache),
    /// In the GPU's memory, at the addresses that the captured CUDA graph of each shape uses.
    ShapeGraphs(Box<ShapeGraphs>),
    /// The same for the only shape of a session, whose first evaluations capture it.
    OneGraph { buffers: Box<CudaGraphBuffers>, evaluations: usize },
}

/// How many evaluations of the only shape of a session it may take until the graph is captured.
const EVALUATIONS_UNTIL_CAPTURE: usize = 3;
/// How long a capture of the only shape waits for other threads to leave the GPU. One that builds an engine does not.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(10);

impl OnnxRuntimeSession {
    /// With buffers in host memory.
    fn new(session: OrtSession, options: RunOptions) -> Self {
        Self::with_buffers(session, Buffers::Host(IoBindingCache::new(false, options)), false)
    }

    /// On a GPU, which reads pinned buffers in host memory without a copy.
    fn on_gpu(session: OrtSession, options: RunOptions) -> Self {
        Self::with_buffers(session, Buffers::Host(IoBindingCache::new(true, options)), true)
    }

    /// On a GPU with CUDA, which captures a graph of each shape that recurs.
    fn with_shape_graphs(session: OrtSession, gpu: i32) -> ort::Result<Self> {
        let graphs = ShapeGraphs::new(gpu)?;
        Ok(Self::with_buffers(session, Buffers::ShapeGraphs(Box::new(graphs)), true))
    }

    /// On a GPU, where all shapes are fixed and one graph is captured.
    fn with_one_graph(session: OrtSession, gpu: i32) -> Result<Self, String> {
        let buffers = Box::new(CudaGraphBuffers::for_graph(&session, &graph_io(&session), gpu)?);
        Ok(Self::with_buffers(session, Buffers::OneGraph { buffers, evaluations: 0 }, true))
    }

    fn with_buffers(session: OrtSession, buffers: Buffers, uses_gpu: bool) -> Self {
        let graph = graph_io(&session);
        Self { open: Some(OpenSession { buffers, session }), graph, uses_gpu, _entry: None }
    }

    /// Protects the entry of a prepared graph from eviction as long as the session is open.
    fn protecting(mut self, prepared: Option<Prepared>) -> Self {
        self._entry = prepared.and_then(|prepared| prepared.lock);
        self
    }

    /// Ends the profile, and returns the path of its file.
    fn end_profiling(&mut self) -> ort::Result<String> {
        let open = self.open.as_mut().ok_or_else(|| ort::Error::new("the session is closed"))?;
        open.session.end_profiling()
    }

    fn shape_graphs(&self) -> Option<&ShapeGraphs> {
        match &self.open.as_ref()?.buffers {
            Buffers::ShapeGraphs(graphs) => Some(graphs),
            Buffers::Host(_) | Buffers::OneGraph { .. } => None,
        }
    }
}

impl Drop for OnnxRuntimeSession {
    fn drop(&mut self) {
        // Freeing the GPU's memory would end a capture of another session.
        let _sharing = self.uses_gpu.then(gpu_lock::share);
        self.open = None;
    }
}

fn graph_io(session: &OrtSession) -> GraphIo {
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
        let Self { open, graph, uses_gpu, .. } = self;
        let OpenSession { buffers, session } = open.as_mut().ok_or(EvaluationError::Closed)?;
        match buffers {
            Buffers::Host(cache) => {
                let _sharing = uses_gpu.then(gpu_lock::share);
                cache.run(session, graph, inputs, names, outputs)
            }
            Buffers::ShapeGraphs(graphs) => graphs.run(session, graph, inputs, names, outputs),
            Buffers::OneGraph { buffers, evaluations } => {
                *evaluations = evaluations.saturating_add(1);
                let is_capturing = *evaluations <= EVALUATIONS_UNTIL_CAPTURE;
                let alone = if is_capturing { gpu_lock::exclude_others(CAPTURE_TIMEOUT) } else { None };
                let _sharing = alone.is_none().then(gpu_lock::share);
                buffers.run(session, graph, inputs, names, outputs)
            }
        }
    }
}

fn failed<R>(error: ort::Error<R>) -> EvaluationError {
    let reason = message(&error.to_string());
    EvaluationError::engine(ENGINE, with_advice(&reason, load_advice::evaluation(&reason)))
}
