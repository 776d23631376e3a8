//! Recognises attention: two products of matrices with a softmax between them.

use rten_onnx::onnx::{DataType, NodeProto};

use super::sources::{Source, trace};
use crate::onnx::rewriting::constants::{Elements, int_attribute};
use crate::onnx::rewriting::index::{GraphIndex, operator};
use crate::onnx::rewriting::values::Values;

/// An attention block.
pub(super) struct Block<'a> {
    /// The queries.
    pub(super) query: Source<'a>,
    /// The keys, transposed as the product with the queries takes them.
    pub(super) transposed_key: Source<'a>,
    /// The values.
    pub(super) value: Source<'a>,
    /// What is added to the scores.
    pub(super) mask: Option<&'a str>,
    /// What scores are multiplied by.
    pub(super) scale: f64,
    /// The position of the product with the values.
    pub(super) output: usize,
    /// The number of axes of the products: 4 for [batch, heads, rows, columns], 3 without heads.
    pub(super) rank: usize,
}

/// The scores before the softmax.
struct Scores<'a> {
    product: &'a NodeProto,
    mask: Option<&'a str>,
    scale: f64,
}

/// Recognises the block of a softmax. `None` if it is not one that the operator computes exactly.
pub(super) fn find<'a>(index: &GraphIndex<'a>, values: &Values, softmax: usize) -> Option<Block<'a>> {
    let softmax = index.node(softmax);
    let scores = scores(index, values, softmax.input.first()?)?;
    let rank = values.shape(scores.product.output.first()?)?.len();
    let axis = int_attribute(softmax, "axis").unwrap_or(-1);
    if !(rank == 3 || rank == 4) || (axis != -1 && axis + 1 != rank as i64) {
        return None;
    }
    let output = product_with_values(index, softmax)?;
    let [query, transposed_key] = scores.product.input.as_slice() else { return None };
    let (query, query_scale) = trace(index, values, query, rank)?;
    let (transposed_key, key_scale) = trace(index, values, transposed_key, rank)?;
    // A scale of the values is not the scale of the scores.
    let (value, 1.0) = trace(index, values, index.node(output).input.get(1)?, rank)? else { return None };
    let mask = scores.mask.filter(|mask| !is_zero(index, values, mask));
    let data_type = values.data_type(query.name)?;
    let mut others = [transposed_key.name, value.name].into_iter().chain(mask);
    if !others.all(|name| values.data_type(name) == Some(data_type)) {
        return None;
    }
    let scale = scores.scale * query_scale * key_scale;
    // The operator takes a scale of zero for none.
    let is_usable = scale.is_finite() && scale as f32 != 0.0;
    is_usable.then_some(Block { query, transposed_key, value, mask, scale, output, rank })
}

/// Follows the input of the softmax to the product of queries and keys.
fn scores<'a>(index: &GraphIndex<'a>, values: &Values, input: &'a str) -> Option<Scores<'a>> {
    let (mut value, mut mask, mut scale) = (input, None, 1.0);
    loop {
        index.only_consumer(value)?;
        let node = index.producer(value)?;
        match operator(node) {
            "MatMul" => return Some(Scores { product: node, mask, scale }),
            "Cast" if is_float_cast(node) => value = node.input.first()?,
            // A mask that is scaled with the scores is not the operator's.
            "Add" if mask.is_none() && scale == 1.0 => {
                let [first, second] = node.input.as_slice() else { return None };
                let (product, addend) =
                    if leads_to_product(index, values, first) { (first, second) } else { (second, first) };
                mask = Some(addend.as_str());
                value = product;
            }
            _ => {
                let (scaled, factor) = scaled(values, node)?;
                scale *= factor;
                value = scaled;
            }
        }
    }
}

/// Whether a value is a scaled product of matrices.
fn leads_to_product<'a>(index: &GraphIndex<'a>, values: &Values, mut value: &'a str) -> bool {
    while let Some(node) = index.producer(value) {
        match (operator(node), scaled(values, node)) {
            ("MatMul", _) => return true,
            ("Cast", _) if is_float_cast(node) => value = &node.input[0],
            (_, Some((scaled, _))) => value = scaled,
            _ => return false,
        }
    }
    false
}

/// Follows the result of the softmax to its product with the values.
fn product_with_values(index: &GraphIndex<'_>, softmax: &NodeProto) -> Option<usize> {
    let mut weights = softmax.output.first()?;
    loop {
        let position = index.only_consumer(weights)?;
        let node = index.node(position);
        match operator(node) {
            "Cast" if is_float_cast(node) => weights = node.output.first()?,
            "MatMul" if node.input.first()? == weights => return Some(position),
            _ => return None,
        }
    }
}

/// The value that a node multiplies by a number or divides by one, and the factor.
pub(super) fn scaled<'a>(values: &Values, node: &'a NodeProto) -> Option<(&'a str, f64)> {
    let [first, second] = node.input.as_slice() else { return None };
    // A number with several axes could add axes to the other operand.
    let is_scalar = |name: &str| values.shape(name).is_some_and(|shape| shape.len() <= 1);
    let number = |name: &str| values.number(name).filter(|_| is_scalar(name));
    match operator(node) {
        "Mul" => match (number(first), number(second)) {
            (_, Some(factor)) => Some((first, factor)),
            (Some(factor), None) => Some((second, factor)),
            (None, None) => None,
        },
        "Div" => Some((first, number(second)?.recip())),
        _ => None,
    }
}

/// Whether a node converts between floating-point types: exporters compute the softmax in a wider one.
fn is_float_cast(node: &NodeProto) -> bool {
    let to = int_attribute(node, "to").map(|to| DataType(to as i32));
    operator(node) == "Cast" && matches!(to, Some(DataType::FLOAT | DataType::FLOAT16))
}

/// Whether a mask changes nothing: `baddbmm` is exported with an addend of zeros.
fn is_zero(index: &GraphIndex<'_>, values: &Values, mask: &str) -> bool {
    let is_zeros = |name: &str| match values.get(name).and_then(|value| value.elements.as_ref()) {
        Some(Elements::Floats(elements)) => elements.iter().all(|element| *element == 0.0),
        _ => false,
    };
    // Zero times infinity is not zero, but what fills a tensor is finite.
    let is_filled =
        |name: &String| index.producer(name).is_some_and(|node| operator(node) == "ConstantOfShape");
    match index.producer(mask) {
        Some(node) if operator(node) == "Mul" => {
            node.input.iter().any(|input| is_zeros(input)) && node.input.iter().any(is_filled)
        }
        _ => is_zeros(mask),
    }
}
