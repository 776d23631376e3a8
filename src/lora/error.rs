//! Why a LoRA file cannot be used.

use super::key::Component;

/// A LoRA file that does not adapt the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoraError {
    /// The bytes are no complete safetensors file.
    #[error("it is not a complete safetensors file: {0}; copy or download it again")]
    Unreadable(String),
    /// The file holds no LoRA.
    #[error("it has no tensors of a LoRA; its first tensor is {first:?}")]
    NoLora {
        /// The name of the first tensor.
        first: String,
    },
    /// Another way to adapt a model.
    #[error("{count} of its tensors, such as {key:?}, belong to {kind}, which is not served. {hint}")]
    UnservedKind {
        /// The name of the method.
        kind: &'static str,
        /// One of the tensors.
        key: String,
        /// How many tensors belong to it.
        count: usize,
        /// What to do.
        hint: &'static str,
    },
    /// A factor of a layer is missing.
    #[error("{key:?} has no counterpart {missing:?}; the file is incomplete")]
    Incomplete {
        /// The tensor that is there.
        key: String,
        /// The tensor that is missing.
        missing: String,
    },
    /// The factors of a layer do not belong together.
    #[error("the shapes of {key:?} do not fit together: {reason}")]
    Shapes {
        /// One of the tensors.
        key: String,
        /// The shapes.
        reason: String,
    },
    /// A value that is no number.
    #[error("{key:?} contains NaN or infinity")]
    NonFinite {
        /// The tensor.
        key: String,
    },
    /// A type of number that is not read.
    #[error("{key:?} has the type {found}; float16, bfloat16, float32 and float64 are read")]
    Type {
        /// The tensor.
        key: String,
        /// The type's name.
        found: String,
    },
    /// A layer of the file has other lengths in the graph.
    #[error(
        "it was made for another model: {layer} maps {found_inputs} values to {found_outputs} there, but {inputs} to \
         {outputs} in this model"
    )]
    OtherModel {
        /// The name of the layer in the graph.
        layer: String,
        /// Values of the layer's input in the file.
        found_inputs: usize,
        /// Values of its output in the file.
        found_outputs: usize,
        /// Values of the layer's input in the graph.
        inputs: usize,
        /// Values of its output in the graph.
        outputs: usize,
    },
    /// Layers that the graphs have no inputs for.
    #[error(
        "it has {total} layers, of which {unknown} have no inputs in this model, such as {first:?} of {component}. {}",
        advice(*.unknown, *.total)
    )]
    UnknownLayers {
        /// How many layers have no inputs.
        unknown: usize,
        /// How many layers the file has.
        total: usize,
        /// The first of them, as the file writes it.
        first: String,
        /// The graph that it belongs to.
        component: Component,
    },
    /// The rank of a layer is too large.
    #[error(
        "it has the rank {rank} at {layer}, but limits.lora_rank is {limit}: raise it, or use files of smaller ranks"
    )]
    Rank {
        /// The name of the layer in the graph.
        layer: String,
        /// Its rank, that of all LoRAs together.
        rank: usize,
        /// The largest rank.
        limit: usize,
    },
}

/// What to do about layers without inputs.
fn advice(unknown: usize, total: usize) -> &'static str {
    if unknown == total {
        "Is it for another family of models? If not, give the export inputs for all layers with `denoised init --live FOLDER \
         --lora all`"
    } else {
        "Give the export inputs for all layers with `denoised init --live FOLDER --lora all`"
    }
}
