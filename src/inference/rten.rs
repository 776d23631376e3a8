//! The embedded engine, rten: pure Rust, nothing to install.

use std::path::Path;

use rten::{
    DataType as RtenDataType, Dimension, ModelOptions, NodeId, Value, ValueOrView, ValueType, ValueView,
};
use rten_tensor::prelude::*;

use crate::inference::session::{Column, Input, Session, fill};
use crate::model::ModelError;
use crate::model::predictor::{Backend, EvaluationError};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

const ENGINE: &str = "embedded";
const WAY_OUT: &str = "The embedded engine lacks some operators: install ONNX Runtime and name \
    its library in ORT_DYLIB_PATH or [engine] library, or export the model at opset 17";
const WAY_OUT_OF_WEIGHTS: &str = "The embedded engine takes weights only from files whose names end in .data or \
    .onnx_data: save the graph again with such a name, or use ONNX Runtime";

/// A graph opened by rten.
pub(crate) struct Embedded {
    model: rten::Model,
    graph: GraphIo,
    columns: Vec<Column>,
}

impl Embedded {
    pub(crate) fn open(graph: &Path) -> Result<Self, ModelError> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(graph).map_err(|error| {
            let reason = error.to_string();
            // rten tells the two apart by words alone.
            let way_out = if reason.contains("disallowed path") { WAY_OUT_OF_WEIGHTS } else { WAY_OUT };
            ModelError::Load { engine: ENGINE, graph: graph.to_owned(), reason, way_out }
        })?;
        let graph =
            GraphIo { inputs: ports(&model, model.input_ids()), outputs: ports(&model, model.output_ids()) };
        let columns = graph.inputs.iter().map(|port| Column::new(port.element)).collect();
        Ok(Self { model, graph, columns })
    }

    /// What serves.
    pub(crate) fn origin() -> Backend {
        Backend::new(ENGINE, "rten 0.27".to_owned(), "cpu".to_owned())
    }
}

fn ports(model: &rten::Model, ids: &[NodeId]) -> Vec<ValueInfo> {
    ids.iter()
        .filter_map(|&id| model.node_info(id))
        .map(|info| ValueInfo {
            name: info.name().unwrap_or_default().to_owned(),
            // rten keeps int64 as int32 and float16 as float32.
            element: match info.dtype() {
                Some(ValueType::Tensor(RtenDataType::Float)) => DataType::F32,
                Some(ValueType::Tensor(RtenDataType::Int32)) => DataType::I32,
                _ => DataType::Other,
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

fn failed(reason: impl ToString) -> EvaluationError {
    EvaluationError::Engine { engine: ENGINE, reason: format!("{}. {WAY_OUT}", reason.to_string()) }
}

impl Session for Embedded {
    fn graph(&self) -> &GraphIo {
        &self.graph
    }

    /// rten 0.27 takes the last.
    fn takes_the_first_of_equals(&self) -> bool {
        false
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let known = fill(&self.graph, &mut self.columns, inputs);
        let node = |name: &str| self.model.node_id(name).map_err(failed);
        let mut fed = Vec::with_capacity(known.len());
        for (place, input) in known {
            let value = match &self.columns[place] {
                Column::F32(values) => view(&input.shape, values)?,
                Column::I32(values) => view(&input.shape, values)?,
                Column::F16(_) | Column::I64(_) => return Err(EvaluationError::OutputType),
            };
            fed.push((node(input.name)?, value));
        }
        let wanted = names.iter().map(|name| node(name)).collect::<Result<Vec<_>, _>>()?;
        let found = self.model.run(fed, &wanted, None).map_err(failed)?;
        found.into_iter().zip(outputs).map(|(value, output)| read(value, output)).collect()
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
