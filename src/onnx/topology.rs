//! The nodes of a graph and the shapes of its weights, without the weights' values.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

use super::element_type::ElementType;
use super::error::OnnxError;

/// The nodes and the weights of a graph. Nested graphs are left out.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The nodes in the graph's order.
    pub(crate) nodes: Vec<Node>,
    /// The initializers by name.
    pub(crate) weights: BTreeMap<String, Weight>,
}

impl Topology {
    /// Reads a file. The data of tensors is skipped by seeking.
    pub(crate) fn read(path: &Path) -> Result<Self, OnnxError> {
        let file = File::open(path).map_err(OnnxError::io(path))?;
        let model = Model::decode(ValueReader::from_file(file)).map_err(|error| {
            OnnxError::new(path, format!("this is not a whole ONNX file ({error}); export it again"))
        })?;
        Ok(model.0)
    }
}

/// A node with the attributes that change the size of an image.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The type of the operator.
    pub(crate) operator: String,
    /// The names of its inputs.
    pub(crate) inputs: Vec<String>,
    /// The names of its outputs.
    pub(crate) outputs: Vec<String>,
    /// `strides`. Empty if there are none.
    pub(crate) strides: Vec<i64>,
    /// `group`.
    pub(crate) group: Option<i64>,
    /// `blocksize`.
    pub(crate) block_size: Option<usize>,
}

/// The graph of a `ModelProto`.
struct Model(Topology);

/// The type and the shape of an initializer.
#[derive(Debug)]
pub(crate) struct Weight {
    /// The type of its elements.
    pub(crate) element: ElementType,
    /// The length of each axis.
    pub(crate) shape: Vec<i64>,
}

/// A `TensorProto`.
struct NamedWeight {
    name: String,
    weight: Weight,
}

/// An `AttributeProto` of whole numbers.
#[derive(Default)]
struct Attribute {
    name: String,
    number: Option<i64>,
    numbers: Vec<i64>,
}

impl DecodeMessage for Model {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Topology::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => graph = Topology::decode_field(&mut field)?,
                _ => field.skip()?,
            }
        }
        Ok(Self(graph))
    }
}

impl DecodeMessage for Topology {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => graph.nodes.push(Node::decode_field(&mut field)?),
                5 => {
                    let NamedWeight { name, weight } = NamedWeight::decode_field(&mut field)?;
                    graph.weights.insert(name, weight);
                }
                _ => field.skip()?,
            }
        }
        Ok(graph)
    }
}

impl DecodeMessage for Node {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut node = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => node.inputs.push(field.read_string()?),
                2 => node.outputs.push(field.read_string()?),
                4 => node.operator = field.read_string()?,
                5 => {
                    let attribute = Attribute::decode_field(&mut field)?;
                    match attribute.name.as_str() {
                        "strides" => node.strides = attribute.numbers,
                        "group" => node.group = attribute.number,
                        "blocksize" => {
                            node.block_size = attribute.number.and_then(|n| usize::try_from(n).ok())
                        }
                        _ => {}
                    }
                }
                _ => field.skip()?,
            }
        }
        Ok(node)
    }
}

impl DecodeMessage for Attribute {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut attribute = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => attribute.name = field.read_string()?,
                3 => attribute.number = Some(field.get_int64()?),
                8 => {
                    for number in field.read_repeated_int64()? {
                        attribute.numbers.push(number?);
                    }
                }
                _ => field.skip()?,
            }
        }
        Ok(attribute)
    }
}

impl DecodeMessage for NamedWeight {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut weight = Weight { element: ElementType(0), shape: Vec::new() };
        let mut name = String::new();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    for length in field.read_repeated_int64()? {
                        weight.shape.push(length?);
                    }
                }
                2 => weight.element = ElementType(field.get_enum()?),
                8 => name = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(Self { name, weight })
    }
}
