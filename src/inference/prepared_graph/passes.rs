//! The changes that are made to a graph for a provider.

use std::collections::BTreeMap;

use rten_onnx::onnx::ModelProto;

use crate::inference::onnx_runtime::is_at_least;
use crate::inference::provider::Provider;
use crate::onnx::rewriting::{AttentionTarget, fold_shapes, fuse_attention};
use crate::onnx::widen_float16;

/// The version of the passes and of the entries that they are kept in. A new one prepares every graph again.
pub(super) const VERSION: u32 = 1;

/// What the passes changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The tensors that became float32.
    pub(super) widened: usize,
    /// The nodes of shape arithmetic that were computed ahead of time.
    pub(super) folded: usize,
    /// The attention blocks that became one node.
    pub(super) fused_attention: usize,
    /// The attention blocks that no pattern matches.
    pub(super) other_attention: usize,
}

/// What a graph is prepared for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The provider that runs it.
    pub(super) provider: Provider,
    /// The version of ONNX Runtime.
    pub(super) engine_version: &'a str,
    /// Whether nodes may be replaced.
    pub(super) rewrite: bool,
}

/// Applies the passes for a provider.
pub(super) fn apply(model: &mut ModelProto, target: Target<'_>) -> Changes {
    let mut changes = Changes::default();
    let is_cpu = target.provider == Provider::Cpu;
    if is_cpu {
        // ONNX Runtime's CPU provider computes float16 in float32, and converts the weights at every load.
        changes.widened = widen_float16(model);
    }
    if target.rewrite {
        // First, because more attention is recognised where sizes are known: those that the graph declares.
        changes.folded = fold_shapes(model, &BTreeMap::new());
        let attention = AttentionTarget {
            float16: !is_cpu,
            broadcasts_masks: is_at_least(target.engine_version, (1, 21)),
        };
        let count = fuse_attention(model, attention);
        changes.fused_attention = count.fused;
        changes.other_attention = count.left;
    }
    changes
}
