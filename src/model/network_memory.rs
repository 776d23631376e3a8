//! The memory of a denoising network: whether it fits, and what a batch needs.

use std::sync::Arc;

use super::ModelError;
use crate::bundle::{PipelineKind, Signature};
use crate::inference::{EngineOptions, EvaluationSize, SessionMemory};

/// Fails if a network of this size cannot be opened on this machine, even if all open sessions are closed, which hold
/// `held` bytes.
pub(super) fn check_machine(
    name: &str,
    bytes: u64,
    held: u64,
    options: &EngineOptions,
) -> Result<(), ModelError> {
    let bounds = options.host.memory_bounds();
    let is_short = |free: &u64| options.memory.is_some() && bytes > free.saturating_add(held);
    match bounds.free().filter(is_short) {
        Some(_) => Err(ModelError::Memory { name: name.to_owned(), bytes, bounds }),
        None => Ok(()),
    }
}

/// The size of an evaluation of a batch of samples in this shape, as the network takes them.
pub(super) fn evaluation_size(input_shape: &[usize], batch: usize) -> EvaluationSize {
    EvaluationSize { values: input_shape.iter().product::<usize>() as u64, batch: batch as u64 }
}

/// How many values of a sample have one token of the network's largest attention; `None` for a network of pixels, of which
/// nothing is known.
pub(super) fn values_per_token(signature: &Signature) -> Option<u64> {
    let shape = signature.input_shape();
    let facts = PipelineKind::from_signature(signature)?.facts();
    let values = match facts.packing.is_some() {
        // A sample has one row for each token.
        true => *shape.last()?,
        false => shape.first()? * facts.positions_per_token,
    };
    Some(values as u64)
}

/// The largest batch for samples of this shape: the signature's, or what the memory allows.
pub(super) fn largest_batch(signature: &Signature, memory: &Arc<SessionMemory>, sample: &[usize]) -> usize {
    let channels = sample.first().copied().unwrap_or(1).max(1);
    let values = sample.iter().product::<usize>() / channels * (channels + signature.extra_channels);
    let values = values as u64;
    memory.largest_batch(values, signature.smallest_batch(), signature.largest_batch)
}
