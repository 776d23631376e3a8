//! ONNX Runtime through `ort`, loaded at run time.

mod open;
mod proof;

use half::f16;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use super::graph::{Axis, Element, Graph, Port};
use super::predictor::EvaluationError;
use super::session::{Column, Input, Session, fill};

pub(super) use open::open;

const ENGINE: &str = "onnxruntime";
const WAY_OUT: &str = "If it names an operator or version that is unknown, use a newer ONNX \
    Runtime or export the model at opset 17; if the file is damaged, export it again";

/// A graph opened by ONNX Runtime.
pub(super) struct OnnxRuntime {
    session: ort::session::Session,
    graph: Graph,
    /// A buffer for each of the graph's inputs.
    columns: Vec<Column>,
}

impl OnnxRuntime {
    fn new(session: ort::session::Session) -> Self {
        let graph = Graph {
            inputs: session.inputs().iter().map(port).collect(),
            outputs: session.outputs().iter().map(port).collect(),
        };
        let columns = graph.inputs.iter().map(|port| Column::new(port.element)).collect();
        Self { session, graph, columns }
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
        let known = fill(&self.graph, &mut self.columns, inputs);
        let fed = known.iter().map(|(place, input)| {
            Ok::<_, EvaluationError>((input.name, tensor(&self.columns[*place], &input.shape)?))
        });
        let fed = fed.collect::<Result<Vec<_>, _>>()?;
        let found = self.session.run(fed).map_err(failed)?;
        let read = |(name, output): (&&str, &mut Vec<f32>)| read(&found[*name], output);
        names.iter().zip(outputs).map(read).collect()
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

fn tensor<'a>(column: &'a Column, shape: &[usize]) -> Result<SessionInputValue<'a>, EvaluationError> {
    fn view<'a, T>(shape: &[usize], data: &'a [T]) -> Result<SessionInputValue<'a>, ort::Error>
    where
        T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
    {
        Ok(TensorRef::from_array_view((shape.to_vec(), data))?.into())
    }
    match column {
        Column::F32(data) => view(shape, data),
        Column::F16(data) => view(shape, data),
        Column::I64(data) => view(shape, data),
        Column::I32(data) => view(shape, data),
    }
    .map_err(failed)
}
