//! The shapes of operators that arrange elements: reshapes, slices, concatenations.

use super::Shape;
use crate::onnx::rewriting::dim::{Arithmetic, Dim, Symbols};
use crate::onnx::rewriting::values::{NodeInputs, axis};

/// A slice along one axis.
pub(in crate::onnx::rewriting::values) struct SliceRange {
    /// `None` if the slices are given in the order of the axes.
    pub(in crate::onnx::rewriting::values) axis: Option<i64>,
    start: i64,
    end: i64,
    step: i64,
}

impl SliceRange {
    /// The first position, the position before which the slice ends, and the step, for an axis of this length.
    fn resolve(&self, len: i64) -> Option<[i64; 3]> {
        let from_end = |value: i64| if value < 0 { value.saturating_add(len) } else { value };
        match self.step {
            1.. => Some([from_end(self.start).clamp(0, len), from_end(self.end).clamp(0, len), self.step]),
            0 => None,
            _ => Some([
                from_end(self.start).clamp(0, len - 1),
                from_end(self.end).clamp(-1, len - 1),
                self.step,
            ]),
        }
    }

    /// The positions in an axis of this length.
    pub(in crate::onnx::rewriting::values) fn positions(&self, len: usize) -> Option<Vec<usize>> {
        let [start, end, step] = self.resolve(len as i64)?;
        (0..count(start, end, step)).map(|at| usize::try_from(start + at * step).ok()).collect()
    }

    fn len(&self, dim: Dim, symbols: &mut Symbols) -> Dim {
        let len = match dim {
            Dim::Known(len) => {
                self.resolve(len).map(|[start, end, step]| Dim::Known(count(start, end, step)))
            }
            Dim::Symbol(_) if self.step == 1 && self.start == 0 && self.end == i64::MAX => Some(dim),
            Dim::Symbol(_) => None,
        };
        len.unwrap_or_else(|| symbols.unknown())
    }
}

/// The number of steps from a position to before another one.
fn count(start: i64, end: i64, step: i64) -> i64 {
    (end - start).saturating_add(step).saturating_sub(step.signum()).checked_div(step).unwrap_or(0).max(0)
}

/// Infers the shape of the first output.
pub(super) fn infer(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    match node.operator() {
        "Reshape" => reshape(node, symbols),
        "Transpose" => {
            let shape = node.shape(0)?;
            match node.ints("perm") {
                Some(perm) => {
                    perm.iter().map(|from| shape.get(usize::try_from(*from).ok()?).copied()).collect()
                }
                None => Some(shape.iter().rev().copied().collect()),
            }
        }
        "Flatten" => {
            let shape = node.shape(0)?;
            let axis = node.int("axis").unwrap_or(1);
            let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
            let (rows, columns) = shape.split_at_checked(axis)?;
            Some(vec![symbols.total(rows), symbols.total(columns)])
        }
        "Concat" => concat(node, symbols),
        "Slice" => slice(node, symbols),
        "Gather" => {
            let shape = node.shape(0)?;
            let axis = axis(node.int("axis").unwrap_or(0), shape.len())?;
            Some([&shape[..axis], node.shape(1)?, &shape[axis + 1..]].concat())
        }
        "GatherND" => {
            let ([indices @ .., len], data) = (node.shape(1)?, node.shape(0)?) else { return None };
            let taken = usize::try_from(len.known()? + node.int("batch_dims").unwrap_or(0)).ok()?;
            Some([indices, data.get(taken..)?].concat())
        }
        "NonZero" => Some(vec![Dim::Known(node.shape(0)?.len() as i64), symbols.unknown()]),
        "GatherElements" => node.shape(1).map(<[_]>::to_vec),
        "Unsqueeze" => unsqueeze(node),
        "Squeeze" => squeeze(node),
        "Range" => {
            let [start, limit, delta] = [0, 1, 2].map(|input| match *node.integers(input)? {
                [value] => Some(value),
                _ => None,
            });
            let len = match (start, limit, delta) {
                (Some(Dim::Known(start)), Some(Dim::Known(limit)), Some(Dim::Known(delta))) => {
                    Dim::Known(range_len(start, limit, delta)?)
                }
                (Some(Dim::Known(0)), Some(limit), Some(Dim::Known(1))) if symbols.is_length(limit) => limit,
                _ => symbols.unknown(),
            };
            Some(vec![len])
        }
        "Tile" => {
            let repeats = node.integers(1)?;
            let dims = node.shape(0)?.iter().zip(repeats);
            Some(dims.map(|(dim, repeat)| symbols.compute(Arithmetic::Mul, *dim, *repeat)).collect())
        }
        _ => None,
    }
}

/// The number of elements of a `Range`.
pub(in crate::onnx::rewriting::values) fn range_len(start: i64, limit: i64, delta: i64) -> Option<i64> {
    let span = limit.checked_sub(start)?;
    let len = span.checked_div(delta)? + i64::from(span % delta != 0 && (span > 0) == (delta > 0));
    Some(len.max(0))
}

/// The axes that a `Shape` returns: the first, and the one after the last.
pub(in crate::onnx::rewriting::values) fn shape_range(node: &NodeInputs<'_>, rank: usize) -> (usize, usize) {
    let position = |value: i64| {
        let value = if value < 0 { value + rank as i64 } else { value };
        value.clamp(0, rank as i64) as usize
    };
    (position(node.int("start").unwrap_or(0)), node.int("end").map_or(rank, position))
}

/// The slices of a `Slice`, whose parameters must be known.
pub(in crate::onnx::rewriting::values) fn slice_ranges(node: &NodeInputs<'_>) -> Option<Vec<SliceRange>> {
    let starts = node.ints_or_input("starts", 1)?;
    let ends = node.ints_or_input("ends", 2)?;
    let axes = match node.ints_or_input("axes", 3) {
        None if node.has_input(3) => return None,
        axes => axes,
    };
    let steps = match node.known_integers(4) {
        None if node.has_input(4) => return None,
        steps => steps.unwrap_or_else(|| vec![1; starts.len()]),
    };
    let ranges = starts.iter().enumerate().map(|(position, start)| {
        let axis = match &axes {
            Some(axes) => Some(*axes.get(position)?),
            None => None,
        };
        Some(SliceRange { axis, start: *start, end: *ends.get(position)?, step: *steps.get(position)? })
    });
    ranges.collect()
}

/// The shapes of the outputs of a `Split`.
pub(super) fn split(node: &NodeInputs<'_>) -> Option<Vec<Shape>> {
    let shape = node.shape(0)?;
    let axis = axis(node.int("axis").unwrap_or(0), shape.len())?;
    let outputs = Some(node.node.output.len() as i64).filter(|outputs| *outputs > 0)?;
    let lens = match node.ints_or_input("split", 1) {
        Some(lens) => lens,
        None if node.has_input(1) => return None,
        None => {
            let len = shape[axis].known()?;
            let chunk = len / outputs + i64::from(len % outputs != 0);
            (0..outputs).map(|output| chunk.min(len - output * chunk)).collect()
        }
    };
    let part = |len| {
        let mut part = shape.to_vec();
        part[axis] = Dim::Known(len);
        part
    };
    Some(lens.into_iter().map(part).collect())
}

fn reshape(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let target = super::target(node, 1, symbols)?;
    let copies_zero = node.int("allowzero").unwrap_or(0) == 0;
    let input = node.shape(0);
    let mut shape = Vec::new();
    for (position, dim) in target.iter().enumerate() {
        shape.push(match dim {
            Dim::Known(0) if copies_zero => match input {
                Some(input) => *input.get(position)?,
                None => symbols.unknown(),
            },
            dim => *dim,
        });
    }
    if let Some(rest) = shape.iter().position(|dim| *dim == Dim::Known(-1)) {
        shape[rest] = Dim::Known(1);
        let others = symbols.total(&shape);
        shape[rest] = match input {
            Some(input) => {
                let total = symbols.total(input);
                symbols.compute(Arithmetic::Div, total, others)
            }
            None => symbols.unknown(),
        };
    }
    Some(shape)
}

fn concat(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let mut shape = node.shape(0)?.to_vec();
    let axis = axis(node.int("axis")?, shape.len())?;
    for input in 1..node.inputs.len() {
        let other = node.shape(input)?;
        shape[axis] = symbols.compute(Arithmetic::Add, shape[axis], *other.get(axis)?);
        for (own, other) in
            shape.iter_mut().zip(other).enumerate().filter(|(at, _)| *at != axis).map(|(_, d)| d)
        {
            if own.known().is_none() && other.known().is_some() {
                *own = *other;
            }
        }
    }
    Some(shape)
}

fn slice(node: &NodeInputs<'_>, symbols: &mut Symbols) -> Option<Shape> {
    let mut shape = node.shape(0)?.to_vec();
    if let Some(ranges) = slice_ranges(node) {
        for (position, range) in ranges.iter().enumerate() {
            let axis = axis(range.axis.unwrap_or(position as i64), shape.len())?;
            shape[axis] = range.len(shape[axis], symbols);
        }
        return Some(shape);
    }
    // A start or an end depends on the graph's inputs.
    let axes = node.known_integers(3)?;
    let plain = |input: usize, value: i64| {
        node.known_integers(input).is_some_and(|values| values.iter().all(|other| *other == value))
    };
    for (position, value) in axes.iter().enumerate() {
        let axis = axis(*value, shape.len())?;
        let end = node.integers(2).and_then(|ends| ends.get(position).copied());
        // `x[..len]`: as long as the axis, if that is what `len` is.
        let whole = plain(1, 0) && (!node.has_input(4) || plain(4, 1)) && end == Some(shape[axis]);
        if !whole {
            shape[axis] = symbols.unknown();
        }
    }
    Some(shape)
}

fn unsqueeze(node: &NodeInputs<'_>) -> Option<Shape> {
    let shape = node.shape(0)?;
    let axes = node.ints_or_input("axes", 1)?;
    let rank = shape.len() + axes.len();
    let axes: Vec<_> = axes.iter().map(|value| axis(*value, rank)).collect::<Option<_>>()?;
    let mut dims = shape.iter();
    (0..rank).map(|at| if axes.contains(&at) { Some(Dim::Known(1)) } else { dims.next().copied() }).collect()
}

fn squeeze(node: &NodeInputs<'_>) -> Option<Shape> {
    let shape = node.shape(0)?;
    let axes: Vec<_> = match node.ints_or_input("axes", 1) {
        Some(axes) => axes.iter().map(|value| axis(*value, shape.len())).collect::<Option<_>>()?,
        None if node.has_input(1) || shape.iter().any(|dim| dim.known().is_none()) => return None,
        None => (0..shape.len()).filter(|at| shape[*at] == Dim::Known(1)).collect(),
    };
    Some(shape.iter().enumerate().filter(|(at, _)| !axes.contains(at)).map(|(_, dim)| *dim).collect())
}
