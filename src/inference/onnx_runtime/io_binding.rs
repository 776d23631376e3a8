//! Inputs and outputs of a session in buffers that stay bound to it: one set for the shapes of each kind of batch,
//! used again whenever such a batch comes.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::DynTensor;

use super::failed;
use super::values::{buffer, fill, read, size, tensor};
use crate::inference::session::{Input, known};
use crate::model::predictor::EvaluationError;
use crate::tensor::{DataType, GraphIo};

/// How many kinds of batches have their buffers, and how many bytes those but the last one's may take: a network's are
/// small, a decoder's are not.
const KINDS: usize = 8;
const KEPT_BYTES: usize = 16 << 20;

/// Buffers for the kinds of batches that came last.
pub(crate) struct Kinds {
    /// The newest first.
    bound: Vec<Bound>,
    /// Whether they lie in memory that a GPU reads by itself.
    pinned: bool,
}

impl Kinds {
    pub(crate) fn new(pinned: bool) -> Self {
        Self { bound: Vec::with_capacity(KINDS), pinned }
    }

    /// Evaluate the graph for some of its outputs; tells their shapes.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        // It is put back among the others once all went well: what was wrong may be its own.
        let mut bound = match self.bound.iter().position(|bound| bound.serves(graph, inputs, names)) {
            Some(place) => self.bound.remove(place),
            None => Bound::new(session, graph, inputs, names, self.pinned).map_err(failed)?,
        };
        let found = bound.run(session, graph, inputs).map_err(failed)?;
        let read = |(name, output): (&&str, &mut Vec<f32>)| read(&found[*name], output);
        let shapes = names.iter().zip(outputs).map(read).collect::<Result<Vec<_>, _>>()?;
        drop(found);
        bound.settle(session, graph, &shapes, self.pinned).map_err(failed)?;
        self.bound.truncate(KINDS - 1);
        while self.bound.iter().map(|bound| bound.bytes).sum::<usize>() > KEPT_BYTES {
            self.bound.pop();
        }
        self.bound.insert(0, bound);
        Ok(shapes)
    }
}

/// The buffers for batches of certain shapes.
struct Bound {
    /// Each input with its name, its element, its shape and its tensor.
    inputs: Vec<(String, DataType, Vec<usize>, DynTensor)>,
    /// The outputs that are asked for.
    wanted: Vec<String>,
    /// Whether the outputs' shapes are known, so that they have buffers too.
    settled: bool,
    bytes: usize,
    /// The last to be dropped, since it keeps the session whose memory the others may lie in.
    binding: IoBinding,
}

impl Bound {
    /// Bind buffers for inputs of these shapes, in memory that a GPU reads without a copy of its own where it is
    /// `pinned`. The library makes the outputs until their shapes are known.
    fn new(
        session: &Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
        wanted: &[&str],
        pinned: bool,
    ) -> ort::Result<Self> {
        let memory = Memory::of(session, pinned);
        let mut binding = session.create_binding()?;
        let inputs = known(graph, inputs).map(|(place, input)| {
            let element = graph.inputs[place].element;
            Ok((input.name.to_owned(), element, input.shape.clone(), memory.tensor(element, &input.shape)?))
        });
        let inputs = inputs.collect::<ort::Result<Vec<_>>>()?;
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let processor =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        wanted.iter().try_for_each(|name| binding.bind_output_to_device(&name[..], &processor))?;
        let bytes = inputs.iter().map(|(_, element, shape, _)| size(*element, shape)).sum();
        Ok(Self { binding, inputs, wanted, settled: false, bytes })
    }

    /// Whether it is for such inputs and outputs.
    fn serves(&self, graph: &GraphIo, inputs: &[Input<'_>], wanted: &[&str]) -> bool {
        let own = self.inputs.iter().map(|(name, _, shape, _)| (&name[..], &shape[..]));
        own.eq(known(graph, inputs).map(|(_, input)| (input.name, &input.shape[..])))
            && self.wanted.iter().eq(wanted.iter())
    }

    /// Evaluate the graph; the outputs are there until the next evaluation.
    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
        graph: &GraphIo,
        inputs: &[Input<'_>],
    ) -> ort::Result<SessionOutputs<'a>> {
        for ((name, element, shape, tensor), (_, input)) in self.inputs.iter_mut().zip(known(graph, inputs)) {
            fill(name, *element, shape, tensor, input.values)?;
            // Where the graph runs elsewhere, binding is what brings the values there.
            self.binding.bind_input(&name[..], tensor)?;
        }
        session.run_binding(&self.binding)
    }

    /// Give the outputs buffers of the shapes that they had in the last evaluation.
    fn settle(
        &mut self,
        session: &Session,
        graph: &GraphIo,
        shapes: &[Vec<usize>],
        pinned: bool,
    ) -> ort::Result<()> {
        if self.settled {
            return Ok(());
        }
        self.settled = true;
        let memory = Memory::of(session, pinned);
        for (name, shape) in self.wanted.iter().zip(shapes) {
            let port = graph.outputs.iter().find(|port| port.name == *name);
            if let Some(element @ (DataType::F32 | DataType::F16)) = port.map(|port| port.element) {
                self.binding.bind_output(&name[..], memory.tensor(element, shape)?)?;
                self.bytes += size(element, shape);
            }
        }
        Ok(())
    }
}

/// Where buffers are made.
struct Memory {
    pinned: Option<Allocator>,
    plain: Allocator,
}

impl Memory {
    fn of(session: &Session, pinned: bool) -> Self {
        let pinned = pinned.then(|| {
            let device = AllocationDevice::CUDA_PINNED;
            let info = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::CPUInput)?;
            Allocator::new(session, info)
        });
        Self { pinned: pinned.and_then(Result::ok), plain: Allocator::default() }
    }

    /// A tensor in pinned memory where there is some that this program can write, else in plain memory: of
    /// libraries from 1.23 on `ort` takes pinned memory for the GPU's own unless it is built for them alone.
    fn tensor(&self, element: DataType, shape: &[usize]) -> ort::Result<DynTensor> {
        if let Some(pinned) = &self.pinned
            && let Ok(mut tensor) = tensor(pinned, element, shape)
            && buffer(element, &mut tensor).is_ok()
        {
            return Ok(tensor);
        }
        tensor(&self.plain, element, shape)
    }
}
