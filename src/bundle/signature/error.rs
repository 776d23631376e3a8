//! Why a graph cannot be fed.

/// A graph that cannot be fed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SignatureError {
    /// A required input is missing.
    #[error(
        "the graph has no input for the {role}; its inputs are: {inputs}. Name it in denoised.toml: \
         [graph] {role} = \"NAME\""
    )]
    Missing {
        /// The role that no input has.
        role: &'static str,
        /// The inputs.
        inputs: String,
    },
    /// An input has no known meaning.
    #[error(
        "the graph's input {0} has no known meaning. If it is a number per sample, name it in denoised.toml: \
         [conditions.NAME] input = \"…\""
    )]
    Unknown(String),
    /// An axis of the sample is dynamic and its length is not configured.
    #[error(
        "axis {axis} of the graph's input {input} is dynamic, and unet/config.json has no {key} to give its length. \
         Add the key, or export the graph with a fixed axis"
    )]
    DynamicAxis {
        /// The input.
        input: String,
        /// The axis, from 0.
        axis: usize,
        /// The missing key.
        key: &'static str,
    },
    /// An input has a shape or a type that is not supported.
    #[error("the graph's input {input} is not supported: {reason}")]
    Unsupported {
        /// The input with its type and shape.
        input: String,
        /// The reason.
        reason: &'static str,
    },
    /// The graph has no output of this name, or none at all.
    #[error("the graph has no output named {0:?}")]
    NoOutput(String),
}
