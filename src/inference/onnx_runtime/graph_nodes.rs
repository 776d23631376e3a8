//! The names of a graph's nodes, read from the ONNX file.

use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

/// The names of the graph's nodes except constants, in the graph's order.
pub(super) fn node_names(path: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(path)?;
    let model = ModelNodes::decode(ValueReader::from_file(file)).map_err(std::io::Error::other)?;
    let nodes = model.nodes.into_iter().filter(|node| node.operator != "Constant");
    Ok(nodes.map(|node| node.name).collect())
}

/// The nodes of a `ModelProto`.
#[derive(Default)]
struct ModelNodes {
    nodes: Vec<NodeInfo>,
}

/// The nodes of a `GraphProto`.
struct GraphNodes(Vec<NodeInfo>);

/// The name and operator of a `NodeProto`.
#[derive(Default)]
struct NodeInfo {
    name: String,
    operator: String,
}

impl DecodeMessage for ModelNodes {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => model.nodes = GraphNodes::decode_field(&mut field)?.0,
                _ => field.skip()?,
            }
        }
        Ok(model)
    }
}

impl DecodeMessage for GraphNodes {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut nodes = Vec::new();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => nodes.push(NodeInfo::decode_field(&mut field)?),
                _ => field.skip()?,
            }
        }
        Ok(Self(nodes))
    }
}

impl DecodeMessage for NodeInfo {
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
    fn nodes_except_constants_are_listed_and_another_file_is_an_error() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian/unet/model.onnx");
        let found = node_names(&golden).unwrap();
        assert_eq!(found.len(), 38, "{found:?}");
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), "no graph").unwrap();
        assert!(node_names(other.path()).is_err());
    }
}
