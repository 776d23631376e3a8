//! The embedded engine, rten: pure Rust, nothing to install.

use rten::{DataType, Dimension, ModelOptions, NodeId, Value, ValueOrView, ValueType, ValueView};
use rten_tensor::prelude::*;

use super::ModelError;
use super::bundle::Bundle;
use super::graph::{Axis, Element, Graph, Port};
use super::predictor::{Batch, EvaluationError, Origin, Predictor};
use super::signature::{Signature, TimeShape};

const ENGINE: &str = "embedded";
const WAY_OUT: &str = "The embedded engine lacks some operators: install ONNX Runtime and name \
    its library in ORT_DYLIB_PATH or [engine] library, or export the model at opset 17";

/// A graph opened by rten.
pub(super) struct Embedded {
    model: rten::Model,
    inputs: Inputs,
    output: NodeId,
    signature: Signature,
    origin: Origin,
    integers: Vec<i32>,
    floats: Vec<f32>,
}

#[derive(Debug)]
struct Inputs {
    sample: NodeId,
    time: NodeId,
    class: Option<NodeId>,
    conditions: Vec<NodeId>,
}

impl Embedded {
    pub(super) fn open(bundle: &Bundle, largest_batch: usize) -> Result<Self, ModelError> {
        let load_error = |reason: String| ModelError::Load {
            engine: ENGINE,
            graph: bundle.graph.clone(),
            reason,
            way_out: WAY_OUT,
        };
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(&bundle.graph).map_err(|error| load_error(error.to_string()))?;
        let graph =
            Graph { inputs: ports(&model, model.input_ids()), outputs: ports(&model, model.output_ids()) };
        let signature = Signature::resolve(&graph, &bundle.manifest, bundle.network, largest_batch)
            .map_err(|error| ModelError::Signature { graph: bundle.graph.clone(), error })?;
        let node = |name: &str| model.node_id(name).map_err(|error| load_error(error.to_string()));
        let class = signature.class.as_ref();
        let inputs = Inputs {
            sample: node(&signature.sample)?,
            time: node(&signature.time.name)?,
            class: class.map(|(name, _)| node(name)).transpose()?,
            conditions: signature.conditions.iter().map(|(name, _)| node(name)).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            output: node(&signature.output)?,
            inputs,
            model,
            signature,
            origin: Origin::new(ENGINE, "rten 0.27".to_owned(), "cpu".to_owned()),
            integers: Vec::new(),
            floats: Vec::new(),
        })
    }
}

fn ports(model: &rten::Model, ids: &[NodeId]) -> Vec<Port> {
    ids.iter()
        .filter_map(|&id| model.node_info(id))
        .map(|info| Port {
            name: info.name().unwrap_or_default().to_owned(),
            // rten keeps int64 as int32 and float16 as float32.
            element: match info.dtype() {
                Some(ValueType::Tensor(DataType::Float)) => Element::F32,
                Some(ValueType::Tensor(DataType::Int32)) => Element::I32,
                _ => Element::Other,
            },
            shape: info
                .shape()
                .unwrap_or_default()
                .into_iter()
                .map(|axis| match axis {
                    Dimension::Fixed(n) => Axis::Fixed(n),
                    Dimension::Symbolic(_) => Axis::Free,
                })
                .collect(),
        })
        .collect()
}

fn failed(reason: impl ToString) -> EvaluationError {
    EvaluationError::Engine { engine: ENGINE, reason: format!("{}. {WAY_OUT}", reason.to_string()) }
}

impl Predictor for Embedded {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let n = batch.len();
        let mut shape = vec![n];
        shape.extend(&self.signature.sample_shape);
        let times = match self.signature.time.shape {
            TimeShape::Each => &batch.times[..],
            TimeShape::Scalar | TimeShape::One => &batch.times[..1],
        };
        let time_shape: &[usize] = match self.signature.time.shape {
            TimeShape::Scalar => &[],
            TimeShape::One | TimeShape::Each => &[times.len()],
        };
        self.floats.clear();
        self.floats.extend(times.iter().map(|&t| t as f32));
        self.integers.clear();
        self.integers.extend(times.iter().map(|&t| t as i32));
        self.integers.extend(batch.classes.iter().map(|&c| c as i32));
        let (whole_times, classes) = self.integers.split_at(times.len());
        let time = match self.signature.time.element {
            Element::F32 | Element::F16 => view(time_shape, &self.floats)?,
            _ => view(time_shape, whole_times)?,
        };
        let mut inputs = vec![(self.inputs.sample, view(&shape, &batch.samples)?), (self.inputs.time, time)];
        if let Some(class) = self.inputs.class {
            inputs.push((class, view(&[n], classes)?));
        }
        for (&node, values) in self.inputs.conditions.iter().zip(&batch.conditions) {
            inputs.push((node, view(&[n], values)?));
        }
        let [result] = self.model.run_n(inputs, [self.output], None).map_err(failed)?;
        let Value::FloatTensor(tensor) = result else {
            return Err(EvaluationError::OutputType);
        };
        output.clear();
        match tensor.data() {
            Some(data) => output.extend_from_slice(data),
            None => output.extend(tensor.iter()),
        }
        Ok(())
    }
}

fn view<'a, T>(shape: &[usize], data: &'a [T]) -> Result<ValueOrView<'a>, EvaluationError>
where
    T: Copy + 'static,
    ValueView<'a>: From<rten_tensor::TensorView<'a, T>>,
{
    rten_tensor::TensorView::try_from_data(shape, data)
        .map(|tensor| ValueOrView::View(ValueView::from(tensor)))
        .map_err(failed)
}
