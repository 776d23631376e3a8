//! Refuses jobs whose evaluations do not fit in the memory budget, before anything runs.

use super::{JobError, ModelCard, Sizes};
use crate::inference::{EvaluationSize, SessionMemory};
use crate::units::binary_size;

/// Checks that the smallest batch of the network fits in `limit` bytes. The sides of pictures are multiples of `multiple`.
pub(super) fn check(model: &ModelCard, sizes: &Sizes, multiple: usize, limit: u64) -> Result<(), JobError> {
    let Some(memory) = &model.memory else { return Ok(()) };
    let needed = memory.required(evaluation(model, &sizes.sample));
    if needed <= limit {
        return Ok(());
    }
    let name = model.name();
    let amount = format!(
        "{} at batch {} with its weights, and [engine] memory allows {}",
        binary_size(needed),
        model.signature.smallest_batch(),
        binary_size(limit)
    );
    let (Some(_), [_, height, width]) = (&model.latent, &sizes.image[..]) else {
        let message = format!("an evaluation of {name} needs {amount}; raise it, or choose another model");
        return Err(JobError::out_of_range("model", message));
    };
    let (field, longer, other, shorter) =
        if width > height { ("width", width, "height", height) } else { ("height", height, "width", width) };
    let advice = match largest_side(model, memory, sizes, multiple, limit) {
        Some(side) => format!("use {side} or less with this {other}"),
        None => format!("reduce {other} too, or raise [engine] memory"),
    };
    let message = format!(
        "{field} is {longer}, but with {other} {shorter} an evaluation of {name} needs {amount}; {advice}"
    );
    Err(JobError::out_of_range(field, message))
}

/// The size of an evaluation of the smallest batch of samples in this shape.
fn evaluation(model: &ModelCard, sample: &[usize]) -> EvaluationSize {
    let mut shape = Vec::new();
    model.signature.write_input_shape(sample, &mut shape);
    let values = shape.iter().product::<usize>() as u64;
    EvaluationSize { values, batch: model.signature.smallest_batch() as u64 }
}

/// The largest length of the longer side that fits beside the other.
fn largest_side(
    model: &ModelCard,
    memory: &SessionMemory,
    sizes: &Sizes,
    multiple: usize,
    limit: u64,
) -> Option<usize> {
    let whole = evaluation(model, &sizes.sample);
    let longer = sizes.image.iter().skip(1).max().copied()?;
    let fits = |side: &usize| {
        let values = (whole.values as u128 * *side as u128).div_ceil(longer as u128);
        memory.required(EvaluationSize { values: values as u64, ..whole }) <= limit
    };
    let mut sides = (1..=longer / multiple).rev().map(|n| n * multiple);
    sides.find(fits)
}
