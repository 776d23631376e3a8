//! The messages of an ONNX file, decoded without the values of tensors.

use std::collections::{BTreeMap, BTreeSet};

use rten_onnx::onnx::{DataLocation, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto};
use rten_onnx::protobuf::{DecodeMessage, FieldValue, Fields, OwnedValues, ProtobufError, ReadValue};

use super::value_info::{axis_names, element_type, value_info};
use super::{ExternalTensor, Header, Operator};
use crate::onnx::topology::{self, Topology, Weight};
use crate::tensor::{ElementType, GraphIo, ValueInfo};

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
    pub(super) topology: Topology,
}

/// A `GraphProto`.
#[derive(Default)]
struct Graph {
    initializers: BTreeSet<String>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    axis_names: BTreeMap<String, Vec<Option<String>>>,
    node_names: Vec<String>,
    topology: Topology,
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
    topology: topology::Node,
    contents: Contents,
}

/// An `AttributeProto`.
#[derive(Default)]
struct Attribute {
    name: String,
    number: Option<i64>,
    numbers: Vec<i64>,
    contents: Contents,
}

/// A `SparseTensorProto`.
struct SparseTensor {
    name: String,
    contents: Contents,
}

/// A `TensorProto`.
struct TensorInfo {
    name: String,
    weight: Weight,
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
                    header.axis_names = graph.axis_names;
                    header.node_names = graph.node_names;
                    model.topology = graph.topology;
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
                    graph.topology.nodes.push(node.topology);
                }
                5 => {
                    let tensor = TensorInfo::decode_field(&mut field)?;
                    graph.initializers.insert(tensor.name.clone());
                    graph.topology.weights.insert(tensor.name, tensor.weight);
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
                    let info = value_info(&value);
                    if number == 11 {
                        graph.axis_names.insert(info.name.clone(), axis_names(&value));
                        graph.inputs.push(info);
                    } else {
                        graph.outputs.push(info);
                    }
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
        let (mut name, mut own_domain, mut contents) = (String::new(), String::new(), Contents::default());
        let mut topology = topology::Node::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => topology.inputs.push(field.read_string()?),
                2 => topology.outputs.push(field.read_string()?),
                3 => name = field.read_string()?,
                4 => topology.operator = field.read_string()?,
                5 => {
                    let attribute = Attribute::decode_field(&mut field)?;
                    match attribute.name.as_str() {
                        "strides" => topology.strides = attribute.numbers,
                        "group" => topology.group = attribute.number,
                        "blocksize" => {
                            topology.block_size = attribute.number.and_then(|n| usize::try_from(n).ok());
                        }
                        _ => {}
                    }
                    contents.extend(attribute.contents);
                }
                7 => own_domain = field.read_string()?,
                _ => field.skip()?,
            }
        }
        let operator = Operator { domain: domain(own_domain), name: topology.operator.clone() };
        Ok(Self { name, operator, topology, contents })
    }
}

impl DecodeMessage for Attribute {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut attribute = Self::default();
        let contents = &mut attribute.contents;
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => attribute.name = field.read_string()?,
                3 => attribute.number = Some(field.get_int64()?),
                5 | 10 => contents.extend(TensorInfo::decode_field(&mut field)?.contents),
                6 | 11 => contents.extend(Graph::decode_field(&mut field)?.contents),
                8 => {
                    for number in field.read_repeated_int64()? {
                        attribute.numbers.push(number?);
                    }
                }
                22 | 23 => contents.extend(SparseTensor::decode_field(&mut field)?.contents),
                _ => field.skip()?,
            }
        }
        // The type that Cast converts to.
        let target = attribute.number.filter(|_| attribute.name == "to");
        contents.element_types.extend(target.and_then(|number| i32::try_from(number).ok()).map(ElementType));
        Ok(attribute)
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
        let mut weight = Weight::default();
        let (mut external, mut is_external) = (ExternalTensor::default(), false);
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    for length in field.read_repeated_int64()? {
                        weight.shape.push(length?);
                    }
                }
                2 => weight.element = ElementType(field.get_enum()?),
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
        let mut lengths = weight.shape.iter().map(|length| u64::try_from(*length).ok());
        let elements = lengths.try_fold(1_u64, |n, length| n.checked_mul(length?));
        external.size = elements.and_then(|elements| weight.element.size_of(elements));
        let mut contents = Contents::default();
        contents.element_types.insert(weight.element);
        let name = external.name.clone();
        if is_external {
            contents.external.push(external);
        }
        Ok(Self { name, weight, contents })
    }
}
