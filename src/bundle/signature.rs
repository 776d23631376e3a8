//! The meaning of each input of a denoiser's graph, found from names, shapes and types.

mod axes;
mod error;

use super::{Manifest, Role, TensorInput};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
use axes::{floating, integer, number, sample_axes, timestep_shape};

pub use error::SignatureError;

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
    /// The sampler's time step is divided by this: 1000 for Flux, else 1.
    pub timestep_scale: f64,
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
    /// Whether the height and width of a sample are dynamic.
    pub dynamic_size: bool,
    /// The channels of the sample's input that are not the sample's own: a mask and the masked image.
    pub extra_channels: usize,
    /// The name of the output that is read.
    pub output: String,
}

/// The channels and the size of samples in a network's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkSize {
    /// `in_channels`.
    pub channels: Option<usize>,
    /// The height and width of `sample_size`.
    pub size: Option<(usize, usize)>,
    /// Whether samples are latents packed into one row per patch.
    pub packed: bool,
    /// The channels of a latent, if the network may take extra channels.
    pub own_channels: Option<usize>,
}

const SAMPLE_NAMES: [&str; 3] = ["sample", "latent_sample", "hidden_states"];
const TIME_NAMES: [&str; 5] = ["timestep", "timesteps", "t", "noise_level", "sigma"];
const CLASS_NAMES: [&str; 2] = ["class_labels", "class_label"];

impl Signature {
    /// Finds the role of each input. Names in the manifest take precedence over the usual names.
    pub fn resolve(
        graph: &GraphIo,
        manifest: &Manifest,
        network: NetworkSize,
        largest_batch: usize,
    ) -> Result<Self, SignatureError> {
        let names = &manifest.graph;
        let sample = find(graph, names.sample.as_deref(), &SAMPLE_NAMES, "sample")?;
        let time = find(graph, names.timestep.as_deref(), &TIME_NAMES, "timestep")?;
        let class = find(graph, names.class_labels.as_deref(), &CLASS_NAMES, "class_labels").ok();
        let conditions = manifest
            .conditions
            .iter()
            .map(|(name, condition)| {
                let input = condition.input.as_deref().unwrap_or(name);
                find(graph, Some(input), &[], "condition")
            })
            .collect::<Result<Vec<_>, _>>()?;
        // An input that the manifest declares as a condition is one, whatever its name.
        let is_condition = |input: &&ValueInfo| conditions.iter().any(|used| used.name == input.name);
        let others = graph.inputs.iter().filter(|input| !is_condition(input));
        let tensors: Vec<TensorInput> = others.filter_map(TensorInput::from_value_info).collect();
        let is_known = |input: &ValueInfo| {
            [Some(sample), Some(time), class].into_iter().flatten().any(|used| used.name == input.name)
                || is_condition(&input)
                || tensors.iter().any(|tensor| tensor.name == input.name)
        };
        if let Some(unknown) = graph.inputs.iter().find(|input| !is_known(input)) {
            return Err(SignatureError::Unknown(unknown.to_string()));
        }
        let output = match &names.output {
            Some(name) => graph.outputs.iter().find(|output| &output.name == name),
            None => graph.outputs.first(),
        }
        .ok_or_else(|| SignatureError::NoOutput(names.output.clone().unwrap_or_default()))?;
        floating(sample)?;
        let (fixed_batch, mut sample_shape) = sample_axes(sample, network)?;
        let extra_channels = split_extra_channels(sample, &mut sample_shape, network.own_channels)?;
        Ok(Self {
            graph: graph.clone(),
            sample: sample.name.clone(),
            sample_element: sample.element,
            sample_shape,
            dynamic_size: sample.shape.len() == 4 && sample.shape[2..] == [Dim::Dynamic, Dim::Dynamic],
            extra_channels,
            tensors,
            fixed_batch,
            largest_batch: fixed_batch.unwrap_or(largest_batch),
            time: TimeInput {
                name: time.name.clone(),
                element: number(time)?,
                shape: timestep_shape(time, fixed_batch)?,
                timestep_scale: if network.packed { 1000.0 } else { 1.0 },
            },
            class: class.map(|input| Ok((input.name.clone(), integer(input)?))).transpose()?,
            conditions: conditions
                .into_iter()
                .map(|input| Ok((input.name.clone(), floating(input)?)))
                .collect::<Result<_, SignatureError>>()?,
            output: output.name.clone(),
        })
    }

    /// The number of values in a sample.
    pub fn sample_len(&self) -> usize {
        self.sample_shape.iter().product()
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
            (tensor.name.clone(), if tensor.role.is_shared() { own } else { per_sample(&own) })
        });
        [(self.sample.clone(), per_sample(&self.input_shape())), (self.time.name.clone(), time)]
            .into_iter()
            .chain(numbers)
            .chain(tensors)
            .collect()
    }
}

/// Removes the channels of a mask and a masked image from a sample's shape, and returns their number.
fn split_extra_channels(
    sample: &ValueInfo,
    shape: &mut [usize],
    own: Option<usize>,
) -> Result<usize, SignatureError> {
    let own = own.unwrap_or(shape[0]);
    match shape[0].checked_sub(own) {
        Some(extra) if extra == 0 || extra == own + 1 => {
            shape[0] = own;
            Ok(extra)
        }
        _ => Err(unsupported(sample, "it has more channels than a sample, its mask and the masked image")),
    }
}

fn find<'a>(
    graph: &'a GraphIo,
    named: Option<&str>,
    usual: &[&str],
    role: &'static str,
) -> Result<&'a ValueInfo, SignatureError> {
    let matches = |input: &&ValueInfo| match named {
        Some(name) => input.name == name,
        None => usual.contains(&input.name.as_str()),
    };
    graph.inputs.iter().find(matches).ok_or_else(|| {
        let inputs: Vec<_> = graph.inputs.iter().map(ValueInfo::to_string).collect();
        SignatureError::Missing { role, inputs: inputs.join(", ") }
    })
}

fn unsupported(input: &ValueInfo, reason: &'static str) -> SignatureError {
    SignatureError::Unsupported { input: input.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, element: DataType, shape: &[Option<usize>]) -> ValueInfo {
        ValueInfo {
            name: name.to_owned(),
            element,
            shape: shape.iter().map(|n| n.map_or(Dim::Dynamic, Dim::Fixed)).collect(),
        }
    }

    fn graph(time: ValueInfo) -> GraphIo {
        GraphIo {
            inputs: vec![value("sample", DataType::F32, &[None, Some(1), Some(28), Some(28)]), time],
            outputs: vec![value("out_sample", DataType::F32, &[None, None, None, None])],
        }
    }

    fn resolve(graph: &GraphIo) -> Result<Signature, SignatureError> {
        Signature::resolve(graph, &Manifest::default(), NetworkSize::default(), 8)
    }

    #[test]
    fn the_time_step_is_read_from_the_graph() {
        for (element, shape, expected) in [
            (DataType::F32, &[][..], TimestepShape::Scalar),
            (DataType::I64, &[Some(1)], TimestepShape::Single),
            (DataType::F16, &[None], TimestepShape::PerSample),
        ] {
            let signature = resolve(&graph(value("timestep", element, shape))).unwrap();
            assert_eq!(signature.time.element, element);
            assert_eq!(signature.time.shape, expected);
            assert_eq!(signature.sample_shape, [1, 28, 28]);
            assert_eq!(signature.mixes_time_steps(), expected == TimestepShape::PerSample);
        }
    }

    #[test]
    fn a_fixed_batch_bounds_the_batch() {
        let mut graph = graph(value("timestep", DataType::I64, &[Some(2)]));
        graph.inputs[0].shape[0] = Dim::Fixed(2);
        let signature = resolve(&graph).unwrap();
        assert_eq!((signature.smallest_batch(), signature.largest_batch), (2, 2));
        assert_eq!(signature.time.shape, TimestepShape::PerSample);
    }

    #[test]
    fn dynamic_axes_need_the_configuration() {
        let mut graph = graph(value("timestep", DataType::I64, &[None]));
        graph.inputs[0].shape[3] = Dim::Dynamic;
        let error = resolve(&graph).unwrap_err();
        assert!(error.to_string().contains("sample_size"), "{error}");
        let network =
            NetworkSize { channels: Some(1), size: Some((28, 32)), own_channels: None, packed: false };
        let signature = Signature::resolve(&graph, &Manifest::default(), network, 8).unwrap();
        assert_eq!(signature.sample_shape, [1, 28, 32]);
    }

    #[test]
    fn a_missing_or_unknown_input_is_named_with_a_hint() {
        let error = resolve(&graph(value("clock", DataType::I64, &[None]))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no input for the timestep"), "{text}");
        assert!(text.contains("clock int64[?]") && text.contains("denoised.toml"), "{text}");

        let mut graph = graph(value("timestep", DataType::I64, &[None]));
        graph.inputs.push(value("difficulty", DataType::F32, &[None]));
        let error = resolve(&graph).unwrap_err();
        assert_eq!(error, SignatureError::Unknown("difficulty float32[?]".to_owned()));
    }
}
