//! Inputs and outputs of a session in buffers that stay bound to it: one set for the shapes of each kind of batch,
//! used again whenever such a batch comes.

use half::f16;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use crate::model::graph::{Element, Graph};
use crate::model::session::{Buffer, Input, known};

/// The buffers for batches of certain shapes.
pub(super) struct Bound {
    /// Each input with its name, its element, its shape and its tensor.
    inputs: Vec<(String, Element, Vec<usize>, DynValue)>,
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
    pub(super) fn new(
        session: &Session,
        graph: &Graph,
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

    /// How much memory the buffers take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is for such inputs and outputs.
    pub(super) fn serves(&self, graph: &Graph, inputs: &[Input<'_>], wanted: &[&str]) -> bool {
        let own = self.inputs.iter().map(|(name, _, shape, _)| (&name[..], &shape[..]));
        own.eq(known(graph, inputs).map(|(_, input)| (input.name, &input.shape[..])))
            && self.wanted.iter().eq(wanted.iter())
    }

    /// Evaluate the graph; the outputs are there until the next evaluation.
    pub(super) fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
        graph: &Graph,
        inputs: &[Input<'_>],
    ) -> ort::Result<SessionOutputs<'a>> {
        for ((name, element, shape, tensor), (_, input)) in self.inputs.iter_mut().zip(known(graph, inputs)) {
            let (found, places) = (input.values.len(), shape.iter().product::<usize>());
            if found != places {
                let words = format!(
                    "the input {name} of shape {shape:?} takes {places} values and was given {found}"
                );
                return Err(ort::Error::new(words));
            }
            buffer(*element, tensor)?.fill(input.values);
            // Where the graph runs elsewhere, binding is what brings the values there.
            self.binding.bind_input(&name[..], tensor)?;
        }
        session.run_binding(&self.binding)
    }

    /// Give the outputs buffers of the shapes that they had in the last evaluation.
    pub(super) fn settle(
        &mut self,
        session: &Session,
        graph: &Graph,
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
            if let Some(element @ (Element::F32 | Element::F16)) = port.map(|port| port.element) {
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
    fn tensor(&self, element: Element, shape: &[usize]) -> ort::Result<DynValue> {
        if let Some(pinned) = &self.pinned
            && let Ok(mut tensor) = tensor(pinned, element, shape)
            && buffer(element, &mut tensor).is_ok()
        {
            return Ok(tensor);
        }
        tensor(&self.plain, element, shape)
    }
}

fn size(element: Element, shape: &[usize]) -> usize {
    let each = match element {
        Element::F32 | Element::I32 | Element::Other => 4,
        Element::F16 => 2,
        Element::I64 => 8,
    };
    each * shape.iter().product::<usize>()
}

fn tensor(memory: &Allocator, element: Element, shape: &[usize]) -> ort::Result<DynValue> {
    fn of<T>(memory: &Allocator, shape: &[usize]) -> ort::Result<DynValue>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug,
    {
        Ok(Tensor::<T>::new(memory, shape.to_vec())?.into_dyn())
    }
    match element {
        Element::F32 | Element::Other => of::<f32>(memory, shape),
        Element::F16 => of::<f16>(memory, shape),
        Element::I64 => of::<i64>(memory, shape),
        Element::I32 => of::<i32>(memory, shape),
    }
}

fn buffer(element: Element, tensor: &mut DynValue) -> ort::Result<Buffer<'_>> {
    Ok(match element {
        Element::F32 | Element::Other => Buffer::F32(tensor.try_extract_tensor_mut()?.1),
        Element::F16 => Buffer::F16(tensor.try_extract_tensor_mut()?.1),
        Element::I64 => Buffer::I64(tensor.try_extract_tensor_mut()?.1),
        Element::I32 => Buffer::I32(tensor.try_extract_tensor_mut()?.1),
    })
}
