//! Checks of the axes and types of inputs.

use super::error::unsupported;
use super::{NetworkSize, SignatureError, TimestepShape};
use crate::tensor::{DataType, Dim, ValueInfo};

/// Returns the batch size, if it is fixed, and the shape of one sample. `declared` are the axes of the batch and of a sample.
pub(super) fn sample_axes(
    input: &ValueInfo,
    declared: &[Dim],
    network: NetworkSize,
) -> Result<(Option<usize>, Vec<usize>), SignatureError> {
    let Some((batch, axes)) = declared.split_first().filter(|(_, axes)| !axes.is_empty()) else {
        return Err(unsupported(input, "a sample needs a batch axis and at least one more"));
    };
    let from_config = |axis: usize| match (axis, axes.len()) {
        (0, 3) => (network.channels, "in_channels"),
        (1, 3) => (network.size.map(|(h, _)| h), "sample_size"),
        (2, 3) => (network.size.map(|(_, w)| w), "sample_size"),
        // Packed latents: one row per patch. The job's image determines their number.
        (0, 2) => (network.packed.then_some(WARMUP_PATCHES), "sample_size"),
        (1, 2) => (network.channels, "in_channels"),
        _ => (None, "axis of this kind"),
    };
    let shape = axes.iter().enumerate().map(|(i, axis)| match axis {
        Dim::Fixed(n) => Ok(*n),
        Dim::Dynamic => {
            let (length, key) = from_config(i);
            length.ok_or_else(|| SignatureError::DynamicAxis { input: input.name.clone(), axis: i + 1, key })
        }
    });
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    if !(1..=100_000_000).contains(&shape.iter().product::<usize>()) {
        return Err(unsupported(input, "a sample must have between 1 and 100 million values"));
    }
    match batch {
        Dim::Fixed(n) if *n > 0 => Ok((Some(*n), shape)),
        Dim::Fixed(_) => Err(unsupported(input, "its batch axis has length 0")),
        Dim::Dynamic => Ok((None, shape)),
    }
}

/// The number of patches in the warm-up of a network that takes packed latents.
const WARMUP_PATCHES: usize = 64;

pub(in crate::bundle) fn timestep_shape(
    input: &ValueInfo,
    fixed_batch: Option<usize>,
) -> Result<TimestepShape, SignatureError> {
    match input.shape.as_slice() {
        [] => Ok(TimestepShape::Scalar),
        [Dim::Dynamic] => Ok(TimestepShape::PerSample),
        [Dim::Fixed(n)] if Some(*n) == fixed_batch => Ok(TimestepShape::PerSample),
        [Dim::Fixed(1)] => Ok(TimestepShape::Single),
        _ => Err(unsupported(
            input,
            "a time step must be a scalar, or have one axis of length 1 or the batch's",
        )),
    }
}

pub(in crate::bundle) fn number(input: &ValueInfo) -> Result<DataType, SignatureError> {
    let is_number = input.element.is_float() || input.element.is_integer();
    checked(input, is_number, "its type must be float32, float16, int64 or int32")
}

pub(in crate::bundle) fn integer(input: &ValueInfo) -> Result<DataType, SignatureError> {
    checked(input, input.element.is_integer(), "its type must be int64 or int32")
}

pub(in crate::bundle) fn floating(input: &ValueInfo) -> Result<DataType, SignatureError> {
    checked(input, input.element.is_float(), "its type must be float32 or float16")
}

fn checked(input: &ValueInfo, is_suitable: bool, reason: &'static str) -> Result<DataType, SignatureError> {
    if is_suitable { Ok(input.element) } else { Err(unsupported(input, reason)) }
}
