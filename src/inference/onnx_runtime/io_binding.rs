//! Input and output buffers that stay bound to a session: one set for each combination of shapes.

use ort::memory::{AllocationDevice, Allocator, MemoryType};
use ort::session::{IoBinding, RunOptions, Session, SessionOutputs};
use ort::value::DynTensor;

use super::failed;
use super::values::{allocator, fill, memory_info, read, size, slice_mut, tensor};
use crate::inference::error::EvaluationError;
use crate::inference::session::{Input, match_inputs};
use crate::tensor::{DataType, GraphIo};

/// The largest number of bindings that are kept.
const MAX_BINDINGS: usize = 8;
/// The size limit of all kept bindings except the latest, in bytes. Those of a denoiser are small, those of a decoder are
/// not.
const MAX_RETAINED_BYTES: usize = 16 << 20;

/// The bindings that were used last.
pub(super) struct IoBindingCache {
    /// The most recently used first.
    bindings: Vec<BoundBuffers>,
    /// Whether the buffers are in pinned memory, which a GPU reads without a copy.
    pinned: bool,
    options: RunOptions,
}

/// Options for evaluations on the CPU after which the arena returns its memory to the system.
pub(super) fn shrinking_arena() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

impl IoBindingCache {
    pub(super) fn new(pinned: bool, options: RunOptions) -> Self {
        Self { bindings: Vec::with_capacity(MAX_BINDINGS), pinned, options }
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
        // The binding is put back only after success, because it may be the cause of an error.
        let index = self.bindings.iter().position(|buffers| buffers.fits(graph, inputs, names));
        let mut buffers = match index {
            Some(index) => self.bindings.remove(index),
            None => BoundBuffers::new(session, graph, inputs, names, self.pinned).map_err(failed)?,
        };
        let results = buffers.run(session, graph, inputs, &self.options).map_err(failed)?;
        let read = |(name, output): (&&str, &mut Vec<f32>)| read(&results[*name], output);
        let shapes = names.iter().zip(outputs).map(read).collect::<Result<Vec<_>, _>>()?;
        drop(results);
        buffers.bind_outputs(session, graph, &shapes, self.pinned).map_err(failed)?;
        self.bindings.truncate(MAX_BINDINGS - 1);
        while self.bindings.iter().map(|buffers| buffers.bytes).sum::<usize>() > MAX_RETAINED_BYTES {
            self.bindings.pop();
        }
        self.bindings.insert(0, buffers);
        Ok(shapes)
    }
}

/// The buffers for inputs of certain shapes.
struct BoundBuffers {
    /// The name, element type, shape and tensor of each input.
    inputs: Vec<(String, DataType, Vec<usize>, DynTensor)>,
    outputs: Vec<String>,
    /// Whether the outputs have buffers. Their shapes are known after the first evaluation.
    outputs_bound: bool,
    bytes: usize,
    /// Dropped last, because it keeps the session alive whose memory the tensors may be.
    binding: IoBinding,
}

impl BoundBuffers {
    /// Binds buffers for the inputs. ONNX Runtime allocates the outputs until their shapes are known.
    fn new(
        session: &Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        outputs: &[&str],
        pinned: bool,
    ) -> ort::Result<Self> {
        let memory = HostMemory::new(session, pinned);
        let mut binding = session.create_binding()?;
        let inputs = match_inputs(graph, inputs).map(|(index, input)| {
            let element = graph.inputs[index].element;
            Ok((input.name.to_owned(), element, input.shape.clone(), memory.tensor(element, &input.shape)?))
        });
        let inputs = inputs.collect::<ort::Result<Vec<_>>>()?;
        let outputs: Vec<String> = outputs.iter().map(|name| (*name).to_owned()).collect();
        let host = memory_info(AllocationDevice::CPU, 0, MemoryType::CPUOutput)?;
        outputs.iter().try_for_each(|name| binding.bind_output_to_device(&name[..], &host))?;
        let bytes = inputs.iter().map(|(_, element, shape, _)| size(*element, shape)).sum();
        Ok(Self { binding, inputs, outputs, outputs_bound: false, bytes })
    }

    /// Whether the buffers are for inputs of these names and shapes and for these outputs.
    fn fits(&self, graph: &GraphIo, inputs: &[Input<'_>], outputs: &[&str]) -> bool {
        let own = self.inputs.iter().map(|(name, _, shape, _)| (&name[..], &shape[..]));
        own.eq(match_inputs(graph, inputs).map(|(_, input)| (input.name, &input.shape[..])))
            && self.outputs.iter().eq(outputs.iter())
    }

    /// Evaluates the graph. The outputs are valid until the next evaluation.
    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        options: &RunOptions,
    ) -> ort::Result<SessionOutputs<'a>> {
        for ((name, element, shape, tensor), (_, input)) in
            self.inputs.iter_mut().zip(match_inputs(graph, inputs))
        {
            fill(name, *element, shape, tensor, input.values)?;
            // Binding copies the values to the device, if the graph runs on one.
            self.binding.bind_input(&name[..], tensor)?;
        }
        session.run_binding_with_options(&self.binding, options)
    }

    /// Binds buffers for outputs of the shapes that the last evaluation returned.
    fn bind_outputs(
        &mut self,
        session: &Session,
        graph: &GraphIo,
        shapes: &[Vec<usize>],
        pinned: bool,
    ) -> ort::Result<()> {
        if self.outputs_bound {
            return Ok(());
        }
        self.outputs_bound = true;
        let memory = HostMemory::new(session, pinned);
        for (name, shape) in self.outputs.iter().zip(shapes) {
            let output = graph.outputs.iter().find(|output| output.name == *name);
            if let Some(element @ (DataType::F32 | DataType::F16)) = output.map(|output| output.element) {
                self.binding.bind_output(&name[..], memory.tensor(element, shape)?)?;
                self.bytes += size(element, shape);
            }
        }
        Ok(())
    }
}

/// The host memory for buffers.
struct HostMemory {
    pinned: Option<Allocator>,
    plain: Allocator,
}

impl HostMemory {
    fn new(session: &Session, pinned: bool) -> Self {
        let pinned =
            pinned.then(|| allocator(session, AllocationDevice::CUDA_PINNED, 0, MemoryType::CPUInput));
        Self { pinned: pinned.and_then(Result::ok), plain: Allocator::default() }
    }

    /// A tensor in pinned memory if that exists and can be written, else in pageable memory. With ONNX Runtime 1.23 or
    /// newer, `ort` mistakes pinned memory for GPU memory unless it is built with `api-23`.
    fn tensor(&self, element: DataType, shape: &[usize]) -> ort::Result<DynTensor> {
        if let Some(pinned) = &self.pinned
            && let Ok(mut tensor) = tensor(pinned, element, shape)
            && slice_mut(element, &mut tensor).is_ok()
        {
            return Ok(tensor);
        }
        tensor(&self.plain, element, shape)
    }
}
