//! Finds the role of each input and the prediction among the outputs.

use super::advice::{KnownInputs, unknown_input};
use super::axes::{floating, integer, number, sample_axes, timestep_shape};
use super::channels::split_extra_channels;
use super::error::{list, not_an_input, unsupported};
use super::output::prediction;
use super::shared_inputs::{self, FoundInputs, named_inputs};
use super::{LiveInputs, NetworkSize, SampleLayout, Signature, SignatureError, TimeInput};
use crate::bundle::{GraphNames, Manifest, PipelineKind, Role, TensorInput, TimeConvention};
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

const SAMPLE_NAMES: [&str; 3] = ["sample", "latent_sample", "hidden_states"];
const TIME_NAMES: [&str; 5] = ["timestep", "timesteps", "t", "noise_level", "sigma"];
const CLASS_NAMES: [&str; 2] = ["class_labels", "class_label"];

impl Signature {
    /// The input for the samples.
    pub(in crate::bundle) fn sample_input<'a>(
        graph: &'a GraphIo,
        manifest: &Manifest,
    ) -> Result<&'a ValueInfo, SignatureError> {
        let named = named_inputs(manifest);
        required(graph, manifest.graph.sample.as_deref(), &SAMPLE_NAMES, &named, "sample")
    }

    /// Finds the role of each input. Names in the manifest take precedence over the usual names.
    pub fn resolve(
        graph: &GraphIo,
        manifest: &Manifest,
        network: NetworkSize,
        largest_batch: usize,
    ) -> Result<Self, SignatureError> {
        let names = &manifest.graph;
        let named = named_inputs(manifest);
        let sample = Self::sample_input(graph, manifest)?;
        let time = required(graph, names.timestep.as_deref(), &TIME_NAMES, &named, "timestep")?;
        let key = "[graph] class_labels";
        let class = find(graph, names.class_labels.as_deref(), &CLASS_NAMES, &named, key)?;
        shared_inputs::check(graph, manifest, &FoundInputs { sample, time, class })?;
        floating(sample)?;
        let network = network.with_packed_axis(sample);
        let (layout, axes) = SampleLayout::split(&sample.shape, network.channels.or(network.own_channels));
        let (sample_batch, mut sample_shape) = sample_axes(sample, &axes, network)?;
        let extra_channels = split_extra_channels(sample, &mut sample_shape, network)?;
        let conditions = conditions(graph, manifest)?;
        let single: Vec<&ValueInfo> = [Some(sample), Some(time), class]
            .into_iter()
            .flatten()
            .chain(conditions.iter().copied())
            .collect();
        let tensors = tensors(graph, names, &single)?;
        let roles: Vec<Role> = tensors.iter().map(|(_, tensor)| tensor.role).collect();
        let is_known = |input: &&ValueInfo| {
            let is_single = single.iter().any(|used| used.name == input.name);
            is_single || tensors.iter().any(|(used, _)| used.name == input.name)
        };
        let live = LiveInputs::find(graph, |input| is_known(&input));
        let is_unknown = |input: &&ValueInfo| !is_known(input) && !live.contains(&input.name);
        if let Some(unknown) = graph.inputs.iter().find(is_unknown) {
            return Err(unknown_input(unknown, &KnownInputs { roles: &roles, has_class: class.is_some() }));
        }
        let per_sample = tensors.iter().filter(|(_, tensor)| !tensor.is_shared).map(|(value, _)| *value);
        let per_sample = class.into_iter().chain(conditions.iter().copied()).chain(per_sample);
        let fixed_batch = common_batch(sample_batch, per_sample)?;
        let output = prediction(graph, names.output.as_deref(), &sample_shape)?;
        let mut signature = Self {
            graph: graph.clone(),
            sample: sample.name.clone(),
            sample_element: sample.element,
            sample_shape,
            layout,
            dynamic_size: axes.len() == 4 && axes[2..] == [Dim::Dynamic, Dim::Dynamic],
            extra_channels,
            fixed_batch,
            largest_batch: fixed_batch.unwrap_or(largest_batch),
            time: TimeInput {
                name: time.name.clone(),
                element: number(time)?,
                shape: timestep_shape(time, fixed_batch)?,
                convention: if network.packed { TimeConvention::Sigma } else { TimeConvention::Step },
            },
            class: class.map(class_input).transpose()?,
            conditions: conditions.into_iter().map(condition_input).collect::<Result<_, _>>()?,
            tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect(),
            live,
            output: output.name.clone(),
            negates_output: false,
            named_kind: network.named_kind,
        };
        if let Some(kind) = PipelineKind::from_signature(&signature) {
            signature.time.convention = kind.facts().time_convention(network.timestep_scale);
            signature.negates_output = kind.facts().negates_output;
        }
        Ok(signature)
    }
}

impl NetworkSize {
    /// Adds that samples are packed latents, where the graph's own axes show it and no configuration does.
    fn with_packed_axis(self, sample: &ValueInfo) -> Self {
        match (sample.shape.as_slice(), self.own_channels) {
            ([_, _, Dim::Fixed(width)], Some(own)) if *width == 4 * own => {
                Self { packed: true, channels: Some(*width), own_channels: None, ..self }
            }
            _ => self,
        }
    }
}

/// The inputs that the manifest declares as conditions. An input is one whatever its name.
fn conditions<'a>(graph: &'a GraphIo, manifest: &Manifest) -> Result<Vec<&'a ValueInfo>, SignatureError> {
    let conditions = manifest.conditions.iter().map(|(name, condition)| {
        let input = condition.input.as_deref().unwrap_or(name);
        let found = graph.inputs.iter().find(|value| value.name == input);
        found.ok_or_else(|| not_an_input(graph, format!("[conditions.{name}]"), input))
    });
    conditions.collect()
}

fn condition_input(input: &ValueInfo) -> Result<(String, DataType), SignatureError> {
    if input.shape.len() != 1 {
        let advice = unknown_input(input, &KnownInputs { roles: &[], has_class: false });
        let advice = match advice {
            SignatureError::Unknown { advice, .. } => advice,
            other => return Err(other),
        };
        let reason = format!(
            "denoised.toml declares it as a condition, which is one number per sample and has one axis. Remove its \
             section [conditions]. {advice}"
        );
        return Err(unsupported(input, reason));
    }
    Ok((input.name.clone(), floating(input)?))
}

fn class_input(input: &ValueInfo) -> Result<(String, DataType), SignatureError> {
    if input.shape.len() != 1 {
        let reason = if input.element.is_float() {
            "two axes of floating-point numbers are the embedding of an image (unCLIP), which is not served"
        } else {
            "a class label is one number per sample and has one axis"
        };
        return Err(unsupported(input, reason));
    }
    Ok((input.name.clone(), integer(input)?))
}

/// The inputs that the pipeline fills, in the graph's order. `taken` are those with another meaning.
fn tensors<'a>(
    graph: &'a GraphIo,
    names: &GraphNames,
    taken: &[&ValueInfo],
) -> Result<Vec<(&'a ValueInfo, TensorInput)>, SignatureError> {
    for role in Role::ALL {
        let key = format!("[graph] {}", role.key());
        find(graph, names.role_name(role), &[], &[], key)?;
    }
    let is_taken = |input: &ValueInfo| taken.iter().any(|used| used.name == input.name);
    let role_of = |input: &ValueInfo| {
        let named = |role: &Role| names.role_name(*role) == Some(input.name.as_str());
        let usual = |role: &Role| {
            names.role_name(*role).is_none() && role.usual_names().contains(&input.name.as_str())
        };
        Role::ALL.into_iter().find(named).or_else(|| Role::ALL.into_iter().find(usual))
    };
    let inputs = graph.inputs.iter().filter(|input| !is_taken(input));
    inputs
        .filter_map(|input| Some((input, role_of(input)?)))
        .map(|(input, role)| Ok((input, TensorInput::new(input, role)?)))
        .collect()
}

/// The batch size that the inputs fix. They must agree on it.
fn common_batch<'a>(
    sample: Option<usize>,
    others: impl Iterator<Item = &'a ValueInfo>,
) -> Result<Option<usize>, SignatureError> {
    let mut batch = sample;
    for input in others {
        match (batch, input.shape.first().and_then(Dim::length)) {
            (Some(known), Some(own)) if known != own => {
                let reason =
                    format!("its batch axis has length {own}, but that of another input has {known}");
                return Err(unsupported(input, reason));
            }
            (known, own) => batch = known.or(own),
        }
    }
    Ok(batch)
}

/// The input with the name from the manifest, or else with one of the usual names. Of those, the first that is not among
/// `others`, the names that the manifest gives to inputs.
fn find<'a>(
    graph: &'a GraphIo,
    named: Option<&str>,
    usual: &[&str],
    others: &[&str],
    key: impl Into<String>,
) -> Result<Option<&'a ValueInfo>, SignatureError> {
    match named {
        Some(name) => {
            let found = graph.inputs.iter().find(|input| input.name == name);
            found.map(Some).ok_or_else(|| not_an_input(graph, key, name))
        }
        None => {
            let mut usual = graph.inputs.iter().filter(|input| usual.contains(&input.name.as_str()));
            let first = usual.clone().next();
            Ok(usual.find(|input| !others.contains(&input.name.as_str())).or(first))
        }
    }
}

fn required<'a>(
    graph: &'a GraphIo,
    named: Option<&str>,
    usual: &[&str],
    others: &[&str],
    role: &'static str,
) -> Result<&'a ValueInfo, SignatureError> {
    let missing = || SignatureError::Missing { role, inputs: list(&graph.inputs) };
    find(graph, named, usual, others, format!("[graph] {role}"))?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::TimestepShape;

    fn graph(time: ValueInfo) -> GraphIo {
        GraphIo {
            inputs: vec![
                ValueInfo::with_axes("sample", DataType::F32, &[None, Some(1), Some(28), Some(28)]),
                time,
            ],
            outputs: vec![ValueInfo::with_axes("out_sample", DataType::F32, &[None, None, None, None])],
        }
    }

    fn timestep() -> ValueInfo {
        ValueInfo::with_axes("timestep", DataType::I64, &[None])
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
            let signature = resolve(&graph(ValueInfo::with_axes("timestep", element, shape))).unwrap();
            assert_eq!(signature.time.element, element);
            assert_eq!(signature.time.shape, expected);
            assert_eq!(signature.sample_shape, [1, 28, 28]);
            assert_eq!(signature.mixes_time_steps(), expected == TimestepShape::PerSample);
        }
    }

    #[test]
    fn a_fixed_batch_bounds_the_batch() {
        let mut graph = graph(ValueInfo::with_axes("timestep", DataType::I64, &[Some(2)]));
        graph.inputs[0].shape[0] = Dim::Fixed(2);
        let signature = resolve(&graph).unwrap();
        assert_eq!((signature.smallest_batch(), signature.largest_batch), (2, 2));
        assert_eq!(signature.time.shape, TimestepShape::PerSample);
        // Any other input may fix it too, but not to another length.
        graph.inputs.push(ValueInfo::with_axes(
            "encoder_hidden_states",
            DataType::F32,
            &[Some(2), None, Some(8)],
        ));
        assert_eq!(resolve(&graph).unwrap().fixed_batch, Some(2));
        graph.inputs[0].shape[0] = Dim::Dynamic;
        assert_eq!(resolve(&graph).unwrap().largest_batch, 2);
        graph.inputs[0].shape[0] = Dim::Fixed(3);
        let error = resolve(&graph).unwrap_err().to_string();
        assert!(error.contains("encoder_hidden_states") && error.contains("length 2"), "{error}");
    }

    #[test]
    fn dynamic_axes_need_the_configuration() {
        let mut graph = graph(timestep());
        graph.inputs[0].shape[3] = Dim::Dynamic;
        let error = resolve(&graph).unwrap_err();
        assert!(error.to_string().contains("sample_size"), "{error}");
        let network = NetworkSize { channels: Some(1), size: Some((28, 32)), ..NetworkSize::default() };
        let signature = Signature::resolve(&graph, &Manifest::default(), network, 8).unwrap();
        assert_eq!(signature.sample_shape, [1, 28, 32]);
    }

    #[test]
    fn a_missing_or_unknown_input_is_named_with_a_hint() {
        let error = resolve(&graph(ValueInfo::with_axes("clock", DataType::I64, &[None]))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no input for the timestep"), "{text}");
        assert!(text.contains("clock int64[?]") && text.contains("denoised.toml"), "{text}");

        let mut graph = graph(timestep());
        graph.inputs.push(ValueInfo::with_axes("difficulty", DataType::F32, &[None]));
        let text = resolve(&graph).unwrap_err().to_string();
        assert!(text.contains("difficulty float32[?]") && text.contains("[conditions."), "{text}");
    }

    #[test]
    fn inputs_are_named_in_the_manifest() {
        let mut graph = graph(timestep());
        graph.inputs.push(ValueInfo::with_axes("context", DataType::F32, &[None, None, Some(8)]));
        let resolve = |manifest: &str| {
            let manifest = Manifest::parse(manifest).unwrap();
            Signature::resolve(&graph, &manifest, NetworkSize::default(), 8)
                .map_err(|error| error.to_string())
        };
        let text = &resolve("[graph]\ntext = \"context\"").unwrap().tensors[0];
        assert_eq!((text.name.as_str(), text.role), ("context", Role::Text));
        for (manifest, key) in [
            ("[graph]\ntext = \"contxt\"", "[graph] text names \"contxt\""),
            ("[graph]\nclass_labels = \"y\"", "[graph] class_labels names \"y\""),
            ("[conditions.c]\ninput = \"z\"\ndefault = 0.0", "[conditions.c] names \"z\""),
        ] {
            let error = resolve(manifest).unwrap_err();
            assert!(error.contains(key) && error.contains("context float32[?, ?, 8]"), "{error}");
        }
        let error = resolve("[conditions.context]\ndefault = 0.0").unwrap_err();
        assert!(error.contains("one number per sample"), "{error}");
    }

    #[test]
    fn packed_latents_are_known_by_their_axes() {
        let mut graph = graph(timestep());
        graph.inputs[0].shape = vec![Dim::Dynamic, Dim::Dynamic, Dim::Fixed(64)];
        graph.outputs[0].shape = vec![Dim::Dynamic, Dim::Dynamic, Dim::Fixed(64)];
        let network = NetworkSize { own_channels: Some(16), ..NetworkSize::default() };
        let signature = Signature::resolve(&graph, &Manifest::default(), network, 8).unwrap();
        assert_eq!((signature.sample_shape[1], signature.time.convention), (64, TimeConvention::Sigma));
        assert_eq!(signature.fixed_patches(), None);
    }
}
