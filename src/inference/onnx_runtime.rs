//! ONNX Runtime through `ort`, loaded at run time.

mod cuda_graph;
pub(crate) mod dylib;
mod io_binding;
mod profile;
mod session_builder;
mod values;

use ort::value::{TensorElementType, ValueType};

use crate::inference::session::{Input, Session};
use crate::model::predictor::EvaluationError;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

use cuda_graph::Captured;
use io_binding::Kinds;

pub(crate) use session_builder::open;

const ENGINE: &str = "onnxruntime";
const WAY_OUT: &str = "If it names an operator or version that is unknown, use a newer ONNX \
    Runtime or export the model at opset 17; if the file is damaged, export it again";

/// A graph opened by ONNX Runtime.
pub(crate) struct OnnxRuntime {
    /// Dropped before the session, whose memory they may be.
    buffers: Buffers,
    session: ort::session::Session,
    graph: GraphIo,
}

/// What a session's inputs and outputs lie in.
enum Buffers {
    /// Memory of the processor's.
    Bound(Kinds),
    /// Memory of the GPU's, where a captured graph finds them.
    Captured(Box<Captured>),
}

impl OnnxRuntime {
    /// With buffers `pinned` to memory where a GPU reads by itself.
    fn new(session: ort::session::Session, pinned: bool) -> Self {
        let graph = described(&session);
        Self { session, graph, buffers: Buffers::Bound(Kinds::new(pinned)) }
    }

    /// With buffers on a GPU, for a provider that captures a run there and replays it.
    fn captured(session: ort::session::Session, device: i32) -> Result<Self, String> {
        let graph = described(&session);
        let captured = Captured::new(&session, &graph, device)?;
        Ok(Self { session, graph, buffers: Buffers::Captured(Box::new(captured)) })
    }
}

fn described(session: &ort::session::Session) -> GraphIo {
    GraphIo {
        inputs: session.inputs().iter().map(port).collect(),
        outputs: session.outputs().iter().map(port).collect(),
    }
}

fn port(outlet: &ort::value::Outlet) -> ValueInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            match ty {
                TensorElementType::Float32 => DataType::F32,
                TensorElementType::Float16 => DataType::F16,
                TensorElementType::Int64 => DataType::I64,
                TensorElementType::Int32 => DataType::I32,
                _ => DataType::Other,
            },
            shape.iter().map(|&n| usize::try_from(n).map_or(Dim::Dynamic, Dim::Fixed)).collect(),
        ),
        _ => (DataType::Other, Vec::new()),
    };
    ValueInfo { name: outlet.name().to_owned(), element, shape }
}

impl Session for OnnxRuntime {
    fn graph(&self) -> &GraphIo {
        &self.graph
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let Self { buffers, session, graph } = self;
        match buffers {
            Buffers::Bound(kinds) => kinds.run(session, graph, inputs, names, outputs),
            Buffers::Captured(captured) => captured.run(session, graph, inputs, names, outputs),
        }
    }
}

fn failed<R>(error: ort::Error<R>) -> EvaluationError {
    EvaluationError::Engine { engine: ENGINE, reason: error.to_string() }
}
