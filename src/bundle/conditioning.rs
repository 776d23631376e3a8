//! Inputs of a denoiser that a pipeline computes from the prompt, the sizes and the guidance weight.

use crate::tensor::{Dim, ValueInfo};

/// An input that the pipeline fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInput {
    /// The name in the graph.
    pub name: String,
    /// The data for the input.
    pub role: Role,
    /// The axes for one sample, as the graph declares them.
    pub shape: Vec<Dim>,
}

impl TensorInput {
    /// The axes for one sample, with the most common length for each dynamic axis.
    pub(crate) fn usual_shape(&self, sample: &[usize]) -> Vec<usize> {
        let dynamic = match self.role {
            Role::ImageIds => sample[0],
            // CLIP's length. T5's embeddings can have it too.
            _ => 77,
        };
        self.shape.iter().map(|axis| axis.length().unwrap_or(dynamic)).collect()
    }

    /// Returns the input if its name is used by diffusers' exports.
    pub(super) fn from_value_info(value: &ValueInfo) -> Option<Self> {
        let role = Role::from_input_name(&value.name)?;
        let shape = if role.is_shared() { &value.shape[..] } else { value.shape.get(1..).unwrap_or(&[]) };
        Some(Self { name: value.name.clone(), role, shape: shape.to_vec() })
    }
}

/// The meaning of an input that the pipeline fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The prompt's embeddings, one row per token.
    Text,
    /// The pooled embedding of the prompt.
    Pooled,
    /// SDXL's micro-conditioning: original size, crop and target size.
    TimeIds,
    /// A sinusoidal embedding of the guidance weight (latent consistency models).
    GuidanceEmbedding,
    /// The guidance weight (Flux).
    Guidance,
    /// The positions of the image's patches (Flux). All samples share them.
    ImageIds,
    /// The positions of the text's tokens (Flux). All samples share them.
    TextIds,
}

impl Role {
    /// The role of an input by the name that diffusers' exports give it.
    fn from_input_name(name: &str) -> Option<Self> {
        Some(match name {
            "encoder_hidden_states" => Self::Text,
            "text_embeds" | "pooled_projections" => Self::Pooled,
            "time_ids" => Self::TimeIds,
            "timestep_cond" => Self::GuidanceEmbedding,
            "guidance" => Self::Guidance,
            "img_ids" => Self::ImageIds,
            "txt_ids" => Self::TextIds,
            _ => return None,
        })
    }

    /// Whether a batch has this input once instead of once per sample.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::ImageIds | Self::TextIds)
    }
}
