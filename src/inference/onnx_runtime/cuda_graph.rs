//! Buffers for CUDA graphs.
//!
//! A captured CUDA graph always reads and writes the addresses that it was captured with, so that inputs and outputs live
//! in fixed buffers on the GPU.

use ort::memory::{AllocationDevice, Allocator, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::DynTensor;

use super::failed;
use super::values::{allocator, fill, read, tensor};
use crate::inference::cuda_graphs::EvaluationShape;
use crate::inference::error::EvaluationError;
use crate::inference::session::{Input, match_inputs};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// ONNX Runtime's option that numbers the graphs of a session. With −1, an evaluation is neither captured nor replayed.
const GRAPH_ID: &str = "gpu_graph_id";

/// Options for an evaluation without a graph, in a session that captures.
pub(super) fn without_graph() -> ort::Result<RunOptions> {
    with_graph_id(-1)
}

fn with_graph_id(id: i64) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set(GRAPH_ID, id.to_string())?;
    Ok(options)
}

/// The buffers of one graph.
pub(super) struct CudaGraphBuffers {
    inputs: Vec<HostDevicePair>,
    outputs: Vec<HostDevicePair>,
    options: RunOptions,
    /// Dropped last, because it keeps the session alive whose memory the buffers are.
    binding: IoBinding,
}

/// A tensor on the GPU, and its copy that the host reads and writes.
struct HostDevicePair {
    name: String,
    element: DataType,
    shape: Vec<usize>,
    host: DynTensor,
    device: DynTensor,
}

impl HostDevicePair {
    fn new(memory: &Allocator, value: &ValueInfo, shape: &[usize]) -> Result<Self, String> {
        if matches!(value.element, DataType::Other(_)) {
            return Err(format!("a CUDA graph needs numbers, but {value} is not"));
        }
        let allocate = |memory| tensor(memory, value.element, shape).map_err(|error| error.to_string());
        let (host, device) = (allocate(&Allocator::default())?, allocate(memory)?);
        Ok(Self { name: value.name.clone(), element: value.element, shape: shape.to_vec(), host, device })
    }

    /// For a tensor whose shape the graph fixes.
    fn fixed(memory: &Allocator, value: &ValueInfo) -> Result<Self, String> {
        let shape: Option<Vec<usize>> = value.shape.iter().map(Dim::length).collect();
        let shape = shape.ok_or_else(|| {
            format!(
                "a CUDA graph needs numbers of a fixed shape, but {value} is not; remove cuda_graph, or export the \
                 graph with that shape fixed"
            )
        })?;
        Self::new(memory, value, &shape)
    }
}

impl CudaGraphBuffers {
    /// Binds a buffer to each input and output of a graph all of whose shapes are fixed, on the GPU of this index. Its first
    /// evaluations capture it.
    pub(super) fn for_graph(session: &Session, graph: &GraphIo, gpu: i32) -> Result<Self, String> {
        let memory = gpu_memory(session, gpu)?;
        let all = |values: &[ValueInfo]| {
            values.iter().map(|value| HostDevicePair::fixed(&memory, value)).collect::<Result<Vec<_>, _>>()
        };
        let options = RunOptions::new().map_err(|error| error.to_string())?;
        Self::bind(session, all(&graph.inputs)?, all(&graph.outputs)?, options)
    }

    /// Binds buffers for evaluations of one shape, whose outputs have the shapes `outputs`. Its first evaluation captures
    /// the session's graph with this index.
    pub(super) fn for_shape(
        session: &Session,
        graph: &GraphIo,
        gpu: i32,
        shape: &EvaluationShape,
        outputs: &[Vec<usize>],
        index: usize,
    ) -> Result<Self, String> {
        let memory = gpu_memory(session, gpu)?;
        let inputs = shape.inputs.iter();
        let inputs = inputs.map(|(index, shape)| HostDevicePair::new(&memory, &graph.inputs[*index], shape));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let output = |(name, shape): (&String, &Vec<usize>)| {
            let value = graph.outputs.iter().find(|value| value.name == *name);
            let value = value.ok_or_else(|| format!("the graph has no output {name}"))?;
            HostDevicePair::new(&memory, value, shape)
        };
        let outputs = shape.outputs.iter().zip(outputs).map(output).collect::<Result<Vec<_>, _>>()?;
        // 0 is the graph of evaluations without a number.
        let options = with_graph_id(index as i64 + 1).map_err(|error| error.to_string())?;
        Self::bind(session, inputs, outputs, options)
    }

    fn bind(
        session: &Session,
        inputs: Vec<HostDevicePair>,
        mut outputs: Vec<HostDevicePair>,
        options: RunOptions,
    ) -> Result<Self, String> {
        let mut bind = || {
            let mut binding = session.create_binding()?;
            inputs.iter().try_for_each(|pair| binding.bind_input(&pair.name[..], &pair.device))?;
            outputs.iter_mut().try_for_each(|pair| binding.bind_output(&pair.name[..], &mut pair.device))?;
            Ok(binding)
        };
        let binding = bind().map_err(|error: ort::Error| error.to_string())?;
        Ok(Self { inputs, outputs, options, binding })
    }

    /// Evaluates the graph for some of its outputs and returns their shapes. The first evaluation captures the graph, and
    /// evaluates it without one before that.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        for (_, input) in match_inputs(graph, inputs) {
            let pair = self.inputs.iter_mut().find(|pair| pair.name == input.name);
            let Some(HostDevicePair { name, element, shape, host, device }) = pair else { continue };
            fill(name, *element, shape, host, input.values).map_err(failed)?;
            host.copy_into(device).map_err(failed)?;
        }
        session.run_binding_with_options(&self.binding, &self.options).map_err(failed)?;
        let mut shapes = Vec::with_capacity(names.len());
        for (name, output) in names.iter().zip(outputs) {
            let pair = self.outputs.iter_mut().find(|pair| pair.name == *name);
            let pair = pair.ok_or(EvaluationError::OutputType)?;
            pair.device.copy_into(&mut pair.host).map_err(failed)?;
            shapes.push(read(&pair.host, output)?);
        }
        Ok(shapes)
    }
}

fn gpu_memory(session: &Session, gpu: i32) -> Result<Allocator, String> {
    allocator(session, AllocationDevice::CUDA, gpu, MemoryType::Default).map_err(|error| error.to_string())
}
