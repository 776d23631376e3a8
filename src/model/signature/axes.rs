//! What an input's axes and type must be.

use super::{NetworkSize, SignatureError, TimeShape, unfit};
use crate::model::graph::{Axis, Element, Port};

pub(super) fn sample_axes(
    port: &Port,
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
        Axis::Fixed(n) => Ok(*n),
        Axis::Free => {
            let (length, key) = from_config(i);
            length.ok_or_else(|| SignatureError::FreeAxis { input: port.name.clone(), axis: i + 1, key })
        }
    });
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    if !(1..=100_000_000).contains(&shape.iter().product::<usize>()) {
        return Err(unfit(port, "a sample must have between 1 and 100 million values"));
    }
    match batch {
        Axis::Fixed(n) if *n > 0 => Ok((Some(*n), shape)),
        Axis::Fixed(_) => Err(unfit(port, "its batch axis has length 0")),
        Axis::Free => Ok((None, shape)),
    }
}

/// With how many patches a network of packed latents is tried.
const PATCHES: usize = 64;

pub(super) fn time_shape(port: &Port, fixed_batch: Option<usize>) -> Result<TimeShape, SignatureError> {
    match port.shape.as_slice() {
        [] => Ok(TimeShape::Scalar),
        [Axis::Free] => Ok(TimeShape::Each),
        [Axis::Fixed(n)] if Some(*n) == fixed_batch => Ok(TimeShape::Each),
        [Axis::Fixed(1)] => Ok(TimeShape::One),
        _ => Err(unfit(port, "a time step has no axis, one of length 1, or the batch's")),
    }
}

pub(super) fn number(port: &Port) -> Result<Element, SignatureError> {
    match port.element {
        Element::Other => Err(unfit(port, "only float32, float16, int64 and int32 are served")),
        element => Ok(element),
    }
}

pub(super) fn integer(port: &Port) -> Result<Element, SignatureError> {
    match port.element {
        Element::I64 | Element::I32 => Ok(port.element),
        _ => Err(unfit(port, "a class label is int64 or int32")),
    }
}

pub(super) fn floating(port: &Port) -> Result<Element, SignatureError> {
    match port.element {
        Element::F32 | Element::F16 => Ok(port.element),
        _ => Err(unfit(port, "only float32 and float16 are served here")),
    }
}
