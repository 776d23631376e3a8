//! ONNX Runtime through `ort`, loaded at run time.

mod proof;
mod session;

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use super::EngineOptions;
use super::bundle::Bundle;
use super::graph::{Axis, Element, Graph, Port};
use super::library::Runtime;
use super::predictor::{Batch, EvaluationError, Origin, Predictor};
use super::providers::Provider;
use super::signature::{Signature, SignatureError, TimeShape};

pub(super) use session::open;

const ENGINE: &str = "onnxruntime";
const WAY_OUT: &str = "If it names an operator or version that is unknown, use a newer ONNX \
    Runtime or export the model at opset 17; if the file is damaged, export it again";

/// A graph opened by ONNX Runtime.
pub(super) struct OnnxRuntime {
    session: Session,
    signature: Signature,
    origin: Origin,
    columns: Columns,
}

impl OnnxRuntime {
    fn new(
        session: Session,
        runtime: &Runtime,
        bundle: &Bundle,
        options: &EngineOptions,
        provider: Provider,
    ) -> Result<Self, SignatureError> {
        let signature = signature(&session, bundle, options)?;
        let origin = Origin::new(ENGINE, runtime.version.clone(), provider.to_string());
        Ok(Self { session, columns: Columns::new(&signature), signature, origin })
    }
}

/// How a session's graph is fed.
fn signature(
    session: &Session,
    bundle: &Bundle,
    options: &EngineOptions,
) -> Result<Signature, SignatureError> {
    let graph = Graph {
        inputs: session.inputs().iter().map(port).collect(),
        outputs: session.outputs().iter().map(port).collect(),
    };
    Signature::resolve(&graph, &bundle.manifest, bundle.network, options.batch)
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

impl Predictor for OnnxRuntime {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let signature = &self.signature;
        let n = batch.len();
        let one_time = signature.time.shape != TimeShape::Each;
        self.columns.fill(batch, one_time);
        let mut shape = vec![n];
        shape.extend(&signature.sample_shape);
        let columns = &self.columns;
        let mut inputs = vec![
            (signature.sample.as_str(), columns.sample.tensor(&shape)?),
            (
                signature.time.name.as_str(),
                match signature.time.shape {
                    TimeShape::Scalar => columns.time.tensor(&[])?,
                    TimeShape::One => columns.time.tensor(&[1])?,
                    TimeShape::Each => columns.time.tensor(&[n])?,
                },
            ),
        ];
        if let Some((name, _)) = &signature.class {
            inputs.push((name, columns.class.tensor(&[n])?));
        }
        for ((name, _), column) in signature.conditions.iter().zip(&columns.conditions) {
            inputs.push((name, column.tensor(&[n])?));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let value = &outputs[signature.output.as_str()];
        output.clear();
        if let Ok((_, data)) = value.try_extract_tensor::<f32>() {
            output.extend_from_slice(data);
            Ok(())
        } else if let Ok((_, data)) = value.try_extract_tensor::<f16>() {
            output.extend(data.iter().map(|x| x.to_f32()));
            Ok(())
        } else {
            Err(EvaluationError::OutputType)
        }
    }
}

fn failed<R>(error: ort::Error<R>) -> EvaluationError {
    EvaluationError::Engine { engine: ENGINE, reason: error.to_string() }
}

/// The batch in the graph's own types, in buffers that are used again.
#[derive(Debug)]
struct Columns {
    sample: Column,
    time: Column,
    class: Column,
    conditions: Vec<Column>,
}

#[derive(Debug)]
enum Column {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
}

impl Columns {
    fn new(signature: &Signature) -> Self {
        let class = signature.class.as_ref();
        Self {
            sample: Column::new(signature.sample_element),
            time: Column::new(signature.time.element),
            class: Column::new(class.map_or(Element::I64, |(_, element)| *element)),
            conditions: signature.conditions.iter().map(|(_, element)| Column::new(*element)).collect(),
        }
    }

    fn fill(&mut self, batch: &Batch, one_time: bool) {
        self.sample.fill(batch.samples.iter().map(|&x| f64::from(x)));
        let times = if one_time { &batch.times[..1] } else { &batch.times };
        self.time.fill(times.iter().copied());
        self.class.fill(batch.classes.iter().map(|&class| class as f64));
        for (column, values) in self.conditions.iter_mut().zip(&batch.conditions) {
            column.fill(values.iter().map(|&x| f64::from(x)));
        }
    }
}

impl Column {
    fn new(element: Element) -> Self {
        match element {
            Element::F32 | Element::Other => Self::F32(Vec::new()),
            Element::F16 => Self::F16(Vec::new()),
            Element::I64 => Self::I64(Vec::new()),
            Element::I32 => Self::I32(Vec::new()),
        }
    }

    /// Whole numbers are cut, not rounded, as the reference's exports do.
    fn fill(&mut self, values: impl Iterator<Item = f64>) {
        match self {
            Self::F32(buffer) => refill(buffer, values.map(|x| x as f32)),
            Self::F16(buffer) => refill(buffer, values.map(f16::from_f64)),
            Self::I64(buffer) => refill(buffer, values.map(|x| x as i64)),
            Self::I32(buffer) => refill(buffer, values.map(|x| x as i32)),
        }
    }

    fn tensor<'a>(&'a self, shape: &[usize]) -> Result<SessionInputValue<'a>, EvaluationError> {
        fn view<'a, T>(shape: &[usize], data: &'a [T]) -> Result<SessionInputValue<'a>, ort::Error>
        where
            T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
        {
            Ok(TensorRef::from_array_view((shape.to_vec(), data))?.into())
        }
        match self {
            Self::F32(data) => view(shape, data),
            Self::F16(data) => view(shape, data),
            Self::I64(data) => view(shape, data),
            Self::I32(data) => view(shape, data),
        }
        .map_err(failed)
    }
}

fn refill<T>(buffer: &mut Vec<T>, values: impl Iterator<Item = T>) {
    buffer.clear();
    buffer.extend(values);
}
