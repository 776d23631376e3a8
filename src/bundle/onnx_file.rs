//! What a graph's file says, read without an engine.

use std::fs::File;
use std::path::Path;

use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
use rten_onnx::onnx::{DataType as RtenDataType, Dimension, ModelProto, ValueInfoProto};
use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

/// The names of the graph's nodes, without those that only hold a constant.
pub(crate) fn node_names(graph: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(graph)?;
    let model = Model::decode(ValueReader::from_file(file)).map_err(std::io::Error::other)?;
    let computes = |node: &Node| node.operator != "Constant";
    Ok(model.nodes.into_iter().filter(computes).map(|node| node.name).collect())
}

/// The graph's inputs and outputs; what its weights fill is none.
pub fn ports(graph: &Path) -> std::io::Result<GraphIo> {
    let model = ModelProto::parse_file(File::open(graph)?).map_err(std::io::Error::other)?;
    let graph = model.graph.unwrap_or_default();
    let is_weight =
        |port: &ValueInfo| graph.initializer.iter().any(|tensor| tensor.name.as_ref() == Some(&port.name));
    let inputs = graph.input.iter().map(port).filter(|port| !is_weight(port)).collect();
    Ok(GraphIo { inputs, outputs: graph.output.iter().map(port).collect() })
}

fn port(value: &ValueInfoProto) -> ValueInfo {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let element = match tensor.and_then(|tensor| tensor.elem_type) {
        Some(RtenDataType::FLOAT) => DataType::F32,
        Some(RtenDataType::FLOAT16) => DataType::F16,
        Some(RtenDataType::INT64) => DataType::I64,
        Some(RtenDataType::INT32) => DataType::I32,
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

/// What counts of `ModelProto` and its `GraphProto`.
#[derive(Default)]
struct Model {
    nodes: Vec<Node>,
}

/// What counts of `NodeProto`.
#[derive(Default)]
struct Node {
    name: String,
    operator: String,
}

/// `GraphProto` alone, which stands in a field of `ModelProto`.
struct Nodes(Vec<Node>);

impl DecodeMessage for Model {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => model.nodes = Nodes::decode_field(&mut field)?.0,
                _ => field.skip()?,
            }
        }
        Ok(model)
    }
}

impl DecodeMessage for Nodes {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut nodes = Vec::new();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => nodes.push(Node::decode_field(&mut field)?),
                _ => field.skip()?,
            }
        }
        Ok(Self(nodes))
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
                3 => node.name = field.read_string()?,
                4 => node.operator = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_that_compute_are_listed_and_another_file_is_an_error() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian/unet/model.onnx");
        let found = node_names(&golden).unwrap();
        assert_eq!(found.len(), 38, "{found:?}");
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), "no graph").unwrap();
        assert!(node_names(other.path()).is_err() && ports(other.path()).is_err());
        let graph = ports(&golden).unwrap();
        let inputs: Vec<_> = graph.inputs.iter().map(ValueInfo::to_string).collect();
        assert_eq!(inputs[0], "sample float32[?, 1, 4, 5]");
    }
}
