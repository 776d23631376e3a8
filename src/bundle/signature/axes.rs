//! What an input's axes and type must be.

use super::{NetworkSize, SignatureError, TimestepShape, unfit};
use crate::tensor::{DataType, Dim, ValueInfo};

pub(super) fn sample_axes(
    port: &ValueInfo,
    network: NetworkSize,
) -> Result<(Option<usize>, Vec<usize>), SignatureError> {
    let Some((batch, axes)) = port.shape.split_first().filter(|(_, axes)| !axes.is_empty()) else {
        return Err(unfit(port, "a sample needs a batch axis and at least one more"));
    };
    let from_config = |axis: usize| match (axis, axes.len()) {
        (0, 3) => (network.channels, "in_channels"),
        (1, 3) => (network.size.map(|(h, _)| h), "sample_size"),
        (2, 3) => (network.size.map(|(_, w)| w), "sample_size"),
        // Packed latents: as many patches as the job's picture has.
        (0, 2) => (network.packed.then_some(PATCHES), "sample_size"),
        (1, 2) => (network.channels, "in_channels"),
        _ => (None, "axis of this kind"),
    };
    let shape = axes.iter().enumerate().map(|(i, axis)| match axis {
        Dim::Fixed(n) => Ok(*n),
        Dim::Dynamic => {
            let (length, key) = from_config(i);
            length.ok_or_else(|| SignatureError::FreeAxis { input: port.name.clone(), axis: i + 1, key })
        }
    });
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    if !(1..=100_000_000).contains(&shape.iter().product::<usize>()) {
        return Err(unfit(port, "a sample must have between 1 and 100 million values"));
    }
    match batch {
        Dim::Fixed(n) if *n > 0 => Ok((Some(*n), shape)),
        Dim::Fixed(_) => Err(unfit(port, "its batch axis has length 0")),
        Dim::Dynamic => Ok((None, shape)),
    }
}

/// With how many patches a network of packed latents is tried.
const PATCHES: usize = 64;

pub(super) fn time_shape(
    port: &ValueInfo,
    fixed_batch: Option<usize>,
) -> Result<TimestepShape, SignatureError> {
    match port.shape.as_slice() {
        [] => Ok(TimestepShape::Scalar),
        [Dim::Dynamic] => Ok(TimestepShape::PerSample),
        [Dim::Fixed(n)] if Some(*n) == fixed_batch => Ok(TimestepShape::PerSample),
        [Dim::Fixed(1)] => Ok(TimestepShape::Single),
        _ => Err(unfit(port, "a time step has no axis, one of length 1, or the batch's")),
    }
}

pub(super) fn number(port: &ValueInfo) -> Result<DataType, SignatureError> {
    match port.element {
        DataType::Other => Err(unfit(port, "only float32, float16, int64 and int32 are served")),
        element => Ok(element),
    }
}

pub(super) fn integer(port: &ValueInfo) -> Result<DataType, SignatureError> {
    match port.element {
        DataType::I64 | DataType::I32 => Ok(port.element),
        _ => Err(unfit(port, "a class label is int64 or int32")),
    }
}

pub(super) fn floating(port: &ValueInfo) -> Result<DataType, SignatureError> {
    match port.element {
        DataType::F32 | DataType::F16 => Ok(port.element),
        _ => Err(unfit(port, "only float32 and float16 are served here")),
    }
}
