//! The changes that are made to a graph for a provider.

use rten_onnx::onnx::ModelProto;

use crate::inference::provider::Provider;
use crate::onnx::widen_float16;

/// The version of the passes and of the entries that they are kept in. A new one prepares every graph again.
pub(super) const VERSION: u32 = 1;

/// What the passes changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The tensors that became float32.
    pub(super) widened: usize,
    /// The attention blocks that became one node.
    pub(super) fused_attention: usize,
    /// The attention blocks that no pattern matches.
    pub(super) other_attention: usize,
}

/// Applies the passes for a provider. `rewrite` allows those that replace nodes.
pub(super) fn apply(model: &mut ModelProto, provider: Provider, rewrite: bool) -> Changes {
    let mut changes = Changes::default();
    if provider == Provider::Cpu {
        // ONNX Runtime's CPU provider computes float16 in float32, and converts the weights at every load.
        changes.widened = widen_float16(model);
    }
    let _ = rewrite;
    changes
}
