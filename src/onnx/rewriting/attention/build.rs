//! Builds the nodes that replace an attention block.

use rten_onnx::onnx::NodeProto;

use super::pattern::Block;
use super::sources::Rows;
use super::{AttentionTarget, DOMAIN, Replacement, mask};
use crate::onnx::rewriting::constants::{ints_attribute, new_float, new_int};
use crate::onnx::rewriting::dim::Dim;
use crate::onnx::rewriting::index::{GraphIndex, operator};
use crate::onnx::rewriting::new_values::NewValues;
use crate::onnx::rewriting::values::Values;

/// An operand's axes as the operator takes them, with and without heads.
const OPERAND_ORDER: [&[usize]; 2] = [&[0, 2, 1, 3], &[0, 1, 2]];
/// The same for transposed keys.
const TRANSPOSED_ORDER: [&[usize]; 2] = [&[0, 3, 1, 2], &[0, 2, 1]];

/// The operands of an attention block.
pub(super) struct Operands<'a> {
    pub(super) query: Rows<'a>,
    pub(super) key: Rows<'a>,
    pub(super) value: Rows<'a>,
    /// The number of heads.
    pub(super) heads: i64,
}

/// Builds the replacement of a block. `None` if its number of heads is not constant, or if lengths do not match.
pub(super) fn replace(
    block: &Block<'_>,
    index: &GraphIndex<'_>,
    values: &Values,
    target: AttentionTarget,
    new: &mut NewValues,
) -> Option<Replacement> {
    let operands = Operands::new(block)?;
    let mask = match block.mask {
        Some(mask) => Some(mask::Mask::new(mask, values.shape(mask)?, &operands)?),
        None => None,
    };
    let mut nodes = Vec::new();
    let mut operand = |rows: &Rows<'_>| join_heads(rows, index, values, new, &mut nodes);
    let mut inputs = [&operands.query, &operands.key, &operands.value].map(&mut operand).to_vec();
    if let Some(mask) = mask {
        let mask = mask.build(&inputs, target, new, &mut nodes);
        inputs.extend([String::new(), String::new(), mask]);
    }
    let product = index.node(block.output).output.first()?;
    let output = Output::find(index, values, block.output, product, &operands)?;
    let result = match &output {
        Output::Joined { name, .. } => name.clone(),
        Output::Rows { .. } | Output::Heads { .. } => new.name(),
    };
    nodes.push(NodeProto {
        domain: Some(DOMAIN.to_owned()),
        name: Some(new.name()),
        input: inputs,
        output: vec![result.clone()],
        op_type: Some("MultiHeadAttention".to_owned()),
        attribute: vec![new_int("num_heads", operands.heads), new_float("scale", block.scale as f32)],
    });
    let position = output.build(&result, operands.heads, new, &mut nodes);
    Some(Replacement { position, nodes })
}

impl<'a> Operands<'a> {
    /// Checks that the operator computes what the products compute, which broadcast over the batch and the heads.
    fn new(block: &Block<'a>) -> Option<Self> {
        let without_heads = usize::from(block.rank == 3);
        let query = block.query.reorder(OPERAND_ORDER[without_heads]);
        let key = block.transposed_key.reorder(TRANSPOSED_ORDER[without_heads]);
        let value = block.value.reorder(OPERAND_ORDER[without_heads]);
        let heads = query.heads().known().filter(|heads| *heads > 0)?;
        let equal = [
            (query.heads(), key.heads()),
            (query.heads(), value.heads()),
            (query.shape[0], key.shape[0]),
            (query.shape[0], value.shape[0]),
            (query.columns(), key.columns()),
            (key.rows(), value.rows()),
        ];
        equal.iter().all(|(a, b)| may_equal(*a, *b)).then_some(Self { query, key, value, heads })
    }
}

/// Whether two lengths are equal, if neither is stretched. The lengths of graphs' axes are rarely proven.
pub(super) fn may_equal(a: Dim, b: Dim) -> bool {
    match (a, b) {
        (Dim::Known(1), Dim::Symbol(_)) | (Dim::Symbol(_), Dim::Known(1)) => false,
        (Dim::Known(a), Dim::Known(b)) => a == b,
        _ => true,
    }
}

/// Joins the heads of an operand: [batch, rows, heads · columns].
fn join_heads(
    rows: &Rows<'_>,
    index: &GraphIndex<'_>,
    values: &Values,
    new: &mut NewValues,
    nodes: &mut Vec<NodeProto>,
) -> String {
    if let Some(joined) = joined_source(rows, index, values) {
        return joined.to_owned();
    }
    let mut name = rows.name.to_owned();
    if !rows.is_in_order() {
        name = new.transpose(&name, &rows.perm, nodes);
    }
    if rows.shape.len() == 4 {
        name = new.reshape(&name, &[0, 0, -1], nodes);
    }
    name
}

/// The value from which heads were split, if it certainly has the shape that joined heads have.
fn joined_source<'a>(rows: &Rows<'_>, index: &GraphIndex<'a>, values: &Values) -> Option<&'a str> {
    let reshape =
        index.producer(rows.name).filter(|node| operator(node) == "Reshape" && rows.is_in_order())?;
    let source = reshape.input.first()?;
    let joined = joined_shape(rows, rows.columns())?;
    (rows.shape.len() == 4 && values.shape(source)? == joined).then_some(source)
}

/// The shape of joined heads with this number of columns.
fn joined_shape(rows: &Rows<'_>, columns: Dim) -> Option<[Dim; 3]> {
    let columns = rows.heads().known()?.checked_mul(columns.known()?)?;
    Some([rows.shape[0], rows.rows(), Dim::Known(columns)])
}

/// The value that the replacement produces.
enum Output {
    /// [batch, rows, heads · columns], as the operator returns it.
    Joined { name: String, position: usize },
    /// [batch, rows, heads, columns].
    Rows { name: String, position: usize },
    /// [batch, heads, rows, columns].
    Heads { name: String, position: usize },
}

impl Output {
    /// The last value after the product that only rearranges it as the operator does.
    fn find(
        index: &GraphIndex<'_>,
        values: &Values,
        position: usize,
        product: &str,
        operands: &Operands<'_>,
    ) -> Option<Self> {
        if operands.query.shape.len() == 3 {
            return Some(Self::Joined { name: product.to_owned(), position });
        }
        let only_output = |value: &str, kind: &str| {
            let position = index.only_consumer(value)?;
            let node = index.node(position);
            Some((position, node)).filter(|_| operator(node) == kind)
        };
        let transpose = only_output(product, "Transpose")
            .filter(|(_, node)| ints_attribute(node, "perm") == Some([0, 2, 1, 3].as_slice()));
        let Some((transposed, node)) = transpose else {
            return Some(Self::Heads { name: product.to_owned(), position });
        };
        let rows = node.output.first()?;
        if let Some((position, reshape)) = only_output(rows, "Reshape") {
            let name = reshape.output.first()?;
            let joined = joined_shape(&operands.query, operands.value.columns());
            if joined.is_some_and(|joined| values.shape(name) == Some(&joined)) {
                return Some(Self::Joined { name: name.clone(), position });
            }
        }
        Some(Self::Rows { name: rows.clone(), position: transposed })
    }

    /// Adds the nodes between the operator's result and the value. Returns the position of the value's producer.
    fn build(self, result: &str, heads: i64, new: &mut NewValues, nodes: &mut Vec<NodeProto>) -> usize {
        match self {
            Self::Joined { position, .. } => position,
            Self::Rows { name, position } => {
                new.reshape_to(result, &[0, 0, heads, -1], name, nodes);
                position
            }
            Self::Heads { name, position } => {
                let rows = new.reshape(result, &[0, 0, heads, -1], nodes);
                new.transpose_to(&rows, &[0, 2, 1, 3], name, nodes);
                position
            }
        }
    }
}
