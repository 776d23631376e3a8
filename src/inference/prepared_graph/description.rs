//! Describes what preparation would do to a graph, without doing it.

use super::passes::Target;
use super::write::Weights;
use super::{MIN_WEIGHTS, is_mapped, passes};
use crate::inference::provider::Provider;
use crate::onnx::{ModelFiles, OWN_VALUES, decode_without_weights};

/// What preparation does to a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preparation {
    /// The bytes of its entry in the engine cache. 0 if the graph is changed in memory only.
    pub(crate) entry_len: u64,
    /// The attention blocks that become one node.
    pub(crate) fused_attention: usize,
    /// The attention blocks that stay as they are.
    pub(crate) other_attention: usize,
}

/// Describes the preparation of a graph for a provider. Fails with the reason why it is opened as it is.
pub(crate) fn describe(
    files: &ModelFiles,
    provider: Provider,
    engine_version: &str,
    rewrite: bool,
) -> Result<Preparation, String> {
    match provider {
        Provider::Cpu if !is_mapped(files) => {
            return Err(format!("it has less than {} MiB of weights", MIN_WEIGHTS >> 20));
        }
        Provider::Cuda if !rewrite => return Err("[engine] rewrite is false".to_owned()),
        Provider::Cpu | Provider::Cuda => {}
        Provider::TensorRt | Provider::OpenVino => return Err(format!("{provider} prepares it itself")),
    }
    let mut model = decode_without_weights(&files.graph, OWN_VALUES)?;
    let changes = passes::apply(&mut model, Target { provider, engine_version, rewrite });
    let weights = Weights::of(&mut model)?;
    let has_own_weights = provider == Provider::Cpu && !weights.are_mappable;
    Ok(Preparation {
        entry_len: if has_own_weights { weights.len } else { 0 },
        fused_attention: changes.fused_attention,
        other_attention: changes.other_attention,
    })
}
