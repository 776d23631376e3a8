//! Inputs that a pipeline's text encoders and sizes fill.

use crate::tensor::{Dim, ValueInfo};

/// An input that a pipeline's other networks fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInput {
    /// Its name in the graph.
    pub name: String,
    /// What it is filled with.
    pub role: Role,
    /// One sample's axes as far as the graph fixes them.
    pub shape: Vec<Dim>,
}

impl TensorInput {
    /// One sample's axes, those that the graph leaves free at the lengths that they mostly have.
    pub(crate) fn usual_shape(&self, sample: &[usize]) -> Vec<usize> {
        let free = match self.role {
            Role::ImageIds => sample[0],
            // CLIP's length, at which every encoder's embeddings can be taken.
            _ => 77,
        };
        self.shape.iter().map(|axis| axis.length().unwrap_or(free)).collect()
    }
}

/// What an input of a pipeline's network means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The prompt's embeddings, a row for each token.
    Text,
    /// The prompt as one vector.
    Pooled,
    /// SDXL's original size, crop and target size.
    TimeIds,
    /// The guidance weight as a sinusoidal embedding (latent consistency models).
    GuidanceEmbedding,
    /// The guidance weight itself (Flux).
    Guidance,
    /// The places of the picture's patches (Flux), the same for all samples.
    ImageIds,
    /// The places of the text's tokens (Flux), the same for all samples.
    TextIds,
}

impl Role {
    /// What diffusers' graphs call them.
    fn of(name: &str) -> Option<Self> {
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

    /// Whether a batch has it once and not for each sample.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::ImageIds | Self::TextIds)
    }
}

/// The input, if its name has a meaning known here.
pub(super) fn tensor_input(port: &ValueInfo) -> Option<TensorInput> {
    let role = Role::of(&port.name)?;
    let shape = if role.is_shared() { &port.shape[..] } else { port.shape.get(1..).unwrap_or(&[]) };
    Some(TensorInput { name: port.name.clone(), role, shape: shape.to_vec() })
}
