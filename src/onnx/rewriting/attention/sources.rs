//! Where queries, keys and values come from before they are scaled and transposed.

use super::pattern::scaled;
use crate::onnx::rewriting::constants::ints_attribute;
use crate::onnx::rewriting::dim::Dim;
use crate::onnx::rewriting::index::{GraphIndex, operator};
use crate::onnx::rewriting::values::Values;

/// A value, and the order of its axes in an operand of a product.
pub(super) struct Source<'a> {
    /// The value.
    pub(super) name: &'a str,
    /// For each axis of the operand, the axis of the value.
    axes: Vec<usize>,
    /// The length of each axis of the value.
    shape: Vec<Dim>,
}

/// A value with its axes in the order [batch, rows, heads, columns], or [batch, rows, columns] without heads.
pub(super) struct Rows<'a> {
    /// The value before it is transposed.
    pub(super) name: &'a str,
    /// The transposition that it needs.
    pub(super) perm: Vec<usize>,
    /// The length of each axis of the result.
    pub(super) shape: Vec<Dim>,
}

impl<'a> Source<'a> {
    /// Reorders the axes of the operand.
    pub(super) fn reorder(&self, order: &[usize]) -> Rows<'a> {
        let perm: Vec<_> = order.iter().map(|axis| self.axes[*axis]).collect();
        let shape = perm.iter().map(|axis| self.shape[*axis]).collect();
        Rows { name: self.name, perm, shape }
    }
}

impl Rows<'_> {
    /// Whether the value has this order of axes already.
    pub(super) fn is_in_order(&self) -> bool {
        self.perm.is_sorted()
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> Dim {
        self.shape[1]
    }

    /// The number of heads. 1 without heads.
    pub(super) fn heads(&self) -> Dim {
        if self.shape.len() == 4 { self.shape[2] } else { Dim::Known(1) }
    }

    /// The number of columns of a head.
    pub(super) fn columns(&self) -> Dim {
        self.shape[self.shape.len() - 1]
    }
}

/// Follows an operand of a product through scales and transpositions. Returns the source and the scale.
/// `None` if the number of its axes is not `rank`.
pub(super) fn trace<'a>(
    index: &GraphIndex<'a>,
    values: &Values,
    operand: &'a str,
    rank: usize,
) -> Option<(Source<'a>, f64)> {
    let (mut name, mut axes, mut scale) = (operand, (0..rank).collect::<Vec<_>>(), 1.0);
    while let Some(node) = index.producer(name) {
        match (operator(node), scaled(values, node)) {
            ("Transpose", _) => {
                let perm = ints_attribute(node, "perm")?;
                axes =
                    axes.iter().map(|axis| usize::try_from(*perm.get(*axis)?).ok()).collect::<Option<_>>()?;
                name = node.input.first()?;
            }
            ("Identity", _) => name = node.input.first()?,
            (_, Some((source, factor))) => (name, scale) = (source, scale * factor),
            _ => {
                let Some(source) = transposed_without_heads(index, values, name) else { break };
                axes = axes.iter().map(|axis| [0, 1, 3, 2][*axis]).collect();
                name = source;
            }
        }
    }
    let shape = values.shape(name).filter(|shape| shape.len() == rank)?.to_vec();
    Some((Source { name, axes, shape }, scale))
}

/// The source of matrices that are transposed without an axis for heads, as current exporters transpose keys:
/// [batch, heads, a, b] becomes [batch · heads, a, b], then [batch · heads, b, a], then [batch, heads, b, a].
fn transposed_without_heads<'a>(index: &GraphIndex<'a>, values: &Values, name: &str) -> Option<&'a str> {
    let input = |value: &str, kind: &str| {
        let node = index.producer(value).filter(|node| operator(node) == kind)?;
        Some((node, node.input.first()?.as_str()))
    };
    let (_, transposed) = input(name, "Reshape")?;
    let (transpose, batch) = input(transposed, "Transpose")?;
    let (_, source) = input(batch, "Reshape")?;
    let &[images, heads, rows, columns] = values.shape(source)? else { return None };
    let is_same = ints_attribute(transpose, "perm")? == [0, 2, 1]
        && matches!(values.shape(batch)?, [_, a, b] if (*a, *b) == (rows, columns))
        && values.shape(name)? == [images, heads, columns, rows];
    is_same.then_some(source)
}
