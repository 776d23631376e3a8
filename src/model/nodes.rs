//! The nodes that a graph's file lists, read without its weights.

use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

/// The names of the graph's nodes, without those that only hold a constant.
pub(super) fn names(graph: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(graph)?;
    let model = Model::decode(ValueReader::from_file(file)).map_err(std::io::Error::other)?;
    let computes = |node: &Node| node.operator != "Constant";
    Ok(model.nodes.into_iter().filter(computes).map(|node| node.name).collect())
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
struct Graph(Vec<Node>);

impl DecodeMessage for Model {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => model.nodes = Graph::decode_field(&mut field)?.0,
                _ => field.skip()?,
            }
        }
        Ok(model)
    }
}

impl DecodeMessage for Graph {
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
        let found = names(&golden).unwrap();
        assert_eq!(found.len(), 38, "{found:?}");
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), "no graph").unwrap();
        assert!(names(other.path()).is_err());
    }
}
