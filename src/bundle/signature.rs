//! The meaning of each input of a denoiser's graph, found from names, shapes and types.

mod advice;
mod axes;
mod channels;
mod error;
mod layout;
mod live;
mod output;
mod resolve;
mod shared_inputs;

use super::{PipelineKind, Role, TensorInput, TimeConvention};
use crate::tensor::{DataType, GraphIo};

pub(crate) use advice::graph_key;
pub(super) use axes::{floating, integer, number, timestep_shape};
pub use error::SignatureError;
pub(super) use error::{list, unsupported};
pub use layout::SampleLayout;
pub(super) use live::in_residual_order;
pub use live::{LiveInputs, LoraInput, ResidualInput};

/// How many time steps a graph takes in one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepShape {
    /// One for the whole batch, as a scalar.
    Scalar,
    /// One for the whole batch, as a tensor of length 1.
    Single,
    /// One per sample.
    PerSample,
}

/// The input for the time step or noise level.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeInput {
    /// The name in the graph.
    pub name: String,
    /// The type of the elements. For integer types, a fractional time step is truncated.
    pub element: DataType,
    /// How many time steps the graph takes.
    pub shape: TimestepShape,
    /// How the sampler's time step is converted.
    pub convention: TimeConvention,
}

/// How a denoiser is fed and read.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// All inputs and outputs.
    pub graph: GraphIo,
    /// The name of the input for the samples.
    pub sample: String,
    /// The type of the samples' elements.
    pub sample_element: DataType,
    /// The axes that the graph has for samples.
    pub layout: SampleLayout,
    /// The shape of a sample, without the batch axis and the extra channels.
    pub sample_shape: Vec<usize>,
    /// The batch size, if the graph fixes it.
    pub fixed_batch: Option<usize>,
    /// The largest number of samples in one evaluation.
    pub largest_batch: usize,
    /// The input for the time step.
    pub time: TimeInput,
    /// The name and type of the input for the class label.
    pub class: Option<(String, DataType)>,
    /// The names and types of the inputs for further conditions, in the manifest's order.
    pub conditions: Vec<(String, DataType)>,
    /// The inputs that the pipeline fills, in the graph's order.
    pub tensors: Vec<TensorInput>,
    /// The inputs that ControlNets and LoRAs fill.
    pub live: LiveInputs,
    /// Whether the height and width of a sample are dynamic.
    pub dynamic_size: bool,
    /// The channels of the sample's input that are not the sample's own: a mask and the masked image.
    pub extra_channels: usize,
    /// The name of the output that is read.
    pub output: String,
    /// Whether the output is the negative of what the sampler takes.
    pub negates_output: bool,
    /// The family of pipelines that the bundle's files name, if its inputs do not show it.
    pub named_kind: Option<PipelineKind>,
}

/// The channels and the size of samples in a network's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NetworkSize {
    /// `in_channels`.
    pub channels: Option<usize>,
    /// The height and width of `sample_size`.
    pub size: Option<(usize, usize)>,
    /// Whether samples are latents packed into one row per patch.
    pub packed: bool,
    /// The channels of a latent, if the network may take extra channels.
    pub own_channels: Option<usize>,
    /// The family of pipelines that the bundle's files name, if its inputs do not show it.
    pub named_kind: Option<PipelineKind>,
    /// `timestep_scale`.
    pub timestep_scale: Option<f64>,
}

impl Signature {
    /// The number of values in a sample.
    pub fn sample_len(&self) -> usize {
        self.sample_shape.iter().product()
    }

    /// How many values the network predicts per value of a sample, if the graph declares that.
    pub(crate) fn declared_outputs_per_value(&self) -> Option<usize> {
        let output = self.graph.outputs.iter().find(|output| output.name == self.output)?;
        output::outputs_per_value(output, &self.sample_shape)
    }

    /// The shape in which the network takes a sample, with the extra channels.
    pub fn input_shape(&self) -> Vec<usize> {
        let mut shape = Vec::new();
        self.write_input_shape(&self.sample_shape, &mut shape);
        shape
    }

    /// Replaces `input` by the shape in which the network takes a sample of the shape `sample`.
    pub(crate) fn write_input_shape(&self, sample: &[usize], input: &mut Vec<usize>) {
        input.clear();
        input.extend_from_slice(sample);
        input[0] += self.extra_channels;
    }

    /// The number of values of a sample that the network takes in the shape `input`, without the extra channels.
    pub(crate) fn own_len(&self, input: &[usize]) -> usize {
        (input[0] - self.extra_channels) * input[1..].iter().product::<usize>()
    }

    /// Whether the network takes a mask and the masked image beside the sample.
    pub fn is_inpainting(&self) -> bool {
        self.extra_channels > 0
    }

    /// The smallest number of samples in one evaluation.
    pub fn smallest_batch(&self) -> usize {
        self.fixed_batch.unwrap_or(1)
    }

    /// Whether one batch may hold samples at different time steps.
    pub fn mixes_time_steps(&self) -> bool {
        self.time.shape == TimestepShape::PerSample
    }

    /// The number of patches of a sample, if the graph takes packed latents and fixes it.
    pub(crate) fn fixed_patches(&self) -> Option<usize> {
        let sample = self.graph.inputs.iter().find(|input| input.name == self.sample)?;
        let positions = self.tensors.iter().find(|input| input.role == Role::ImageIds);
        let of_positions = positions.and_then(|input| input.shape.iter().rev().nth(1)?.length());
        sample.shape.get(1).filter(|_| sample.shape.len() == 3)?.length().or(of_positions)
    }

    /// The input for the mask of the prompt's embeddings.
    pub(super) fn text_mask(&self) -> Option<&str> {
        let mask = self.tensors.iter().find(|input| input.role == Role::TextMask)?;
        Some(&mask.name)
    }

    /// Whether an input has this role.
    pub fn has(&self, role: Role) -> bool {
        self.tensors.iter().any(|input| input.role == role)
    }

    /// The name and shape of every input for a batch of this size. Dynamic axes have their usual lengths.
    pub(crate) fn input_shapes(&self, batch: usize) -> Vec<(String, Vec<usize>)> {
        let time = match self.time.shape {
            TimestepShape::PerSample => vec![batch],
            TimestepShape::Single => vec![1],
            TimestepShape::Scalar => Vec::new(),
        };
        let per_sample = |shape: &[usize]| [&[batch], shape].concat();
        let numbers = self.class.iter().chain(&self.conditions).map(|(name, _)| (name.clone(), vec![batch]));
        let tensors = self.tensors.iter().map(|tensor| {
            let own = tensor.usual_shape(&self.sample_shape);
            (tensor.name.clone(), if tensor.is_shared { own } else { per_sample(&own) })
        });
        [(self.sample.clone(), self.layout.axes(batch, &self.input_shape())), (self.time.name.clone(), time)]
            .into_iter()
            .chain(numbers)
            .chain(tensors)
            .chain(self.live.idle_shapes().map(|(name, shape)| (name.to_owned(), shape)))
            .collect()
    }
}
