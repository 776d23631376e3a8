//! ONNX Runtime through `ort`, loaded at run time.

mod bound;
mod open;
mod proof;

use half::f16;
use ort::value::{DynValue, TensorElementType, ValueType};

use super::graph::{Axis, Element, Graph, Port};
use super::predictor::EvaluationError;
use super::session::{Input, Session};

use bound::Bound;

pub(super) use open::open;

const ENGINE: &str = "onnxruntime";
const WAY_OUT: &str = "If it names an operator or version that is unknown, use a newer ONNX \
    Runtime or export the model at opset 17; if the file is damaged, export it again";

/// A graph opened by ONNX Runtime.
pub(super) struct OnnxRuntime {
    /// Buffers for the kinds of batches that came last, the newest first; dropped before the session.
    bound: Vec<Bound>,
    session: ort::session::Session,
    graph: Graph,
    /// Whether buffers lie in memory that a GPU reads by itself.
    pinned: bool,
}

/// How many kinds of batches have their buffers, and how many bytes those but the last one's may take: a network's are
/// small, a decoder's are not.
const KINDS: usize = 8;
const KEPT_BYTES: usize = 16 << 20;

impl OnnxRuntime {
    fn new(session: ort::session::Session, pinned: bool) -> Self {
        let graph = Graph {
            inputs: session.inputs().iter().map(port).collect(),
            outputs: session.outputs().iter().map(port).collect(),
        };
        Self { session, graph, bound: Vec::with_capacity(KINDS), pinned }
    }

    /// The buffers for such a batch, to be put back among the others.
    fn buffers(&mut self, inputs: &[Input<'_>], names: &[&str]) -> Result<Bound, ort::Error> {
        match self.bound.iter().position(|bound| bound.serves(&self.graph, inputs, names)) {
            Some(place) => Ok(self.bound.remove(place)),
            None => Bound::new(&self.session, &self.graph, inputs, names, self.pinned),
        }
    }
}

fn port(outlet: &ort::value::Outlet) -> Port {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            match ty {
                TensorElementType::Float32 => Element::F32,
                TensorElementType::Float16 => Element::F16,
                TensorElementType::Int64 => Element::I64,
                TensorElementType::Int32 => Element::I32,
                _ => Element::Other,
            },
            shape.iter().map(|&n| usize::try_from(n).map_or(Axis::Free, Axis::Fixed)).collect(),
        ),
        _ => (Element::Other, Vec::new()),
    };
    Port { name: outlet.name().to_owned(), element, shape }
}

impl Session for OnnxRuntime {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let mut bound = self.buffers(inputs, names).map_err(failed)?;
        let found = bound.run(&mut self.session, &self.graph, inputs).map_err(failed)?;
        let read = |(name, output): (&&str, &mut Vec<f32>)| read(&found[*name], output);
        let shapes = names.iter().zip(outputs).map(read).collect::<Result<Vec<_>, _>>()?;
        drop(found);
        bound.settle(&self.session, &self.graph, &shapes, self.pinned).map_err(failed)?;
        // Where something failed the buffers are left away: what is wrong may be theirs.
        self.bound.truncate(KINDS - 1);
        while self.bound.iter().map(Bound::bytes).sum::<usize>() > KEPT_BYTES {
            self.bound.pop();
        }
        self.bound.insert(0, bound);
        Ok(shapes)
    }
}

/// An output's values in place of the buffer's, and its shape.
fn read(value: &DynValue, output: &mut Vec<f32>) -> Result<Vec<usize>, EvaluationError> {
    output.clear();
    let lengths = |shape: &ort::value::Shape| shape.iter().map(|&n| n as usize).collect();
    if let Ok((shape, data)) = value.try_extract_tensor::<f32>() {
        output.extend_from_slice(data);
        Ok(lengths(shape))
    } else if let Ok((shape, data)) = value.try_extract_tensor::<f16>() {
        output.extend(data.iter().map(|x| x.to_f32()));
        Ok(lengths(shape))
    } else {
        Err(EvaluationError::OutputType)
    }
}

fn failed<R>(error: ort::Error<R>) -> EvaluationError {
    EvaluationError::Engine { engine: ENGINE, reason: error.to_string() }
}
