//! The inputs and outputs of a ControlNet's graph (Zhang et al. 2023), held against those of the U-Net that it steers.

mod folders;
mod other_networks;

use std::path::PathBuf;

use super::conditioning::{Role, TensorInput};
use super::signature::{in_residual_order, list, timestep_shape};
use super::{Signature, TimestepShape};
use crate::tensor::{Dim, GraphIo, ValueInfo};

pub(super) use folders::{ControlNetFolders, read_all};
pub(crate) use other_networks::is_residual;
pub(super) use other_networks::{takes_residuals, unserved_network};

/// The input for the picture, which tells a ControlNet from all other graphs.
const PICTURE: &str = "controlnet_cond";
/// The channels of a picture.
const PICTURE_CHANNELS: usize = 3;

/// A ControlNet of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNet {
    /// The name in jobs.
    pub name: String,
    /// The ONNX file.
    pub graph: PathBuf,
    /// How the graph is fed and read.
    pub io: ControlNetIo,
    /// `global_pool_conditions`: each residual is its mean over height and width, and only evaluations with the prompt are
    /// controlled.
    pub pools: bool,
}

/// How the graph of a ControlNet is fed and read.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetIo {
    /// The input for the sample, as the U-Net's scheduler scales it.
    pub sample: String,
    /// The input for the time step.
    pub time: String,
    /// How many time steps the graph takes.
    pub time_shape: TimestepShape,
    /// The input for the picture, [batch, 3, height, width] in 0..1.
    pub picture: String,
    /// The height and width of the picture, where the graph fixes them.
    pub size: [Option<usize>; 2],
    /// The input for the scale of the residuals, if there is one, with the axes that it has.
    pub scale: Option<(String, Vec<Dim>)>,
    /// The further inputs, each with the index of the U-Net's input that has the same values.
    pub tensors: Vec<(String, usize)>,
    /// The outputs, in the order of the U-Net's inputs: the residuals of the skip connections, and last the middle's.
    pub residuals: Vec<String>,
    /// The batch size, if the graph fixes it.
    pub fixed_batch: Option<usize>,
}

impl ControlNetIo {
    /// Whether a graph is a ControlNet: it takes a text and a picture that steers it.
    pub(super) fn is_controlnet(graph: &GraphIo) -> bool {
        graph.inputs.iter().any(|input| input.name == PICTURE)
            && graph.inputs.iter().any(|input| Role::Text.usual_names().contains(&input.name.as_str()))
    }

    /// Finds the meaning of each input and output of a ControlNet for this U-Net. An error is a predicate of the graph.
    pub(super) fn resolve(graph: &GraphIo, unet: &Signature) -> Result<Self, String> {
        let find = |names: &[&str]| graph.inputs.iter().find(|input| names.contains(&input.name.as_str()));
        let required = |names: &[&str], what: &str| {
            find(names).ok_or_else(|| {
                format!(
                    "has no input for the {what}; its inputs are: {}. Export it again",
                    list(&graph.inputs)
                )
            })
        };
        let sample = required(&["sample", "latent_sample"], "sample")?;
        let time = required(&["timestep", "timesteps", "t"], "time step")?;
        let picture = required(&[PICTURE], "picture")?;
        let scale = find(&["conditioning_scale", "controlnet_conditioning_scale"]);
        check_channels(sample, unet.sample_shape[0], "the U-Net's latents")?;
        check_channels(picture, PICTURE_CHANNELS, "an RGB picture")?;
        let fixed_batch = sample.shape.first().and_then(Dim::length).filter(|rows| *rows > 0);
        let time_shape =
            timestep_shape(time, fixed_batch).map_err(|error| format!("cannot be fed: {error}"))?;
        let named = [Some(sample), Some(time), Some(picture), scale];
        let is_named = |input: &&ValueInfo| named.iter().flatten().any(|named| named.name == input.name);
        let others = graph.inputs.iter().filter(|input| !is_named(input));
        let tensors = others.map(|input| shared_input(input, unet)).collect::<Result<_, _>>()?;
        Ok(Self {
            sample: sample.name.clone(),
            time: time.name.clone(),
            time_shape,
            picture: picture.name.clone(),
            size: [2, 3].map(|axis| picture.shape.get(axis).and_then(Dim::length)),
            scale: scale.map(|input| (input.name.clone(), input.shape.clone())),
            tensors,
            residuals: residuals(graph, unet)?,
            fixed_batch,
        })
    }

    /// The shape of the scale's input for a batch of this size. An axis that varies has one element for each row, and a
    /// second one for each residual.
    pub fn scale_shape(&self, batch: usize) -> Vec<usize> {
        let Some((_, axes)) = &self.scale else { return Vec::new() };
        let varying = |axis: usize| match (axes.len(), axis) {
            (1, _) => 1,
            (_, 0) => batch,
            _ => self.residuals.len(),
        };
        axes.iter().enumerate().map(|(axis, own)| own.length().unwrap_or_else(|| varying(axis))).collect()
    }
}

/// Checks the second of the four axes of an input.
fn check_channels(input: &ValueInfo, expected: usize, of: &str) -> Result<(), String> {
    match input.shape.as_slice() {
        [_, channels, _, _] if channels.length().is_none_or(|own| own == expected) => Ok(()),
        _ => Err(format!(
            "takes {input}, but {of} has four axes with {expected} channels; use another ControlNet"
        )),
    }
}

/// The name of an input, and the index of the U-Net's input that has the same values.
fn shared_input(input: &ValueInfo, unet: &Signature) -> Result<(String, usize), String> {
    let role = Role::ALL.into_iter().find(|role| role.usual_names().contains(&input.name.as_str()));
    let Some(role) = role else {
        return Err(format!(
            "takes the input {input}, which has no known meaning; export it without this input"
        ));
    };
    let own = unet.tensors.iter().position(|tensor| tensor.role == role);
    let Some(index) = own else {
        return Err(format!("takes the input {input}, which the U-Net does not have: {OTHER_MODEL}"));
    };
    let shape = &TensorInput::new(input, role).map_err(|error| format!("cannot be fed: {error}"))?.shape;
    let of_unet = &unet.tensors[index];
    let width = |axes: &[Dim]| axes.last().and_then(Dim::length);
    match (width(shape), width(&of_unet.shape)) {
        (Some(found), Some(expected)) if found != expected => Err(format!(
            "takes {} {found} wide{}, but the U-Net takes {expected}{}: {OTHER_MODEL}",
            input.name,
            model_of_width(role, found),
            model_of_width(role, expected)
        )),
        _ => Ok((input.name.clone(), index)),
    }
}

const OTHER_MODEL: &str = "it steers another model; use a ControlNet that was trained for this one";

/// The models whose prompts have embeddings of this width, in parentheses.
fn model_of_width(role: Role, width: usize) -> &'static str {
    match (role, width) {
        (Role::Text, 768) => " (Stable Diffusion 1)",
        (Role::Text, 1024) => " (Stable Diffusion 2)",
        (Role::Text, 2048) => " (Stable Diffusion XL)",
        _ => "",
    }
}

/// The outputs in the order of the U-Net's inputs, which must be as many and have as many channels.
fn residuals(graph: &GraphIo, unet: &Signature) -> Result<Vec<String>, String> {
    let is_residual = |output: &&ValueInfo| matches!(output.shape.len(), 0 | 4);
    let outputs: Vec<_> = graph.outputs.iter().filter(is_residual).collect();
    let Some(sorted) = in_residual_order(&outputs) else {
        return Err(format!(
            "has no residuals among its outputs, which number those of the skip connections and name the middle's; its \
             outputs are: {}. Export it again",
            list(&graph.outputs)
        ));
    };
    let inputs = &unet.live.residuals;
    if sorted.len() != inputs.len() {
        return Err(format!(
            "returns {} residuals, but the U-Net takes {}: {OTHER_MODEL}",
            sorted.len(),
            inputs.len()
        ));
    }
    for (output, input) in sorted.iter().zip(inputs) {
        let found = output.shape.get(1).and_then(Dim::length);
        if let (Some(found), Some(expected)) = (found, input.channels())
            && found != expected
        {
            return Err(format!(
                "returns {} with {found} channels, but the U-Net's input {} has {expected}: {OTHER_MODEL}",
                output.name, input.name
            ));
        }
    }
    Ok(sorted.into_iter().map(|output| output.name.clone()).collect())
}

#[cfg(test)]
mod tests;
