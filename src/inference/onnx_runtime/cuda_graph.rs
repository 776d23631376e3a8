//! Buffers for CUDA graphs.
//!
//! A captured CUDA graph always reads and writes the addresses that it was captured with, so that inputs and outputs live
//! in fixed buffers on the GPU.

use ort::memory::{AllocationDevice, Allocator, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::DynTensor;

use super::failed;
use super::values::{allocator, fill, read, tensor};
use crate::inference::error::EvaluationError;
use crate::inference::session::{Input, match_inputs};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// The buffers of a session all of whose shapes are fixed, in the graph's order.
pub(super) struct CudaGraphBuffers {
    inputs: Vec<HostDevicePair>,
    outputs: Vec<HostDevicePair>,
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
    fn new(memory: &Allocator, value: &ValueInfo) -> Result<Self, String> {
        let shape: Option<Vec<usize>> = value.shape.iter().map(Dim::length).collect();
        let (Some(shape), false) = (shape, matches!(value.element, DataType::Other(_))) else {
            return Err(format!(
                "a CUDA graph needs numbers of a fixed shape, but {value} is not; remove cuda_graph, or export the \
                 graph with that shape fixed"
            ));
        };
        let allocate = |memory| tensor(memory, value.element, &shape).map_err(|error| error.to_string());
        let (host, device) = (allocate(&Allocator::default())?, allocate(memory)?);
        Ok(Self { name: value.name.clone(), element: value.element, shape, host, device })
    }
}

impl CudaGraphBuffers {
    /// Binds a buffer to each input and output of the graph, on the GPU of this index.
    pub(super) fn new(session: &Session, graph: &GraphIo, device: i32) -> Result<Self, String> {
        let all = |memory: &Allocator, values: &[ValueInfo]| -> Result<Vec<HostDevicePair>, String> {
            values.iter().map(|value| HostDevicePair::new(memory, value)).collect()
        };
        let memory = allocator(session, AllocationDevice::CUDA, device, MemoryType::Default);
        let memory = memory.map_err(|error| error.to_string())?;
        let (inputs, mut outputs) = (all(&memory, &graph.inputs)?, all(&memory, &graph.outputs)?);
        let mut bind = || {
            let mut binding = session.create_binding()?;
            inputs.iter().try_for_each(|pair| binding.bind_input(&pair.name[..], &pair.device))?;
            outputs.iter_mut().try_for_each(|pair| binding.bind_output(&pair.name[..], &mut pair.device))?;
            Ok(binding)
        };
        let binding = bind().map_err(|error: ort::Error| error.to_string())?;
        Ok(Self { inputs, outputs, binding })
    }

    /// Evaluates the graph for some of its outputs and returns their shapes. The first evaluation captures the graph.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        for (index, input) in match_inputs(graph, inputs) {
            let HostDevicePair { name, element, shape, host, device } = &mut self.inputs[index];
            fill(name, *element, shape, host, input.values).map_err(failed)?;
            host.copy_into(device).map_err(failed)?;
        }
        session.run_binding(&self.binding).map_err(failed)?;
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
