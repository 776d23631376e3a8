//! Why a graph cannot be fed or read.

use std::borrow::Cow;

use crate::tensor::{GraphIo, ValueInfo};

/// A graph that cannot be fed or read.
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
    /// A text encoder has no input for token ids.
    #[error(
        "the graph has no input for the token ids, input_ids; its inputs are: [{inputs}]. Export the text encoder again"
    )]
    NoTokenIds {
        /// The inputs.
        inputs: String,
    },
    /// An autoencoder has no input for a picture or a latent.
    #[error(
        "the graph has no input for a picture or a latent; its inputs are: [{inputs}]. Export the autoencoder again"
    )]
    NoPicture {
        /// The inputs.
        inputs: String,
    },
    /// denoised.toml names an input that the graph does not have.
    #[error("denoised.toml: {key} names {name:?}, but the graph has no such input; its inputs are: {inputs}")]
    NotAnInput {
        /// The key in denoised.toml.
        key: String,
        /// The name.
        name: String,
        /// The inputs.
        inputs: String,
    },
    /// denoised.toml names an input that has another meaning.
    #[error(
        "denoised.toml: {key} names {name:?}, {problem}. Remove the key, or name another one of the inputs: {inputs}"
    )]
    SharedInput {
        /// The key in denoised.toml.
        key: String,
        /// The name.
        name: String,
        /// The other meaning, as a clause about the input.
        problem: String,
        /// The inputs.
        inputs: String,
    },
    /// An input has no known meaning.
    #[error("the graph's input {input} has no known meaning. {advice}")]
    Unknown {
        /// The input with its type and shape.
        input: String,
        /// What to do.
        advice: String,
    },
    /// An axis of the sample is dynamic and its length is not configured.
    #[error(
        "axis {axis} of the graph's input {input} is dynamic, and the config.json beside the graph has no {key} to \
         give its length. Add the key, or export the graph with a fixed axis"
    )]
    DynamicAxis {
        /// The input.
        input: String,
        /// The axis, from 0.
        axis: usize,
        /// The missing key.
        key: &'static str,
    },
    /// An input has a shape, a type or a meaning that is not supported.
    #[error("the graph's input {input} is not supported: {reason}")]
    Unsupported {
        /// The input with its type and shape.
        input: String,
        /// The reason.
        reason: Cow<'static, str>,
    },
    /// The graph has no output of this name, or none at all.
    #[error(
        "denoised.toml: [graph] output names {name:?}, but the graph has no such output; its outputs are: {outputs}"
    )]
    NoOutput {
        /// The name.
        name: String,
        /// The outputs.
        outputs: String,
    },
    /// No output of the graph has the axes of what is read.
    #[error("no output of the graph is {expected}; its outputs are: {outputs}. {advice}")]
    NoSuitableOutput {
        /// What is read, with its axes.
        expected: String,
        /// The outputs.
        outputs: String,
        /// What to do.
        advice: &'static str,
    },
}

/// The inputs or outputs of a graph in one line.
pub(in crate::bundle) fn list(values: &[ValueInfo]) -> String {
    values.iter().map(ValueInfo::to_string).collect::<Vec<_>>().join(", ")
}

pub(in crate::bundle) fn unsupported(
    input: &ValueInfo,
    reason: impl Into<Cow<'static, str>>,
) -> SignatureError {
    SignatureError::Unsupported { input: input.to_string(), reason: reason.into() }
}

/// The error for a name in denoised.toml that is no input of the graph.
pub(super) fn not_an_input(graph: &GraphIo, key: impl Into<String>, name: &str) -> SignatureError {
    SignatureError::NotAnInput { key: key.into(), name: name.to_owned(), inputs: list(&graph.inputs) }
}
