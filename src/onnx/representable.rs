//! Whether the messages of `rten-onnx` represent an ONNX file without loss, so that it can be decoded, changed and encoded.

use rten_onnx::protobuf::{ErrorKind, OwnedValues, ProtobufError, ReadValue, ValueReader};

/// The messages whose fields are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    Sequence,
    TensorType,
    Shape,
    Dimension,
    OperatorSet,
    Entry,
}

/// What happens to a field when a file is decoded and encoded again.
enum Field {
    /// It is kept.
    Kept,
    /// It is kept, and contains another message.
    Nested(Message),
    /// It is lost, but no engine reads it: names, documentation, metadata of exporters.
    Irrelevant,
    /// It is lost.
    Lost,
}

impl Message {
    /// The fields by the numbers in `onnx.proto`.
    fn field(self, number: u64) -> Field {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6) => Field::Nested(Self::Graph),
            (Self::Model, 8) => Field::Nested(Self::OperatorSet),
            (Self::Model, 14) | (Self::Tensor, 13) => Field::Nested(Self::Entry),
            (Self::Model, 1..=3) => Field::Kept,
            (Self::Model, 4..=6) => Field::Irrelevant,
            (Self::Graph, 1) => Field::Nested(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5) => Field::Nested(Self::Tensor),
            (Self::Graph, 11..=13) => Field::Nested(Self::ValueInfo),
            (Self::Graph, 2 | 10 | 16) => Field::Irrelevant,
            (Self::Node, 5) => Field::Nested(Self::Attribute),
            (Self::Node, 1..=4 | 7) => Field::Kept,
            (Self::Node, 6 | 9) => Field::Irrelevant,
            (Self::Attribute, 1..=4 | 7..=9 | 20) => Field::Kept,
            (Self::Attribute, 13) => Field::Irrelevant,
            (Self::Tensor, 1 | 2 | 4 | 5 | 7..=10 | 14) => Field::Kept,
            (Self::Tensor, 12 | 16) => Field::Irrelevant,
            (Self::ValueInfo, 2) | (Self::Sequence, 1) => Field::Nested(Self::Type),
            (Self::ValueInfo, 1) => Field::Kept,
            (Self::ValueInfo, 3 | 4) => Field::Irrelevant,
            (Self::Type, 1) => Field::Nested(Self::TensorType),
            (Self::Type, 4) => Field::Nested(Self::Sequence),
            (Self::Type, 6) => Field::Irrelevant,
            (Self::TensorType, 2) => Field::Nested(Self::Shape),
            (Self::TensorType, 1) => Field::Kept,
            (Self::Shape, 1) => Field::Nested(Self::Dimension),
            (Self::Dimension, 1 | 2) => Field::Kept,
            (Self::Dimension, 3) => Field::Irrelevant,
            (Self::OperatorSet | Self::Entry, 1 | 2) => Field::Kept,
            _ => Field::Lost,
        }
    }

    /// What a field that is lost contains, for the log.
    fn lost(self, number: u64) -> String {
        match (self, number) {
            (Self::Model, 25) => "functions".to_owned(),
            (Self::Graph, 15) | (Self::Attribute, 11 | 22 | 23) => {
                "sparse tensors or lists of graphs".to_owned()
            }
            (Self::Graph, 14) => "quantization annotations".to_owned(),
            (Self::Tensor, 6) => "tensors of strings".to_owned(),
            _ => format!("field {number} of a {self:?}"),
        }
    }
}

/// Returns what would be lost if an ONNX file were decoded and encoded. `None` if it is represented in full.
///
/// Empty fields lose nothing, because they say the same as fields that are left out.
pub(crate) fn lost_content(file: &[u8]) -> Result<Option<String>, ProtobufError> {
    walk(&mut ValueReader::from_buf(file), file.len() as u64, Message::Model)
}

fn walk(
    reader: &mut impl ReadValue<Types = OwnedValues>,
    end: u64,
    message: Message,
) -> Result<Option<String>, ProtobufError> {
    while reader.position() < end {
        let tag = reader.read_varint()?;
        let (number, kind) = (tag >> 3, tag & 7);
        let field = message.field(number);
        let len = match kind {
            0 => {
                reader.read_varint()?;
                1
            }
            1 => {
                reader.read_i64()?;
                8
            }
            5 => {
                reader.read_i32()?;
                4
            }
            2 => {
                let len = reader.read_varint()?;
                if let Field::Nested(child) = field {
                    let end = reader.position() + len;
                    if let Some(lost) = walk(reader, end, child)? {
                        return Ok(Some(lost));
                    }
                } else {
                    reader.skip(len as usize)?;
                }
                len
            }
            _ => return Err(ProtobufError::new(ErrorKind::FieldTypeMismatch)),
        };
        if matches!(field, Field::Lost) && len > 0 {
            return Ok(Some(message.lost(number)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto};

    use super::*;

    /// A model with one node, with fields appended to the model.
    fn with_field(field: &[u8]) -> Vec<u8> {
        let node = NodeProto { op_type: Some("Relu".to_owned()), ..NodeProto::default() };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ir_version: Some(8), ..ModelProto::default() };
        [&model.write_buf().unwrap(), field].concat()
    }

    #[test]
    fn what_the_messages_lack_is_named() {
        let lost = |field: &[u8]| lost_content(&with_field(field)).unwrap();
        assert_eq!(lost(&[]), None);
        // The documentation of the model, and an empty list entry.
        assert_eq!(lost(&[6 << 3 | 2, 1, b'x']), None);
        // A function, whose tag takes two bytes.
        assert_eq!(lost(&[0xca, 0x01, 2, 10, 0]).as_deref(), Some("functions"));
        assert_eq!(lost(&[0xca, 0x01, 0]), None);
        // A graph with a sparse initializer.
        let sparse = [7 << 3 | 2, 4, 15 << 3 | 2, 2, 10, 0];
        assert_eq!(lost(&sparse).as_deref(), Some("sparse tensors or lists of graphs"));
        // A node with an overload.
        let overload = [7 << 3 | 2, 5, 1 << 3 | 2, 3, 8 << 3 | 2, 1, b'x'];
        assert_eq!(lost(&overload).as_deref(), Some("field 8 of a Node"));
    }

    #[test]
    fn the_exports_of_common_tools_are_represented_in_full() {
        for bundle in ["sd/unet", "sd/text_encoder", "sd/vae_decoder"] {
            let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles");
            let file = std::fs::read(golden.join(bundle).join("model.onnx")).unwrap();
            assert_eq!(lost_content(&file).unwrap(), None, "{bundle}");
        }
    }
}
