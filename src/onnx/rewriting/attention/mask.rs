//! What is added to the scores, as the operator takes it: [batch or 1, heads or 1, rows of queries, rows of keys].

use rten_onnx::onnx::NodeProto;

use super::AttentionTarget;
use super::build::{Operands, may_equal};
use crate::onnx::rewriting::constants::new_int;
use crate::onnx::rewriting::dim::Dim;
use crate::onnx::rewriting::new_values::NewValues;

/// A mask that broadcasts to the scores.
pub(super) struct Mask<'a> {
    name: &'a str,
    /// The axes of one element that it lacks.
    missing_axes: Vec<i64>,
    /// The length of each of its four axes.
    shape: [Dim; 4],
    /// The shape of the scores.
    scores: [Dim; 4],
}

impl<'a> Mask<'a> {
    /// A mask of this shape. `None` if it does not certainly broadcast to the scores.
    pub(super) fn new(name: &'a str, shape: &[Dim], operands: &Operands<'_>) -> Option<Self> {
        let rank = operands.query.shape.len();
        let lacking = rank.checked_sub(shape.len())?;
        let mut missing_axes: Vec<_> = (0..lacking as i64).collect();
        if rank == 3 {
            // The scores have no axis for heads: it follows the batch.
            missing_axes = if lacking == 0 { vec![1] } else { (0..=lacking as i64).collect() };
        }
        let mut dims = shape.iter().copied();
        let mut aligned = [Dim::Known(1); 4];
        for (axis, dim) in aligned.iter_mut().enumerate() {
            if !missing_axes.contains(&(axis as i64)) {
                *dim = dims.next()?;
            }
        }
        let (query, key) = (&operands.query, &operands.key);
        let scores = [query.shape[0], Dim::Known(operands.heads), query.rows(), key.rows()];
        let fits =
            aligned.iter().zip(scores).all(|(own, whole)| *own == Dim::Known(1) || may_equal(*own, whole));
        // Only a known number of heads is certainly that of the operator.
        (fits && aligned[1].known().is_some()).then_some(Self { name, missing_axes, shape: aligned, scores })
    }

    /// Adds the nodes that give the mask its axes and lengths. `inputs` are the queries and the keys with joined heads.
    pub(super) fn build(
        &self,
        inputs: &[String],
        target: AttentionTarget,
        new: &mut NewValues,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let mut name = self.name.to_owned();
        if !self.missing_axes.is_empty() {
            let axes = new.vector(&self.missing_axes);
            name = new.node("Unsqueeze", &[&name, &axes], Vec::new(), nodes);
        }
        let whole = |axis: &usize| self.shape[*axis] == self.scores[*axis];
        let needed = if target.broadcasts_masks { 2..4 } else { 0..4 };
        if needed.clone().all(|axis| whole(&axis)) {
            return name;
        }
        let len = |axis: usize, new: &mut NewValues, nodes: &mut Vec<NodeProto>| match self.scores[axis] {
            _ if !needed.contains(&axis) => new.vector(&[1]),
            Dim::Known(len) => new.vector(&[len]),
            Dim::Symbol(_) => {
                let (input, axis) = [(0, 0), (0, 1), (0, 1), (1, 1)][axis];
                let shape = new.node("Shape", &[&inputs[input]], Vec::new(), nodes);
                let axis = new.vector(&[axis]);
                new.node("Gather", &[&shape, &axis], Vec::new(), nodes)
            }
        };
        let lens = [0, 1, 2, 3].map(|axis| len(axis, new, nodes));
        let shape = new.node("Concat", &lens.each_ref().map(String::as_str), vec![new_int("axis", 0)], nodes);
        new.node("Expand", &[&name, &shape], Vec::new(), nodes)
    }
}
