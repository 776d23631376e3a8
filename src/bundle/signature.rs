//! What each input of a graph means, found from names, shapes and types.

mod axes;
mod tensors;

use crate::bundle::manifest::Manifest;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
use axes::{floating, integer, number, sample_axes, time_shape};
use tensors::tensor_input;

pub use tensors::{Role, TensorInput};

/// How many time steps a graph takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepShape {
    /// One for the whole batch, a tensor without axes.
    Scalar,
    /// One for the whole batch, a tensor of length 1.
    Single,
    /// One for each sample.
    PerSample,
}

/// The input for the time step or noise level.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeInput {
    /// Its name in the graph.
    pub name: String,
    /// Its elements' type. Fractional time steps are cut to whole ones for integers.
    pub element: DataType,
    /// How many it takes.
    pub shape: TimestepShape,
    /// By what a sampler's time step is divided (1000 for Flux).
    pub over: f64,
}

/// How a network is fed and read.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// All inputs and outputs.
    pub graph: GraphIo,
    /// The sample's input.
    pub sample: String,
    /// The sample's elements' type.
    pub sample_element: DataType,
    /// A sample's axes without the batch.
    pub sample_shape: Vec<usize>,
    /// The batch's length, where the graph fixes it.
    pub fixed_batch: Option<usize>,
    /// The most samples that one evaluation takes.
    pub largest_batch: usize,
    /// The time step's input.
    pub time: TimeInput,
    /// The class label's input and type.
    pub class: Option<(String, DataType)>,
    /// Further conditions: input and type, in the manifest's order.
    pub conditions: Vec<(String, DataType)>,
    /// What a pipeline's other networks make for this one, in the graph's order.
    pub tensors: Vec<TensorInput>,
    /// Whether a sample may have another height and width than those of `sample_shape`.
    pub free_size: bool,
    /// How many channels the sample's input has beside the sample's own: a mask and what is known.
    pub beside: usize,
    /// The output that is read.
    pub output: String,
}

/// A graph whose inputs can't be understood.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SignatureError {
    /// An input that must be there is not.
    #[error(
        "the graph has no input for the {role}; it has: {inputs}. Name it in denoised.toml: \
         [graph] {role} = \"NAME\""
    )]
    Missing {
        /// What is looked for.
        role: &'static str,
        /// What there is.
        inputs: String,
    },
    /// An input that nothing is known of.
    #[error(
        "the graph's input {0} has no meaning known here. Name it in denoised.toml: \
         [conditions.NAME] input = \"…\""
    )]
    Unknown(String),
    /// A sample's axis is free and nothing says its length.
    #[error(
        "axis {axis} of the input {input} is free, and unet/config.json has no {key} that tells \
         its length"
    )]
    FreeAxis {
        /// The input.
        input: String,
        /// The axis, counted from 0.
        axis: usize,
        /// The key that could tell.
        key: &'static str,
    },
    /// An input whose shape or type can't be served.
    #[error("the graph's input {port} can't be fed: {reason}")]
    Unfit {
        /// The input with type and shape.
        port: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is no output of the name, or none at all.
    #[error("the graph has no output named {0:?}")]
    NoOutput(String),
}

/// The numbers of unet/config.json that free axes need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkSize {
    /// `in_channels`.
    pub channels: Option<usize>,
    /// `sample_size`, the height and the width.
    pub size: Option<(usize, usize)>,
    /// Whether samples are latents packed into rows of patches.
    pub packed: bool,
    /// The channels of a sample where the network's input has further ones.
    pub own_channels: Option<usize>,
}

const SAMPLE_NAMES: [&str; 3] = ["sample", "latent_sample", "hidden_states"];
const TIME_NAMES: [&str; 5] = ["timestep", "timesteps", "t", "noise_level", "sigma"];
const CLASS_NAMES: [&str; 2] = ["class_labels", "class_label"];

impl Signature {
    /// Find the roles; the manifest's names count before the customary ones.
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
        // What the manifest calls a condition is one, whatever its name.
        let free = graph.inputs.iter().filter(|port| conditions.iter().all(|used| used.name != port.name));
        let tensors: Vec<TensorInput> = free.filter_map(tensor_input).collect();
        let known = |port: &ValueInfo| {
            [Some(sample), Some(time), class]
                .into_iter()
                .flatten()
                .chain(conditions.iter().copied())
                .any(|used| used.name == port.name)
                || tensors.iter().any(|tensor| tensor.name == port.name)
        };
        if let Some(unknown) = graph.inputs.iter().find(|port| !known(port)) {
            return Err(SignatureError::Unknown(unknown.to_string()));
        }
        let output = match &names.output {
            Some(name) => graph.outputs.iter().find(|port| &port.name == name),
            None => graph.outputs.first(),
        }
        .ok_or_else(|| SignatureError::NoOutput(names.output.clone().unwrap_or_default()))?;
        floating(sample)?;
        let (fixed_batch, mut sample_shape) = sample_axes(sample, network)?;
        let free_size = sample.shape.len() == 4 && sample.shape[2..] == [Dim::Dynamic, Dim::Dynamic];
        let own = network.own_channels.unwrap_or(sample_shape[0]);
        let beside = match sample_shape[0].checked_sub(own) {
            Some(beside) if beside == 0 || beside == own + 1 => beside,
            _ => return Err(unfit(sample, "it has more channels than a sample, its mask and what is known")),
        };
        sample_shape[0] = own;
        Ok(Self {
            graph: graph.clone(),
            sample: sample.name.clone(),
            sample_element: sample.element,
            sample_shape,
            free_size,
            beside,
            tensors,
            fixed_batch,
            largest_batch: fixed_batch.unwrap_or(largest_batch),
            time: TimeInput {
                name: time.name.clone(),
                element: number(time)?,
                shape: time_shape(time, fixed_batch)?,
                over: if network.packed { 1000.0 } else { 1.0 },
            },
            class: class.map(|port| Ok((port.name.clone(), integer(port)?))).transpose()?,
            conditions: conditions
                .into_iter()
                .map(|port| Ok((port.name.clone(), floating(port)?)))
                .collect::<Result<_, SignatureError>>()?,
            output: output.name.clone(),
        })
    }

    /// How many values a sample has.
    pub fn sample_len(&self) -> usize {
        self.sample_shape.iter().product()
    }

    /// The fewest samples that one evaluation takes.
    pub fn smallest_batch(&self) -> usize {
        self.fixed_batch.unwrap_or(1)
    }

    /// Whether one batch may hold samples at different time steps.
    pub fn mixes_time_steps(&self) -> bool {
        self.time.shape == TimestepShape::PerSample
    }
}

fn find<'a>(
    graph: &'a GraphIo,
    named: Option<&str>,
    customary: &[&str],
    role: &'static str,
) -> Result<&'a ValueInfo, SignatureError> {
    let matches = |port: &&ValueInfo| match named {
        Some(name) => port.name == name,
        None => customary.contains(&port.name.as_str()),
    };
    graph.inputs.iter().find(matches).ok_or_else(|| {
        let inputs: Vec<_> = graph.inputs.iter().map(ValueInfo::to_string).collect();
        SignatureError::Missing { role, inputs: inputs.join(", ") }
    })
}

fn unfit(port: &ValueInfo, reason: &'static str) -> SignatureError {
    SignatureError::Unfit { port: port.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element: DataType, shape: &[Option<usize>]) -> ValueInfo {
        ValueInfo {
            name: name.to_owned(),
            element,
            shape: shape.iter().map(|n| n.map_or(Dim::Dynamic, Dim::Fixed)).collect(),
        }
    }

    fn graph(time: ValueInfo) -> GraphIo {
        GraphIo {
            inputs: vec![port("sample", DataType::F32, &[None, Some(1), Some(28), Some(28)]), time],
            outputs: vec![port("out_sample", DataType::F32, &[None, None, None, None])],
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
            let signature = resolve(&graph(port("timestep", element, shape))).unwrap();
            assert_eq!(signature.time.element, element);
            assert_eq!(signature.time.shape, expected);
            assert_eq!(signature.sample_shape, [1, 28, 28]);
            assert_eq!(signature.mixes_time_steps(), expected == TimestepShape::PerSample);
        }
    }

    #[test]
    fn a_fixed_batch_bounds_the_batch() {
        let mut graph = graph(port("timestep", DataType::I64, &[Some(2)]));
        graph.inputs[0].shape[0] = Dim::Fixed(2);
        let signature = resolve(&graph).unwrap();
        assert_eq!((signature.smallest_batch(), signature.largest_batch), (2, 2));
        assert_eq!(signature.time.shape, TimestepShape::PerSample);
    }

    #[test]
    fn free_axes_need_the_configuration() {
        let mut graph = graph(port("timestep", DataType::I64, &[None]));
        graph.inputs[0].shape[3] = Dim::Dynamic;
        let error = resolve(&graph).unwrap_err();
        assert!(error.to_string().contains("sample_size"), "{error}");
        let network =
            NetworkSize { channels: Some(1), size: Some((28, 32)), own_channels: None, packed: false };
        let signature = Signature::resolve(&graph, &Manifest::default(), network, 8).unwrap();
        assert_eq!(signature.sample_shape, [1, 28, 32]);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named_with_the_way_out() {
        let error = resolve(&graph(port("clock", DataType::I64, &[None]))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no input for the timestep"), "{text}");
        assert!(text.contains("clock int64[?]") && text.contains("denoised.toml"), "{text}");

        let mut graph = graph(port("timestep", DataType::I64, &[None]));
        graph.inputs.push(port("difficulty", DataType::F32, &[None]));
        let error = resolve(&graph).unwrap_err();
        assert_eq!(error, SignatureError::Unknown("difficulty float32[?]".to_owned()));
    }
}
