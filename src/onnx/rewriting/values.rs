//! What is known about a graph's values before it runs: types, shapes, and the elements of small tensors.

mod elements;
mod shapes;
mod types;

use std::collections::HashMap;

use rten_onnx::onnx::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::constants::{self, Elements, MAX_ELEMENTS};
use super::dim::{Dim, Symbols};
use super::index::operator;
use super::live_inputs::broadcast_axes;

/// What is known about a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Value {
    /// The type of its elements.
    pub(super) data_type: Option<DataType>,
    /// The length of each axis.
    pub(super) shape: Option<Vec<Dim>>,
    /// Its elements.
    pub(super) elements: Option<Elements>,
}

/// The values of a graph.
pub(super) struct Values {
    values: HashMap<String, Value>,
}

/// A node with what is known about its inputs.
struct NodeInputs<'a> {
    node: &'a NodeProto,
    inputs: Vec<Option<&'a Value>>,
    opset: i64,
}

impl Values {
    /// Infers what it can. `opset` is the version of ONNX's own operator set.
    pub(super) fn infer(graph: &GraphProto, opset: i64) -> Self {
        let mut symbols = Symbols::default();
        let mut values = HashMap::new();
        for input in &graph.input {
            values.insert(input.name.clone().unwrap_or_default(), from_value_info(input, &mut symbols));
        }
        for tensor in &graph.initializer {
            values.insert(tensor.name.clone().unwrap_or_default(), from_tensor(tensor));
        }
        for node in &graph.node {
            let inputs = node.input.iter().map(|input| values.get(input)).collect();
            let outputs = NodeInputs { node, inputs, opset }.infer(&mut symbols);
            values.extend(node.output.iter().cloned().zip(outputs));
        }
        values.remove("");
        Self { values }
    }

    /// What is known about a value.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The type of a value's elements.
    pub(super) fn data_type(&self, name: &str) -> Option<DataType> {
        self.get(name)?.data_type
    }

    /// The length of each axis of a value.
    pub(super) fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.get(name)?.shape.as_deref()
    }

    /// The number that a value with one element is.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)?.elements.as_ref()? {
            Elements::Floats(values) => <[f64; 1]>::try_from(values.as_slice()).ok().map(|[value]| value),
            Elements::Integers(_) => None,
        }
    }
}

impl NodeInputs<'_> {
    fn infer(&self, symbols: &mut Symbols) -> Vec<Value> {
        let data_type = types::infer(self);
        let shapes = shapes::infer(self, symbols);
        let mut outputs: Vec<_> = (0..self.node.output.len())
            .map(|output| Value {
                data_type: if output == 0 || operator(self.node) == "Split" { data_type } else { None },
                shape: shapes.get(output).cloned(),
                elements: None,
            })
            .collect();
        if let Some(output) = outputs.first_mut()
            && let Some(shape) = &output.shape
            && shape.iter().try_fold(1_i64, |len, dim| len.checked_mul(dim.known()?)).is_some_and(is_small)
        {
            output.elements = elements::infer(self, shape, data_type, symbols);
        }
        outputs
    }

    fn operator(&self) -> &str {
        operator(self.node)
    }

    fn input(&self, input: usize) -> Option<&Value> {
        *self.inputs.get(input)?
    }

    fn has_input(&self, input: usize) -> bool {
        self.node.input.get(input).is_some_and(|name| !name.is_empty())
    }

    fn shape(&self, input: usize) -> Option<&[Dim]> {
        self.input(input)?.shape.as_deref()
    }

    fn elements(&self, input: usize) -> Option<&Elements> {
        self.input(input)?.elements.as_ref()
    }

    /// The elements of an input of integers.
    fn integers(&self, input: usize) -> Option<&[Dim]> {
        match self.elements(input)? {
            Elements::Integers(values) => Some(values),
            Elements::Floats(_) => None,
        }
    }

    fn known_integers(&self, input: usize) -> Option<Vec<i64>> {
        self.elements(input)?.known_integers()
    }

    fn int(&self, name: &str) -> Option<i64> {
        constants::int_attribute(self.node, name)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        constants::ints_attribute(self.node, name)
    }

    /// Integers that were an attribute in early operator sets and are an input in later ones.
    fn ints_or_input(&self, name: &str, input: usize) -> Option<Vec<i64>> {
        match self.ints(name) {
            Some(values) => Some(values.to_vec()),
            None => self.known_integers(input),
        }
    }
}

/// The position of an axis that may be counted from the end.
fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank)
}

fn is_small(len: i64) -> bool {
    (0..=MAX_ELEMENTS as i64).contains(&len)
}

fn from_tensor(tensor: &TensorProto) -> Value {
    Value {
        data_type: tensor.data_type,
        shape: Some(tensor.dims.iter().copied().map(Dim::Known).collect()),
        elements: constants::read(tensor),
    }
}

fn from_value_info(info: &ValueInfoProto, symbols: &mut Symbols) -> Value {
    let Some(tensor) = info.r#type.as_ref().and_then(|value| value.tensor_type.as_ref()) else {
        return Value::default();
    };
    // What these axes are added to keeps its shape.
    let broadcast = broadcast_axes(info.name.as_deref().unwrap_or_default());
    let shape = tensor.shape.as_ref().map(|shape| {
        let dims = shape.dim.iter().enumerate();
        let dims = dims.map(|(axis, dim)| match (dim.dim_value, dim.dim_param.as_deref()) {
            (Some(value), _) => Dim::Known(value),
            _ if broadcast.contains(&axis) => Dim::Known(1),
            (None, Some(name)) if !name.is_empty() => symbols.axis(name),
            _ => symbols.unknown(),
        });
        dims.collect()
    });
    Value { data_type: tensor.elem_type, shape, elements: None }
}
