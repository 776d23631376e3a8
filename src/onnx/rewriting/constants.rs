//! The elements of small tensors, and attributes.

use std::cell::RefCell;

use half::f16;
use rten_onnx::onnx::{AttributeProto, AttributeType, DataLocation, DataType, NodeProto, TensorProto};

use super::dim::Dim;

/// Tensors with more elements are not looked into.
pub(super) const MAX_ELEMENTS: usize = 256;

/// The elements of a small tensor, in its order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Elements {
    /// Integers and truth values. Truth values are 0 and 1.
    Integers(Vec<Dim>),
    /// Floating-point numbers, rounded to the tensor's type.
    Floats(Vec<f64>),
}

impl Elements {
    /// The number of elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// The integers, if none depends on the graph's inputs.
    pub(super) fn known_integers(&self) -> Option<Vec<i64>> {
        match self {
            Self::Integers(values) => values.iter().map(|value| value.known()).collect(),
            Self::Floats(_) => None,
        }
    }
}

/// Rounds a number as the type does.
pub(super) fn round(value: f64, data_type: Option<DataType>) -> f64 {
    match data_type {
        Some(DataType::FLOAT) => f64::from(value as f32),
        Some(DataType::FLOAT16) => f16::from_f64(value).to_f64(),
        _ => value,
    }
}

/// Reads a tensor. `None` if it is large, stored in another file, or of a type that shapes and scales do not have.
pub(super) fn read(tensor: &TensorProto) -> Option<Elements> {
    let count =
        tensor.dims.iter().try_fold(1_usize, |count, dim| count.checked_mul((*dim).try_into().ok()?))?;
    if count > MAX_ELEMENTS || tensor.data_location == Some(DataLocation::EXTERNAL) {
        return None;
    }
    let raw = tensor.raw_data.as_ref().map(RefCell::borrow);
    let raw = raw.as_deref().map(Vec::as_slice).filter(|raw| !raw.is_empty());
    let elements = match tensor.data_type? {
        DataType::INT64 => integers(match raw {
            Some(raw) => numbers(raw, i64::from_le_bytes),
            None => tensor.int64_data.clone(),
        }),
        DataType::INT32 => integers(match raw {
            Some(raw) => numbers(raw, |bytes| i64::from(i32::from_le_bytes(bytes))),
            None => tensor.int32_data.iter().map(|value| i64::from(*value)).collect(),
        }),
        DataType::BOOL => integers(match raw {
            Some(raw) => raw.iter().map(|value| i64::from(*value != 0)).collect(),
            None => tensor.int32_data.iter().map(|value| i64::from(*value != 0)).collect(),
        }),
        DataType::FLOAT => Elements::Floats(match raw {
            Some(raw) => numbers(raw, |bytes| f64::from(f32::from_le_bytes(bytes))),
            None => tensor.float_data.iter().map(|value| f64::from(*value)).collect(),
        }),
        DataType::FLOAT16 => Elements::Floats(match raw {
            Some(raw) => numbers(raw, |bytes| f16::from_le_bytes(bytes).to_f64()),
            None => tensor.int32_data.iter().map(|value| f16::from_bits(*value as u16).to_f64()).collect(),
        }),
        DataType::DOUBLE => Elements::Floats(match raw {
            Some(raw) => numbers(raw, f64::from_le_bytes),
            None => tensor.double_data.clone(),
        }),
        _ => return None,
    };
    (elements.len() == count).then_some(elements)
}

/// Makes a tensor. `None` if an element depends on the graph's inputs or the type is not one that [`read`] reads.
pub(super) fn write(
    name: &str,
    data_type: DataType,
    dims: &[i64],
    elements: &Elements,
) -> Option<TensorProto> {
    let bytes = match (data_type, elements) {
        (DataType::FLOAT, Elements::Floats(values)) => bytes(values, |value| (value as f32).to_le_bytes()),
        (DataType::FLOAT16, Elements::Floats(values)) => {
            bytes(values, |value| f16::from_f64(value).to_le_bytes())
        }
        (DataType::DOUBLE, Elements::Floats(values)) => bytes(values, f64::to_le_bytes),
        (DataType::INT64, elements) => bytes(&elements.known_integers()?, i64::to_le_bytes),
        (DataType::INT32, elements) => {
            bytes(&elements.known_integers()?, |value| (value as i32).to_le_bytes())
        }
        (DataType::BOOL, elements) => bytes(&elements.known_integers()?, |value| [u8::from(value != 0)]),
        _ => return None,
    };
    Some(TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        raw_data: Some(RefCell::new(bytes)),
        ..TensorProto::default()
    })
}

/// A tensor of 64-bit integers with one axis.
pub(super) fn int64_vector(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::INT64),
        raw_data: Some(RefCell::new(bytes(values, i64::to_le_bytes))),
        ..TensorProto::default()
    }
}

/// An attribute of a node.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

/// An integer attribute of a node.
pub(super) fn int_attribute(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name)?.i
}

/// The integers of an attribute of a node.
pub(super) fn ints_attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

/// Makes an integer attribute.
pub(super) fn new_int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    }
}

/// Makes an attribute of integers.
pub(super) fn new_ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        r#type: Some(AttributeType::INTS),
        ..AttributeProto::default()
    }
}

/// Makes a floating-point attribute.
pub(super) fn new_float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(value),
        r#type: Some(AttributeType::FLOAT),
        ..AttributeProto::default()
    }
}

fn integers(values: Vec<i64>) -> Elements {
    Elements::Integers(values.into_iter().map(Dim::Known).collect())
}

fn numbers<const N: usize, T>(raw: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
}

fn bytes<const N: usize, T: Copy>(values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_read_back_as_written() {
        let known = |values: &[i64]| integers(values.to_vec());
        for (data_type, elements) in [
            (DataType::INT64, known(&[-1, i64::MAX])),
            (DataType::INT32, known(&[-1, 7])),
            (DataType::BOOL, known(&[0, 1])),
            (DataType::FLOAT, Elements::Floats(vec![0.5, f64::from(0.1_f32)])),
            (DataType::FLOAT16, Elements::Floats(vec![0.5, -2.0])),
            (DataType::DOUBLE, Elements::Floats(vec![0.1, 2.0])),
        ] {
            assert_eq!(read(&write("a", data_type, &[2], &elements).unwrap()), Some(elements));
        }
    }

    #[test]
    fn numbers_in_typed_fields_are_read() {
        let tensor =
            |data_type| TensorProto { dims: vec![1], data_type: Some(data_type), ..TensorProto::default() };
        let float = TensorProto { float_data: vec![0.25], ..tensor(DataType::FLOAT) };
        let half = TensorProto { int32_data: vec![0x3c00], ..tensor(DataType::FLOAT16) };
        let int = TensorProto { int64_data: vec![9], ..tensor(DataType::INT64) };
        assert_eq!(read(&float), Some(Elements::Floats(vec![0.25])));
        assert_eq!(read(&half), Some(Elements::Floats(vec![1.0])));
        assert_eq!(read(&int), Some(integers(vec![9])));
        assert_eq!(read(&tensor(DataType::INT64)), None);
    }
}
