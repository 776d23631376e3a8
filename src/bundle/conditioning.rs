//! Inputs of a denoiser that a pipeline computes from the prompt, the sizes and the guidance weight.

use super::signature::{SignatureError, floating, number, unsupported};
use crate::tensor::{Dim, ValueInfo};

/// An input that the pipeline fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInput {
    /// The name in the graph.
    pub name: String,
    /// The data for the input.
    pub role: Role,
    /// The axes for one sample, as the graph declares them. If all samples share the input, all of its axes.
    pub shape: Vec<Dim>,
    /// Whether a batch has this input once instead of once per sample.
    pub is_shared: bool,
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

    /// Whether the graph takes values of this shape for one sample.
    pub(crate) fn accepts(&self, shape: &[usize]) -> bool {
        let fits = |(axis, length): (&Dim, &usize)| axis.length().is_none_or(|fixed| fixed == *length);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    /// Checks the axes and the type of an input with this role.
    pub(super) fn new(value: &ValueInfo, role: Role) -> Result<Self, SignatureError> {
        if role.is_position() || role == Role::TextMask {
            number(value)?
        } else {
            floating(value)?
        };
        let rank = value.shape.len();
        if !role.ranks().contains(&rank) {
            return Err(unsupported(value, role.expected_axes()));
        }
        let last = value.shape.last().and_then(Dim::length);
        if let Some(fixed) = last.filter(|fixed| !role.takes_width(*fixed)) {
            return Err(unsupported(value, role.wrong_width(fixed)));
        }
        // Positions without a batch axis, or with one of length 1, are the same for all samples. Exports of diffusers up
        // to 0.30 have them once per sample.
        let is_shared = role.is_position() && (rank == 2 || value.shape[0] == Dim::Fixed(1));
        let shape = if is_shared { &value.shape[..] } else { &value.shape[1..] };
        Ok(Self { name: value.name.clone(), role, shape: shape.to_vec(), is_shared })
    }
}

/// The meaning of an input that the pipeline fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The prompt's embeddings, one row per token.
    Text,
    /// Which rows of the prompt's embeddings count: 1, or 0 for padding.
    TextMask,
    /// The pooled embedding of the prompt.
    Pooled,
    /// SDXL's micro-conditioning: original size, crop and target size.
    TimeIds,
    /// A sinusoidal embedding of the guidance weight (latent consistency models).
    GuidanceEmbedding,
    /// The guidance weight (Flux).
    Guidance,
    /// The positions of the image's patches: three numbers each for Flux, four for FLUX.2.
    ImageIds,
    /// The positions of the text's tokens: as many numbers.
    TextIds,
}

impl Role {
    pub(super) const ALL: [Self; 8] = [
        Self::Text,
        Self::TextMask,
        Self::Pooled,
        Self::TimeIds,
        Self::GuidanceEmbedding,
        Self::Guidance,
        Self::ImageIds,
        Self::TextIds,
    ];

    /// The key under `[graph]` in denoised.toml that names the input.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TextMask => "text_mask",
            Self::Pooled => "pooled",
            Self::TimeIds => "time_ids",
            Self::GuidanceEmbedding => "timestep_cond",
            Self::Guidance => "guidance",
            Self::ImageIds => "img_ids",
            Self::TextIds => "txt_ids",
        }
    }

    /// The meaning in words.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Text => "the prompt's embeddings",
            Self::TextMask => "the mask of the prompt's embeddings",
            Self::Pooled => "the pooled embedding of the prompt",
            Self::TimeIds => "SDXL's sizes",
            Self::GuidanceEmbedding => "the embedding of the guidance weight",
            Self::Guidance => "the guidance weight",
            Self::ImageIds => "the positions of the image's patches",
            Self::TextIds => "the positions of the text's tokens",
        }
    }

    /// The names that diffusers' exports give the input.
    pub(super) fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["encoder_hidden_states"],
            Self::TextMask => &["encoder_attention_mask", "prompt_attention_mask"],
            Self::Pooled => &["text_embeds", "pooled_projections"],
            Self::TimeIds => &["time_ids"],
            Self::GuidanceEmbedding => &["timestep_cond"],
            Self::Guidance => &["guidance"],
            Self::ImageIds => &["img_ids"],
            Self::TextIds => &["txt_ids"],
        }
    }

    fn is_position(self) -> bool {
        matches!(self, Self::ImageIds | Self::TextIds)
    }

    /// How many axes the input may have.
    fn ranks(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Text => 3..=3,
            Self::TextMask | Self::Pooled | Self::TimeIds | Self::GuidanceEmbedding => 2..=2,
            Self::Guidance => 1..=1,
            Self::ImageIds | Self::TextIds => 2..=3,
        }
    }

    fn expected_axes(self) -> &'static str {
        match self {
            Self::Text => "text embeddings have three axes: batch, tokens and width",
            Self::TextMask => "the mask of a text has two axes: batch and tokens",
            Self::Pooled => "the pooled embedding of a text has two axes: batch and width",
            Self::TimeIds => "time_ids has two axes: batch and 6 numbers",
            Self::GuidanceEmbedding => "the embedding of the guidance weight has two axes: batch and width",
            Self::Guidance => "the guidance weight has one axis, the batch",
            Self::ImageIds | Self::TextIds => {
                "positions have the axes of their tokens and of 3 or 4 numbers, and may have a batch axis before them"
            }
        }
    }

    /// Whether the last axis may have this length.
    fn takes_width(self, width: usize) -> bool {
        match self {
            Self::TimeIds => width == 6,
            Self::ImageIds | Self::TextIds => width == 3 || width == 4,
            _ => true,
        }
    }

    fn wrong_width(self, found: usize) -> &'static str {
        match (self, found) {
            (Self::TimeIds, 5) => {
                "five numbers, with an aesthetic score, are those of SDXL's refiner, which is not served; use SDXL's \
                 base network"
            }
            (Self::TimeIds, _) => "time_ids has 6 numbers: original size, crop and target size",
            _ => "a position has 3 numbers, or 4 in FLUX.2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    #[test]
    fn positions_may_have_a_batch_axis() {
        let shared = |shape| {
            let input =
                TensorInput::new(&ValueInfo::with_axes("img_ids", DataType::I64, shape), Role::ImageIds)
                    .unwrap();
            (input.is_shared, input.usual_shape(&[16, 64]))
        };
        assert_eq!(shared(&[None, Some(3)]), (true, vec![16, 3]));
        assert_eq!(shared(&[Some(1), None, Some(3)]), (true, vec![1, 16, 3]));
        assert_eq!(shared(&[None, None, Some(3)]), (false, vec![16, 3]));
    }

    #[test]
    fn the_numbers_of_the_refiner_are_refused_by_name() {
        let refiner = ValueInfo::with_axes("time_ids", DataType::F32, &[None, Some(5)]);
        let error = TensorInput::new(&refiner, Role::TimeIds).unwrap_err().to_string();
        assert!(error.contains("time_ids float32[?, 5]") && error.contains("SDXL's refiner"), "{error}");
        let other = ValueInfo::with_axes("img_ids", DataType::I64, &[None, Some(5)]);
        assert!(TensorInput::new(&other, Role::ImageIds).unwrap_err().to_string().contains("FLUX.2"));
        assert!(
            TensorInput::new(
                &ValueInfo::with_axes("img_ids", DataType::I64, &[None, Some(4)]),
                Role::ImageIds
            )
            .is_ok()
        );
    }

    #[test]
    fn an_input_of_another_rank_or_type_is_refused() {
        for (role, element, shape) in [
            (Role::Text, DataType::F32, &[None, Some(768), Some(1), Some(77)][..]),
            (Role::Text, DataType::I64, &[None, None, Some(768)]),
            (Role::Pooled, DataType::F32, &[None, None, Some(768)]),
            (Role::Guidance, DataType::F32, &[]),
            (Role::TextIds, DataType::from_onnx(9), &[None, Some(3)]),
        ] {
            assert!(
                TensorInput::new(&ValueInfo::with_axes("x", element, shape), role).is_err(),
                "{role:?} {shape:?}"
            );
        }
    }

    #[test]
    fn the_types_that_an_input_may_have_are_those_of_its_role() {
        for (role, shape, expected) in [
            (Role::ImageIds, &[None, Some(3)][..], "its type must be float32, float16, int64 or int32"),
            (Role::TimeIds, &[None, Some(6)], "its type must be float32 or float16"),
        ] {
            let input = ValueInfo::with_axes("x", DataType::from_onnx(9), shape);
            let error = TensorInput::new(&input, role).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
