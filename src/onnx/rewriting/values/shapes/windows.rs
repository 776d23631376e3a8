//! The shapes of operators that change the size of an image.

use super::Shape;
use crate::onnx::rewriting::constants::{Elements, attribute};
use crate::onnx::rewriting::dim::{Arithmetic, Dim, Symbols};
use crate::onnx::rewriting::values::{NodeInputs, axis};

/// The shape of a convolution's output.
pub(super) fn conv(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let [channels, _, kernel @ ..] = node.shape(1)? else { return None };
    let kernel: Vec<_> = kernel.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
    let mut shape = vec![*node.shape(0)?.first()?, *channels];
    shape.extend(windows(node, &kernel, symbols)?);
    Some(shape)
}

/// The shape of a pooled image.
pub(super) fn pool(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    if node.int("ceil_mode").unwrap_or(0) != 0 {
        return None;
    }
    let mut shape = node.shape(0)?.get(..2)?.to_vec();
    shape.extend(windows(node, node.ints("kernel_shape")?, symbols)?);
    Some(shape)
}

/// The numbers of positions of a window along the axes of an image.
fn windows(node: &NodeInputs<'_>, kernel: &[i64], symbols: &mut Symbols) -> Option<Shape> {
    let image = node.shape(0)?.get(2..)?;
    let auto_pad = attribute(node.node, "auto_pad").and_then(|value| value.s.as_deref());
    if image.len() != kernel.len() || auto_pad.is_some_and(|mode| mode != "NOTSET" && mode != "VALID") {
        return None;
    }
    let at = |name: &str, axis: usize, default: i64| match node.ints(name) {
        Some(values) => values.get(axis).copied(),
        None => Some(default),
    };
    let mut dims = Vec::new();
    for (axis, (dim, kernel)) in image.iter().zip(kernel).enumerate() {
        let padding = at("pads", axis, 0)?.saturating_add(at("pads", axis + image.len(), 0)?);
        let reach = at("dilations", axis, 1)?.saturating_mul(kernel.saturating_sub(1));
        let positions = match padding.saturating_sub(reach) {
            less @ ..0 => symbols.compute(Arithmetic::Sub, *dim, Dim::Known(less.saturating_neg())),
            more => symbols.compute(Arithmetic::Add, *dim, Dim::Known(more)),
        };
        dims.push(match at("strides", axis, 1)? {
            1 => positions,
            stride => {
                let before_last = symbols.compute(Arithmetic::Sub, positions, Dim::Known(1));
                let steps = symbols.compute(Arithmetic::Div, before_last, Dim::Known(stride));
                symbols.compute(Arithmetic::Add, steps, Dim::Known(1))
            }
        });
    }
    Some(dims)
}

/// The shape of a resized image.
pub(super) fn resize(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let policy = attribute(node.node, "keep_aspect_ratio_policy").and_then(|value| value.s.as_deref());
    if node.opset < 11 || node.ints("axes").is_some() || policy.is_some_and(|policy| policy != "stretch") {
        return None;
    }
    let shape = node.shape(0)?;
    if node.has_input(3) {
        return node.integers(3).filter(|sizes| sizes.len() == shape.len()).map(<[_]>::to_vec);
    }
    let Elements::Floats(scales) = node.elements(2)? else { return None };
    if scales.len() != shape.len() {
        return None;
    }
    let dims = shape.iter().zip(scales).map(|(dim, scale)| match dim {
        Dim::Known(len) => Dim::Known((*len as f64 * scale).floor() as i64),
        dim if scale.fract() == 0.0 => symbols.compute(Arithmetic::Mul, *dim, Dim::Known(*scale as i64)),
        _ => symbols.unknown(),
    });
    Some(dims.collect())
}

/// The shape of a padded tensor.
pub(super) fn pad(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let mut shape = node.shape(0)?.to_vec();
    let pads = match node.ints("pads") {
        Some(pads) => pads.iter().copied().map(Dim::Known).collect(),
        None => match node.integers(1) {
            Some(pads) => pads.to_vec(),
            None => return Some(shape.iter().map(|_| symbols.unknown()).collect()),
        },
    };
    let axes: Vec<_> = match node.known_integers(3) {
        Some(axes) => axes.iter().map(|value| axis(*value, shape.len())).collect::<Option<_>>()?,
        None if node.has_input(3) => return None,
        None => (0..shape.len()).collect(),
    };
    for (position, axis) in axes.iter().enumerate() {
        for pad in [pads.get(position)?, pads.get(position + axes.len())?] {
            shape[*axis] = symbols.compute(Arithmetic::Add, shape[*axis], *pad);
        }
    }
    Some(shape)
}

/// The shape after blocks of channels became pixels.
pub(super) fn depth_to_space(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    blocks(node, [Arithmetic::Div, Arithmetic::Mul], symbols)
}

/// The shape after pixels became blocks of channels.
pub(super) fn space_to_depth(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    blocks(node, [Arithmetic::Mul, Arithmetic::Div], symbols)
}

fn blocks(node: &NodeInputs<'_>, [channels, size]: [Arithmetic; 2], symbols: &mut Symbols) -> Option<Shape> {
    let block = node.int("blocksize")?;
    let &[batch, depth, height, width] = node.shape(0)? else { return None };
    let block_pixels = Dim::Known(block.checked_mul(block)?);
    Some(vec![
        batch,
        symbols.compute(channels, depth, block_pixels),
        symbols.compute(size, height, Dim::Known(block)),
        symbols.compute(size, width, Dim::Known(block)),
    ])
}
