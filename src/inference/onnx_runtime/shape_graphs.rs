//! A session that captures a CUDA graph for each shape that recurs.

use std::thread::ThreadId;
use std::time::Duration;

use ort::session::Session;

use super::cuda_graph::{CudaGraphBuffers, without_graph};
use super::gpu_lock;
use super::io_binding::IoBindingCache;
use super::values::size;
use crate::inference::cuda_graphs::{Action, CapturePlan, EvaluationShape, OtherValues, difference};
use crate::inference::error::EvaluationError;
use crate::inference::session::{Input, match_inputs};
use crate::tensor::GraphIo;

/// The graphs of a session, and the buffers for evaluations without one.
pub(super) struct ShapeGraphs {
    plan: CapturePlan,
    /// In the order of capture.
    graphs: Vec<ShapeGraph>,
    plain: IoBindingCache,
    /// The index of the GPU.
    gpu: i32,
    /// Why a graph could not be captured or replayed. The session is of no use then.
    failure: Option<String>,
}

struct ShapeGraph {
    buffers: CudaGraphBuffers,
    /// The thread that evaluated it last. ONNX Runtime captures a graph again for each thread.
    thread: ThreadId,
}

/// An evaluation: its inputs, and the names and places of its outputs.
struct Evaluation<'a, 'i> {
    graph: &'a GraphIo,
    inputs: &'a [Input<'i>],
    names: &'a [&'a str],
    outputs: &'a mut [Vec<f32>],
}

impl ShapeGraphs {
    pub(super) fn new(gpu: i32) -> ort::Result<Self> {
        let plain = IoBindingCache::new(true, without_graph()?);
        Ok(Self { plan: CapturePlan::default(), graphs: Vec::new(), plain, gpu, failure: None })
    }

    /// Why a graph could not be captured or replayed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether opening the session again, without its graphs, makes later evaluations faster.
    pub(super) fn is_due_for_opening(&self) -> bool {
        self.plan.is_due_for_opening()
    }

    /// Evaluates the graph for some of its outputs and returns their shapes.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let shape = EvaluationShape {
            inputs: match_inputs(graph, inputs).map(|(index, input)| (index, input.shape.clone())).collect(),
            outputs: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let evaluation = Evaluation { graph, inputs, names, outputs };
        let thread = std::thread::current().id();
        let result = match self.plan.action(&shape) {
            Action::Replay(index) if self.graphs[index].thread == thread => {
                let _sharing = gpu_lock::share();
                self.graphs[index].run(session, evaluation)
            }
            Action::Replay(index) => match gpu_lock::exclude_others(Duration::ZERO) {
                Some(_alone) => self.graphs[index].run(session, evaluation),
                None => return self.evaluate(session, shape, evaluation),
            },
            Action::Capture(output_shapes) => match gpu_lock::exclude_others(Duration::ZERO) {
                Some(_alone) => self.capture(session, shape, &output_shapes, evaluation),
                None => return self.evaluate(session, shape, evaluation),
            },
            Action::Evaluate => return self.evaluate(session, shape, evaluation),
        };
        self.failure = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Evaluates the graph without a CUDA graph.
    fn evaluate(
        &mut self,
        session: &mut Session,
        shape: EvaluationShape,
        evaluation: Evaluation<'_, '_>,
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let _sharing = gpu_lock::share();
        let Evaluation { graph, inputs, names, outputs } = evaluation;
        let shapes = self.plain.run(session, graph, inputs, names, outputs)?;
        let input_bytes = shape.inputs.iter().map(|(index, shape)| size(graph.inputs[*index].element, shape));
        let element = |name: &str| graph.outputs.iter().find(|value| value.name == name);
        let output_bytes = names
            .iter()
            .zip(&shapes)
            .map(|(name, shape)| element(name).map_or(0, |value| size(value.element, shape)));
        let buffer_bytes = input_bytes.chain(output_bytes).sum();
        self.plan.record_evaluation(shape, shapes.clone(), buffer_bytes);
        Ok(shapes)
    }

    /// Captures a graph with other values, and compares what it computes from the inputs when it is replayed with an
    /// evaluation without it.
    fn capture(
        &mut self,
        session: &mut Session,
        shape: EvaluationShape,
        output_shapes: &[Vec<usize>],
        evaluation: Evaluation<'_, '_>,
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let Evaluation { graph, inputs, names, outputs } = evaluation;
        let index = self.graphs.len();
        let failed = |reason: String| EvaluationError::engine(super::ENGINE, reason);
        let buffers = CudaGraphBuffers::for_shape(session, graph, self.gpu, &shape, output_shapes, index)
            .map_err(failed)?;
        let thread = std::thread::current().id();
        let mut captured = ShapeGraph { buffers, thread };
        let other = OtherValues::new(inputs);
        captured.buffers.run(session, graph, &other.of(inputs), names, outputs)?;
        let mut evaluated = vec![Vec::new(); names.len()];
        self.plain.run(session, graph, inputs, names, &mut evaluated)?;
        let shapes = captured.buffers.run(session, graph, inputs, names, outputs)?;
        if let Some(difference) = difference(&evaluated, outputs) {
            return Err(failed(format!(
                "a replayed graph gives other results than an evaluation without it (difference {difference:.1e})"
            )));
        }
        if evaluated != *outputs {
            log::debug!("a replayed CUDA graph and an evaluation without it differ in the last digits");
        }
        log::debug!("captured a CUDA graph for the inputs {:?}", shape.inputs);
        self.graphs.push(captured);
        self.plan.record_capture(shape);
        Ok(shapes)
    }
}

impl ShapeGraph {
    fn run(
        &mut self,
        session: &mut Session,
        evaluation: Evaluation<'_, '_>,
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let Evaluation { graph, inputs, names, outputs } = evaluation;
        self.thread = std::thread::current().id();
        self.buffers.run(session, graph, inputs, names, outputs)
    }
}
