//! The messages of an ONNX file, decoded without the values of tensors.

use std::collections::BTreeSet;

use rten_onnx::onnx::{
    DataLocation, DataType as OnnxDataType, Dimension, OperatorSetIdProto, StringStringEntryProto,
    ValueInfoProto,
};
use rten_onnx::protobuf::{DecodeMessage, FieldValue, Fields, OwnedValues, ProtobufError, ReadValue};

use super::{ExternalTensor, Header, Operator};
use crate::onnx::element_type::ElementType;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// ONNX's own operators are in the domain "", which may also be written out.
fn domain(name: String) -> String {
    if name == "ai.onnx" { String::new() } else { name }
}

/// What a message contains, with what is nested in it.
#[derive(Debug, Default)]
struct Contents {
    operators: BTreeSet<Operator>,
    external: Vec<ExternalTensor>,
    element_types: BTreeSet<ElementType>,
}

impl Contents {
    fn extend(&mut self, other: Self) {
        self.operators.extend(other.operators);
        self.external.extend(other.external);
        self.element_types.extend(other.element_types);
    }
}

/// A `ModelProto`.
#[derive(Default)]
pub(super) struct Model {
    pub(super) header: Header,
    /// The length of the graph in bytes.
    pub(super) graph_len: u64,
}

/// A `GraphProto`.
#[derive(Default)]
struct Graph {
    initializers: BTreeSet<String>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    node_names: Vec<String>,
    contents: Contents,
}

/// A `FunctionProto`.
struct Function {
    operator: Operator,
    contents: Contents,
}

/// A `NodeProto`.
struct Node {
    name: String,
    operator: Operator,
    contents: Contents,
}

/// An `AttributeProto`.
struct Attribute(Contents);

/// A `SparseTensorProto`.
struct SparseTensor {
    name: String,
    contents: Contents,
}

/// A `TensorProto`.
struct TensorInfo {
    name: String,
    contents: Contents,
}

impl DecodeMessage for Model {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        let header = &mut model.header;
        let mut contents = Contents::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => {
                    if let FieldValue::Len(len) = field.value() {
                        model.graph_len = len;
                    }
                    let graph = Graph::decode_field(&mut field)?;
                    let is_fed = |input: &ValueInfo| !graph.initializers.contains(&input.name);
                    header.io = GraphIo {
                        inputs: graph.inputs.into_iter().filter(is_fed).collect(),
                        outputs: graph.outputs,
                    };
                    header.node_names = graph.node_names;
                    contents.extend(graph.contents);
                }
                8 => {
                    let set = OperatorSetIdProto::decode_field(&mut field)?;
                    let name = domain(set.domain.unwrap_or_default());
                    header.opsets.push((name, set.version.unwrap_or_default()));
                }
                25 => {
                    let function = Function::decode_field(&mut field)?;
                    header.functions.insert(function.operator);
                    contents.extend(function.contents);
                }
                _ => field.skip()?,
            }
        }
        header.operators = contents.operators;
        header.external = contents.external;
        header.element_types = contents.element_types;
        Ok(model)
    }
}

impl DecodeMessage for Graph {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    let node = Node::decode_field(&mut field)?;
                    if node.operator.name != "Constant" {
                        graph.node_names.push(node.name);
                    }
                    graph.contents.operators.insert(node.operator);
                    graph.contents.extend(node.contents);
                }
                5 => {
                    let tensor = TensorInfo::decode_field(&mut field)?;
                    graph.initializers.insert(tensor.name);
                    graph.contents.extend(tensor.contents);
                }
                15 => {
                    let tensor = SparseTensor::decode_field(&mut field)?;
                    graph.initializers.insert(tensor.name);
                    graph.contents.extend(tensor.contents);
                }
                number @ (11 | 12) => {
                    let value = ValueInfoProto::decode_field(&mut field)?;
                    graph.contents.element_types.extend(element_type(&value));
                    let values = if number == 11 { &mut graph.inputs } else { &mut graph.outputs };
                    values.push(value_info(&value));
                }
                _ => field.skip()?,
            }
        }
        Ok(graph)
    }
}

impl DecodeMessage for Function {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let (mut name, mut own_domain, mut contents) = (String::new(), String::new(), Contents::default());
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => name = field.read_string()?,
                7 => {
                    let node = Node::decode_field(&mut field)?;
                    contents.operators.insert(node.operator);
                    contents.extend(node.contents);
                }
                10 => own_domain = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(Self { operator: Operator { domain: domain(own_domain), name }, contents })
    }
}

impl DecodeMessage for Node {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let (mut name, mut contents) = (String::new(), Contents::default());
        let (mut own_domain, mut operator) = (String::new(), String::new());
        while let Some(mut field) = fields.next()? {
            match field.number() {
                3 => name = field.read_string()?,
                4 => operator = field.read_string()?,
                5 => contents.extend(Attribute::decode_field(&mut field)?.0),
                7 => own_domain = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(Self { name, operator: Operator { domain: domain(own_domain), name: operator }, contents })
    }
}

impl DecodeMessage for Attribute {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let (mut contents, mut name, mut value) = (Contents::default(), String::new(), None);
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => name = field.read_string()?,
                3 => value = i32::try_from(field.get_int64()?).ok(),
                5 | 10 => contents.extend(TensorInfo::decode_field(&mut field)?.contents),
                6 | 11 => contents.extend(Graph::decode_field(&mut field)?.contents),
                22 | 23 => contents.extend(SparseTensor::decode_field(&mut field)?.contents),
                _ => field.skip()?,
            }
        }
        // The type that Cast converts to.
        contents.element_types.extend(value.filter(|_| name == "to").map(ElementType));
        Ok(Self(contents))
    }
}

impl DecodeMessage for SparseTensor {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let (mut name, mut contents) = (String::new(), Contents::default());
        while let Some(mut field) = fields.next()? {
            match field.number() {
                number @ (1 | 2) => {
                    let tensor = TensorInfo::decode_field(&mut field)?;
                    // The values give the sparse tensor its name.
                    if number == 1 {
                        name = tensor.name;
                    }
                    contents.extend(tensor.contents);
                }
                _ => field.skip()?,
            }
        }
        Ok(Self { name, contents })
    }
}

impl DecodeMessage for TensorInfo {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let (mut elements, mut element_type) = (Some(1_u64), ElementType(0));
        let (mut external, mut is_external) = (ExternalTensor::default(), false);
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    for length in field.read_repeated_int64()? {
                        let length = u64::try_from(length?).ok();
                        elements = elements.zip(length).and_then(|(n, length)| n.checked_mul(length));
                    }
                }
                2 => element_type = ElementType(field.get_enum()?),
                8 => external.name = field.read_string()?,
                13 => {
                    let entry = StringStringEntryProto::decode_field(&mut field)?;
                    let value = entry.value.unwrap_or_default();
                    // A number that cannot be read is treated as one that no file is long enough for.
                    match entry.key.as_deref() {
                        Some("location") => external.location = value,
                        Some("offset") => external.offset = value.parse().unwrap_or(u64::MAX),
                        Some("length") => external.len = Some(value.parse().unwrap_or(u64::MAX)),
                        _ => {}
                    }
                }
                14 => is_external = field.get_enum()? == DataLocation::EXTERNAL.0,
                _ => field.skip()?,
            }
        }
        external.size = elements.and_then(|elements| element_type.size_of(elements));
        let mut contents = Contents::default();
        contents.element_types.insert(element_type);
        let name = external.name.clone();
        if is_external {
            contents.external.push(external);
        }
        Ok(Self { name, contents })
    }
}

fn element_type(value: &ValueInfoProto) -> Option<ElementType> {
    let tensor = value.r#type.as_ref()?.tensor_type.as_ref()?;
    Some(ElementType(tensor.elem_type?.0))
}

fn value_info(value: &ValueInfoProto) -> ValueInfo {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let element = match tensor.and_then(|tensor| tensor.elem_type) {
        Some(OnnxDataType::FLOAT) => DataType::F32,
        Some(OnnxDataType::FLOAT16) => DataType::F16,
        Some(OnnxDataType::INT64) => DataType::I64,
        Some(OnnxDataType::INT32) => DataType::I32,
        _ => DataType::Other,
    };
    let axes = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| &shape.dim[..]);
    let axis = |dimension: &Dimension| {
        let length = dimension.dim_value.and_then(|length| usize::try_from(length).ok());
        length.map_or(Dim::Dynamic, Dim::Fixed)
    };
    ValueInfo {
        name: value.name.clone().unwrap_or_default(),
        element,
        shape: axes.unwrap_or_default().iter().map(axis).collect(),
    }
}
