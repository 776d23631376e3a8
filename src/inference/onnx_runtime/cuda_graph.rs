//! Inputs and outputs that stay at their places in a GPU's memory, as a CUDA graph needs them: what was captured is
//! replayed on what lies there, and nothing else that a run is given counts.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, ValueType};

use super::failed;
use super::values::{fill, read, tensor};
use crate::inference::provider::InputShapes;
use crate::inference::session::{Input, known};
use crate::model::predictor::EvaluationError;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// The buffers of a session whose shapes are all fixed.
pub(crate) struct Captured {
    /// In the graph's order.
    inputs: Vec<Twin>,
    /// In the graph's order.
    outputs: Vec<Twin>,
    /// The last to be dropped, since it keeps the session whose memory the others lie in.
    binding: IoBinding,
}

/// A tensor on the GPU, and one beside it that the processor reads and writes.
struct Twin {
    name: String,
    element: DataType,
    shape: Vec<usize>,
    host: DynTensor,
    device: DynTensor,
}

impl Twin {
    fn new(memory: &Allocator, port: &ValueInfo) -> Result<Self, String> {
        let shape: Option<Vec<usize>> = port.shape.iter().map(Dim::length).collect();
        let (Some(shape), false) = (shape, port.element == DataType::Other) else {
            return Err(format!(
                "a CUDA graph needs numbers in a shape that is known ahead, and {port} is none; leave cuda_graph \
                 out, or export the graph with that shape fixed"
            ));
        };
        let made = |memory| tensor(memory, port.element, &shape).map_err(|error| error.to_string());
        let (host, device) = (made(&Allocator::default())?, made(memory)?);
        Ok(Self { name: port.name.clone(), element: port.element, shape, host, device })
    }
}

impl Captured {
    /// Bind a buffer to each input and output of the graph, on the GPU of this number.
    pub(crate) fn new(session: &Session, graph: &GraphIo, device: i32) -> Result<Self, String> {
        let all = |memory: &Allocator, ports: &[ValueInfo]| -> Result<Vec<Twin>, String> {
            ports.iter().map(|port| Twin::new(memory, port)).collect()
        };
        let memory =
            MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default);
        let memory = memory.and_then(|memory| Allocator::new(session, memory));
        let memory = memory.map_err(|error| error.to_string())?;
        let (inputs, mut outputs) = (all(&memory, &graph.inputs)?, all(&memory, &graph.outputs)?);
        let mut bind = || {
            let mut binding = session.create_binding()?;
            inputs.iter().try_for_each(|twin| binding.bind_input(&twin.name[..], &twin.device))?;
            outputs.iter_mut().try_for_each(|twin| binding.bind_output(&twin.name[..], &mut twin.device))?;
            Ok(binding)
        };
        let binding = bind().map_err(|error: ort::Error| error.to_string())?;
        Ok(Self { inputs, outputs, binding })
    }

    /// Evaluate the graph for some of its outputs; tells their shapes. The first time captures it.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        for (place, input) in known(graph, inputs) {
            let Twin { name, element, shape, host, device } = &mut self.inputs[place];
            fill(name, *element, shape, host, input.values).map_err(failed)?;
            host.copy_into(device).map_err(failed)?;
        }
        session.run_binding(&self.binding).map_err(failed)?;
        let mut answers = Vec::with_capacity(names.len());
        for (name, output) in names.iter().zip(outputs) {
            let twin = self.outputs.iter_mut().find(|twin| twin.name == *name);
            let twin = twin.ok_or(EvaluationError::OutputType)?;
            twin.device.copy_into(&mut twin.host).map_err(failed)?;
            answers.push(read(&twin.host, output)?);
        }
        Ok(answers)
    }
}

/// The axes that a graph leaves free, by their names, with the lengths that they have in these shapes.
pub(crate) fn fixed(described: &Session, shapes: &InputShapes) -> Vec<(String, usize)> {
    let mut fixed = Vec::new();
    for outlet in described.inputs() {
        let lengths = shapes.0.iter().find(|(name, _)| name == outlet.name());
        let (Some((_, lengths)), ValueType::Tensor { shape, dimension_symbols, .. }) =
            (lengths, outlet.dtype())
        else {
            continue;
        };
        let axes = shape.iter().zip(dimension_symbols.iter()).zip(lengths);
        let free = axes.filter(|((axis, name), _)| **axis < 0 && !name.is_empty());
        fixed.extend(free.map(|((_, name), length)| (name.clone(), *length)));
    }
    fixed
}
