//! The shapes of nodes' outputs, for the operators of UNets, transformers, VAEs and text encoders.

mod arrange;
mod windows;

pub(super) use arrange::{range_len, shape_range, slice_ranges};

use std::collections::HashMap;

use super::{NodeInputs, axis};
use crate::onnx::rewriting::constants::attribute;
use crate::onnx::rewriting::dim::{Dim, Symbols};

type Shape = Vec<Dim>;

/// Tensors with more axes are not looked into.
const MAX_RANK: i64 = 8;

/// Infers the shapes of the outputs. Those after the last known one are left out.
pub(super) fn infer(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Vec<Shape> {
    if node.operator() == "Split" {
        return arrange::split(node).unwrap_or_default();
    }
    first(node, symbols).into_iter().collect()
}

fn first(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    match node.operator() {
        "Abs"
        | "BatchNormalization"
        | "Cast"
        | "Ceil"
        | "Clip"
        | "Cos"
        | "DequantizeLinear"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Identity"
        | "InstanceNormalization"
        | "IsInf"
        | "IsNaN"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "Neg"
        | "Not"
        | "QuantizeLinear"
        | "RMSNormalization"
        | "RandomNormalLike"
        | "Reciprocal"
        | "Relu"
        | "Round"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Softmax"
        | "Sqrt"
        | "Tanh"
        | "Trilu" => node.shape(0).map(<[_]>::to_vec),
        "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max"
        | "Min" | "Mod" | "Mul" | "Or" | "Pow" | "Sub" | "Where" => {
            let mut shapes = (0..node.inputs.len()).map(|input| node.shape(input));
            let first = shapes.next()??.to_vec();
            shapes.try_fold(first, |shape, other| Some(broadcast(&shape, other?, symbols)))
        }
        "MatMul" => mat_mul(node.shape(0)?, node.shape(1)?, symbols),
        "Gemm" => gemm(node),
        "Constant" => constant(node),
        "ConstantOfShape" => node.integers(0).map(<[_]>::to_vec),
        "Shape" => {
            let (start, end) = shape_range(node, node.shape(0)?.len());
            Some(vec![Dim::Known(end.saturating_sub(start) as i64)])
        }
        "Size" => Some(Vec::new()),
        "Expand" => {
            let target = target(node, 1, symbols)?;
            Some(broadcast(node.shape(0)?, &target, symbols))
        }
        "Einsum" => einsum(node),
        "ReduceMax" | "ReduceMean" | "ReduceMin" | "ReduceSum" | "ReduceL2" => reduce(node),
        "ArgMax" | "ArgMin" => {
            let shape = node.shape(0)?;
            let axis = axis(node.int("axis").unwrap_or(0), shape.len())?;
            Some(without_axes(shape, &[axis], node.int("keepdims") != Some(0)))
        }
        "Conv" => windows::conv(node, symbols),
        "AveragePool" | "MaxPool" => windows::pool(node, symbols),
        "GlobalAveragePool" => {
            let shape = node.shape(0)?;
            Some(
                shape
                    .iter()
                    .take(2)
                    .copied()
                    .chain(vec![Dim::Known(1); shape.len().checked_sub(2)?])
                    .collect(),
            )
        }
        "Resize" => windows::resize(node, symbols),
        "Pad" => windows::pad(node, symbols),
        "DepthToSpace" => windows::depth_to_space(node, symbols),
        "SpaceToDepth" => windows::space_to_depth(node, symbols),
        _ => arrange::infer(node, symbols),
    }
}

/// The shape of an element-wise result. An axis whose length is unclear gets a new symbol.
pub(super) fn broadcast(a: &[Dim], b: &[Dim], symbols: &mut Symbols) -> Shape {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(Dim::Known(1), |axis| shape[axis])
    };
    let mut merge = |axis| match (dim(a, axis), dim(b, axis)) {
        (a, b) if a == b => a,
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other,
        (known @ Dim::Known(_), _) | (_, known @ Dim::Known(_)) => known,
        _ => symbols.unknown(),
    };
    (0..rank).map(&mut merge).collect()
}

/// The lengths in an input that is a shape. If only their number is known, they are new symbols.
fn target(node: &NodeInputs<'_>, input: usize, symbols: &mut Symbols) -> Option<Shape> {
    if let Some(target) = node.integers(input) {
        return Some(target.to_vec());
    }
    let rank = node.shape(input)?.first()?.known().filter(|rank| (0..=MAX_RANK).contains(rank))?;
    Some((0..rank).map(|_| symbols.unknown()).collect())
}

/// The shape of an `Einsum` that names all axes.
fn einsum(node: &NodeInputs<'_>) -> Option<Shape> {
    let equation = attribute(node.node, "equation")?.s.as_deref()?.replace(' ', "");
    let (inputs, output) = equation.split_once("->")?;
    let mut lens = HashMap::new();
    for (input, axes) in inputs.split(',').enumerate() {
        lens.extend(axes.chars().zip(node.shape(input)?.iter().copied()));
    }
    output.chars().map(|axis| lens.get(&axis).copied().filter(|_| axis.is_alphabetic())).collect()
}

fn mat_mul(a: &[Dim], b: &[Dim], symbols: &mut Symbols) -> Option<Shape> {
    let ([batch @ .., rows, _], [other @ .., _, columns]) = (a, b) else { return None };
    let mut shape = broadcast(batch, other, symbols);
    shape.extend([*rows, *columns]);
    Some(shape)
}

fn gemm(node: &NodeInputs<'_>) -> Option<Shape> {
    let rows = node.shape(0)?.get(usize::from(node.int("transA") == Some(1)))?;
    let columns = node.shape(1)?.get(usize::from(node.int("transB") != Some(1)))?;
    Some(vec![*rows, *columns])
}

fn constant(node: &NodeInputs<'_>) -> Option<Shape> {
    let value = node.node.attribute.first()?;
    Some(match value.name.as_deref()? {
        "value" => value.t.as_ref()?.dims.iter().copied().map(Dim::Known).collect(),
        "value_int" | "value_float" => Vec::new(),
        "value_ints" => vec![Dim::Known(value.ints.len() as i64)],
        "value_floats" => vec![Dim::Known(value.floats.len() as i64)],
        _ => return None,
    })
}

fn reduce(node: &NodeInputs<'_>) -> Option<Shape> {
    let shape = node.shape(0)?;
    let axes = match node.ints_or_input("axes", 1) {
        Some(axes) => axes.iter().map(|value| axis(*value, shape.len())).collect::<Option<Vec<_>>>()?,
        None if node.has_input(1) || node.int("noop_with_empty_axes") == Some(1) => return None,
        None => (0..shape.len()).collect(),
    };
    Some(without_axes(shape, &axes, node.int("keepdims") != Some(0)))
}

/// A shape whose axes were reduced to one element or dropped.
fn without_axes(shape: &[Dim], axes: &[usize], keep: bool) -> Shape {
    let dims =
        shape.iter().enumerate().filter_map(|(position, dim)| match (axes.contains(&position), keep) {
            (false, _) => Some(*dim),
            (true, true) => Some(Dim::Known(1)),
            (true, false) => None,
        });
    dims.collect()
}
