//! The elements of small tensors: shape arithmetic, and the scales of attention.

use rten_onnx::onnx::DataType;

use super::{NodeInputs, axis};
use crate::onnx::rewriting::constants::{self, Elements, attribute, round};
use crate::onnx::rewriting::dim::{Arithmetic, Dim, Symbols};

/// Infers the elements of the first output, whose shape is known.
pub(super) fn infer(
    node: &NodeInputs<'_>,
    shape: &[Dim],
    data_type: Option<DataType>,
    symbols: &mut Symbols,
) -> Option<Elements> {
    let len = shape.iter().try_fold(1_usize, |len, dim| Some(len * usize::try_from(dim.known()?).ok()?))?;
    let elements = match node.operator() {
        "Constant" => constant(node)?,
        "ConstantOfShape" => repeat(&fill(node)?, len),
        "Shape" => {
            let shape = node.shape(0)?;
            let (start, end) = super::shapes::shape_range(node, shape.len());
            Elements::Integers(shape.get(start..end)?.to_vec())
        }
        "Size" => Elements::Integers(vec![symbols.total(node.shape(0)?)]),
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => node.elements(0)?.clone(),
        "Expand" if node.elements(0)?.len() == 1 => repeat(node.elements(0)?, len),
        "Expand" if node.elements(0)?.len() == len => node.elements(0)?.clone(),
        "Cast" => cast(node.elements(0)?, data_type?)?,
        "Concat" => concat(node)?,
        "Gather" => gather(node)?,
        "Slice" => slice(node)?,
        "Transpose" => transpose(node)?,
        "Range" => range(node)?,
        "Where" => choose(node, len, symbols)?,
        "Sqrt" | "Neg" | "Floor" | "Ceil" | "Reciprocal" => {
            unary(node.operator(), node.elements(0)?, data_type)?
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" if node.inputs.len() == 2 => {
            let (a, b) = (node.elements(0)?, node.elements(1)?);
            binary(node.operator(), a, b, len, data_type, symbols)?
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" => {
            compare(node.operator(), node.integers(0)?, node.integers(1)?, len, symbols)?
        }
        "Not" => {
            let values = node.integers(0)?.iter();
            Elements::Integers(values.map(|value| negate(*value, symbols)).collect())
        }
        _ => return None,
    };
    (elements.len() == len).then_some(elements)
}

/// The elements of a `Constant`.
fn constant(node: &NodeInputs<'_>) -> Option<Elements> {
    let value = node.node.attribute.first()?;
    match value.name.as_deref()? {
        "value" => constants::read(value.t.as_ref()?),
        "value_int" => Some(Elements::Integers(vec![Dim::Known(value.i?)])),
        "value_ints" => Some(Elements::Integers(value.ints.iter().copied().map(Dim::Known).collect())),
        "value_float" => Some(Elements::Floats(vec![f64::from(value.f?)])),
        "value_floats" => Some(Elements::Floats(value.floats.iter().copied().map(f64::from).collect())),
        _ => None,
    }
}

/// The element with which a `ConstantOfShape` fills its output.
fn fill(node: &NodeInputs<'_>) -> Option<Elements> {
    match attribute(node.node, "value") {
        Some(value) => constants::read(value.t.as_ref()?),
        None => Some(Elements::Floats(vec![0.0])),
    }
}

fn repeat(element: &Elements, len: usize) -> Elements {
    match element {
        Elements::Integers(values) => Elements::Integers(values.repeat(len)),
        Elements::Floats(values) => Elements::Floats(values.repeat(len)),
    }
}

fn cast(elements: &Elements, to: DataType) -> Option<Elements> {
    let to_float = matches!(to, DataType::FLOAT | DataType::FLOAT16 | DataType::DOUBLE);
    Some(match elements {
        Elements::Integers(_) if to_float => {
            let values = elements.known_integers()?;
            Elements::Floats(values.into_iter().map(|value| round(value as f64, Some(to))).collect())
        }
        Elements::Floats(values) if to_float => {
            Elements::Floats(values.iter().map(|value| round(*value, Some(to))).collect())
        }
        Elements::Integers(values) if matches!(to, DataType::INT64 | DataType::INT32) => {
            Elements::Integers(values.clone())
        }
        Elements::Integers(_) if to == DataType::BOOL => {
            let values = elements.known_integers()?;
            Elements::Integers(values.into_iter().map(|value| truth(value != 0)).collect())
        }
        Elements::Floats(values) if matches!(to, DataType::INT64 | DataType::INT32) => {
            Elements::Integers(values.iter().map(|value| Dim::Known(*value as i64)).collect())
        }
        _ => return None,
    })
}

fn concat(node: &NodeInputs<'_>) -> Option<Elements> {
    if node.shape(0)?.len() != 1 {
        return None;
    }
    let mut elements = node.elements(0)?.clone();
    for input in 1..node.inputs.len() {
        match (&mut elements, node.elements(input)?) {
            (Elements::Integers(all), Elements::Integers(more)) => all.extend(more),
            (Elements::Floats(all), Elements::Floats(more)) => all.extend(more),
            _ => return None,
        }
    }
    Some(elements)
}

/// Picks elements by their positions.
fn pick(elements: &Elements, positions: &[usize]) -> Option<Elements> {
    Some(match elements {
        Elements::Integers(values) => {
            Elements::Integers(positions.iter().map(|at| values.get(*at).copied()).collect::<Option<_>>()?)
        }
        Elements::Floats(values) => {
            Elements::Floats(positions.iter().map(|at| values.get(*at).copied()).collect::<Option<_>>()?)
        }
    })
}

fn gather(node: &NodeInputs<'_>) -> Option<Elements> {
    let lens = known_lens(node)?;
    let axis = axis(node.int("axis").unwrap_or(0), lens.len())?;
    let indices = node.known_integers(1)?;
    let indices = indices.iter().map(|index| super::axis(*index, lens[axis])).collect::<Option<_>>()?;
    pick(
        node.elements(0)?,
        &grid(&lens, |at| if at == axis { Vec::clone(&indices) } else { (0..lens[at]).collect() }),
    )
}

fn slice(node: &NodeInputs<'_>) -> Option<Elements> {
    let lens = known_lens(node)?;
    let mut along: Vec<Vec<usize>> = lens.iter().map(|len| (0..*len).collect()).collect();
    for (position, range) in super::shapes::slice_ranges(node)?.iter().enumerate() {
        let axis = axis(range.axis.unwrap_or(position as i64), lens.len())?;
        along[axis] = range.positions(lens[axis])?;
    }
    pick(node.elements(0)?, &grid(&lens, |axis| along[axis].clone()))
}

fn transpose(node: &NodeInputs<'_>) -> Option<Elements> {
    let lens = known_lens(node)?;
    let axes: Vec<_> = match node.ints("perm") {
        Some(perm) => perm.iter().map(|from| axis(*from, lens.len())).collect::<Option<_>>()?,
        None => (0..lens.len()).rev().collect(),
    };
    let strides: Vec<usize> = axes.iter().map(|axis| lens[axis + 1..].iter().product()).collect();
    let positions = axes.iter().zip(strides).fold(vec![0], |positions, (axis, stride)| {
        positions.iter().flat_map(|start| (0..lens[*axis]).map(move |at| start + at * stride)).collect()
    });
    pick(node.elements(0)?, &positions)
}

/// The length of each axis of the first input.
fn known_lens(node: &NodeInputs<'_>) -> Option<Vec<usize>> {
    node.shape(0)?.iter().map(|dim| usize::try_from(dim.known()?).ok()).collect()
}

/// The positions of the elements that have these indices along each axis.
fn grid(lens: &[usize], along: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    (0..lens.len()).fold(vec![0], |rows, axis| {
        let indices = along(axis);
        rows.iter().flat_map(|row| indices.iter().map(move |index| row * lens[axis] + index)).collect()
    })
}

fn range(node: &NodeInputs<'_>) -> Option<Elements> {
    let [start, limit, delta] = [0, 1, 2].map(|input| match *node.known_integers(input)? {
        [value] => Some(value),
        _ => None,
    });
    let (start, limit, delta) = (start?, limit?, delta?);
    let len = super::shapes::range_len(start, limit, delta)?;
    Some(Elements::Integers((0..len).map(|step| Dim::Known(start + step * delta)).collect()))
}

/// The element at a position, where one element serves all.
fn broadcast<T: Copy>(values: &[T], position: usize) -> Option<T> {
    if values.len() == 1 { values.first().copied() } else { values.get(position).copied() }
}

fn choose(node: &NodeInputs<'_>, len: usize, symbols: &mut Symbols) -> Option<Elements> {
    let condition = node.integers(0)?;
    if let (Elements::Integers(yes), Elements::Integers(no)) = (node.elements(1)?, node.elements(2)?) {
        let choice = |at| {
            let (yes, no) = (broadcast(yes, at)?, broadcast(no, at)?);
            Some(match broadcast(condition, at)? {
                Dim::Known(0) => no,
                Dim::Known(_) => yes,
                Dim::Symbol(_) if yes == no => yes,
                Dim::Symbol(_) => symbols.unknown(),
            })
        };
        return (0..len).map(choice).collect::<Option<_>>().map(Elements::Integers);
    }
    None
}

fn unary(operator: &str, elements: &Elements, data_type: Option<DataType>) -> Option<Elements> {
    let Elements::Floats(values) = elements else { return None };
    let function = match operator {
        "Sqrt" => f64::sqrt,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Reciprocal" => f64::recip,
        _ => |value: f64| -value,
    };
    Some(Elements::Floats(values.iter().map(|value| round(function(*value), data_type)).collect()))
}

fn binary(
    operator: &str,
    a: &Elements,
    b: &Elements,
    len: usize,
    data_type: Option<DataType>,
    symbols: &mut Symbols,
) -> Option<Elements> {
    match (a, b) {
        (Elements::Integers(a), Elements::Integers(b)) => {
            let value = |at| integer(operator, broadcast(a, at)?, broadcast(b, at)?, symbols);
            (0..len).map(value).collect::<Option<_>>().map(Elements::Integers)
        }
        (Elements::Floats(a), _) => {
            // The exponent of a power may be an integer.
            let b = match b {
                Elements::Floats(values) => values.clone(),
                _ => b.known_integers()?.into_iter().map(|value| value as f64).collect(),
            };
            let value = |at| Some(round(float(operator, broadcast(a, at)?, broadcast(&b, at)?)?, data_type));
            (0..len).map(value).collect::<Option<_>>().map(Elements::Floats)
        }
        _ => None,
    }
}

fn integer(operator: &str, a: Dim, b: Dim, symbols: &mut Symbols) -> Option<Dim> {
    let operation = match operator {
        "Add" => Arithmetic::Add,
        "Sub" => Arithmetic::Sub,
        "Mul" => Arithmetic::Mul,
        "Div" => Arithmetic::Div,
        _ => {
            let (Dim::Known(a), Dim::Known(b)) = (a, b) else { return Some(symbols.unknown()) };
            return Some(Dim::Known(match operator {
                "Min" => a.min(b),
                "Max" => a.max(b),
                // The result has the divisor's sign. Only `fmod`, for which the sign differs, is not served.
                "Mod" if a >= 0 && b > 0 => a % b,
                _ => return None,
            }));
        }
    };
    Some(symbols.compute(operation, a, b))
}

fn float(operator: &str, a: f64, b: f64) -> Option<f64> {
    Some(match operator {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Pow" => a.powf(b),
        "Min" => a.min(b),
        "Max" => a.max(b),
        _ => return None,
    })
}

fn compare(operator: &str, a: &[Dim], b: &[Dim], len: usize, symbols: &mut Symbols) -> Option<Elements> {
    let value = |at| {
        let (a, b) = (broadcast(a, at)?, broadcast(b, at)?);
        Some(match (operator, a, b) {
            ("Equal", a, b) if a == b => truth(true),
            // Lengths are never -1, which stands for "as long as the input" in the targets of expansions.
            ("Equal", Dim::Known(value), length) | ("Equal", length, Dim::Known(value))
                if value < 0 && symbols.is_length(length) =>
            {
                truth(false)
            }
            (_, Dim::Known(a), Dim::Known(b)) => truth(match operator {
                "Equal" => a == b,
                "Less" => a < b,
                "Greater" => a > b,
                "LessOrEqual" => a <= b,
                "GreaterOrEqual" => a >= b,
                "And" => a != 0 && b != 0,
                _ => a != 0 || b != 0,
            }),
            _ => symbols.unknown(),
        })
    };
    (0..len).map(value).collect::<Option<_>>().map(Elements::Integers)
}

fn negate(value: Dim, symbols: &mut Symbols) -> Dim {
    match value {
        Dim::Known(value) => truth(value == 0),
        Dim::Symbol(_) => symbols.unknown(),
    }
}

fn truth(value: bool) -> Dim {
    Dim::Known(i64::from(value))
}
