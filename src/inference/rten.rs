//! The embedded engine, rten, which needs no library.

mod load_graph;
mod onnx_defaults;

use std::path::Path;
use std::time::Instant;

use rten::{
    DataType as RtenDataType, Dimension, ModelOptions, NodeId, Value, ValueOrView, ValueType, ValueView,
};
use rten_onnx::onnx::DataType as OnnxDataType;
use rten_tensor::prelude::*;

use super::backend::Backend;
use super::error::{EngineError, EvaluationError};
use super::graph_source::{GraphSource, ProvenBackend};
use super::load_advice::{self, with_advice};
use super::session::{Input, Session};
use super::typed_buffer::{TypedBuffer, bind};
use crate::onnx::{Header, ModelFiles};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
use load_graph::load_graph;

const ENGINE: &str = "embedded";

/// Opens a graph. There is one provider, so that nothing is left to be proven.
pub(super) fn open(source: &GraphSource, proven: &ProvenBackend) -> Result<Box<dyn Session>, EngineError> {
    let started = Instant::now();
    let session = RtenSession::open(&source.files)?;
    log::debug!("opened {} on cpu in {} ms", source.name, started.elapsed().as_millis());
    proven.get_or_init(backend);
    Ok(Box::new(session))
}

/// The backend of all graphs.
pub(super) fn backend() -> Backend {
    Backend::new(ENGINE, "rten 0.27".to_owned(), "cpu".to_owned())
}

/// A graph opened by rten.
struct RtenSession {
    model: rten::Model,
    graph: GraphIo,
    buffers: Vec<TypedBuffer>,
}

impl RtenSession {
    fn open(files: &ModelFiles) -> Result<Self, EngineError> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = load_graph(&options, files)?;
        let graph = GraphIo {
            inputs: value_infos(&model, model.input_ids()),
            outputs: value_infos(&model, model.output_ids()),
        };
        let buffers = graph.inputs.iter().map(|input| TypedBuffer::new(input.element)).collect();
        Ok(Self { model, graph, buffers })
    }
}

/// A graph that rten cannot load.
fn load_error(graph: &Path, header: &Header, reason: String) -> EngineError {
    let hint = load_advice::embedded(header, &reason);
    // The hint names the operator; rten also names the features that it was compiled with.
    let reason = if reason.contains(" operator not ") { "an operator is missing".to_owned() } else { reason };
    EngineError::Load { engine: ENGINE, graph: graph.to_owned(), reason, hint }
}

fn value_infos(model: &rten::Model, ids: &[NodeId]) -> Vec<ValueInfo> {
    ids.iter()
        .filter_map(|&id| model.node_info(id))
        .map(|info| ValueInfo {
            name: info.name().unwrap_or_default().to_owned(),
            // rten converts int64 to int32 and float16 to float32.
            element: match info.dtype() {
                Some(ValueType::Tensor(RtenDataType::Float)) => DataType::F32,
                Some(ValueType::Tensor(RtenDataType::Int32)) => DataType::I32,
                Some(ValueType::Tensor(RtenDataType::Int8)) => DataType::from_onnx(OnnxDataType::INT8.0),
                Some(ValueType::Tensor(RtenDataType::UInt8)) => DataType::from_onnx(OnnxDataType::UINT8.0),
                _ => DataType::from_onnx(0),
            },
            shape: info
                .shape()
                .unwrap_or_default()
                .into_iter()
                .map(|axis| match axis {
                    Dimension::Fixed(n) => Dim::Fixed(n),
                    Dimension::Symbolic(_) => Dim::Dynamic,
                })
                .collect(),
        })
        .collect()
}

fn failed(reason: impl std::fmt::Display) -> EvaluationError {
    let reason = reason.to_string();
    EvaluationError::engine(ENGINE, with_advice(&reason, load_advice::evaluation(&reason)))
}

impl Session for RtenSession {
    fn graph(&self) -> &GraphIo {
        &self.graph
    }

    /// rten 0.27 returns the last one.
    fn argmax_returns_first(&self) -> bool {
        false
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let inputs = bind(&self.graph, &mut self.buffers, inputs);
        let node = |name: &str| self.model.node_id(name).map_err(failed);
        let mut values = Vec::with_capacity(inputs.len());
        for (index, input) in inputs {
            let value = match &self.buffers[index] {
                TypedBuffer::F32(values) => view(&input.shape, values)?,
                TypedBuffer::I32(values) => view(&input.shape, values)?,
                TypedBuffer::F16(_) | TypedBuffer::F64(_) | TypedBuffer::I64(_) => {
                    return Err(EvaluationError::OutputType);
                }
            };
            values.push((node(input.name)?, value));
        }
        let nodes = names.iter().map(|name| node(name)).collect::<Result<Vec<_>, _>>()?;
        let results = self.model.run(values, &nodes, None).map_err(failed)?;
        results.into_iter().zip(outputs).map(|(value, output)| read(value, output)).collect()
    }
}

fn read(value: Value, output: &mut Vec<f32>) -> Result<Vec<usize>, EvaluationError> {
    let Value::FloatTensor(tensor) = value else {
        return Err(EvaluationError::OutputType);
    };
    output.clear();
    match tensor.data() {
        Some(data) => output.extend_from_slice(data),
        None => output.extend(tensor.iter()),
    }
    Ok(tensor.shape().to_vec())
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
