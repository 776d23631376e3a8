//! Copies an ONNX file with other places for the values of its tensors. Everything else stays as it is.

use std::fs::File;
use std::path::Path;

use rten_onnx::onnx::StringStringEntryProto;
use rten_onnx::protobuf::varint::{MAX_VARINT_LEN, encode_varint};
use rten_onnx::protobuf::{
    DecodeMessage, EncodeMessage, ErrorKind, OwnedValues, ProtobufError, ReadValue, ValueReader, ValueWriter,
};

/// Where values that are inside the ONNX file go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InlineData<'a> {
    /// They stay inside.
    Keep,
    /// They become external data in the file of this location, which is the ONNX file itself. They are not read.
    External(&'a str),
}

/// The places of tensors' values in a copy of an ONNX file.
pub(crate) struct Rewrite<'a> {
    /// Values inside the ONNX file.
    pub(crate) inline: InlineData<'a>,
    /// The new location of external data at this location.
    pub(crate) location: &'a dyn Fn(&str) -> String,
}

/// A copy of an ONNX file.
pub(crate) struct GraphCopy {
    /// The contents.
    pub(crate) bytes: Vec<u8>,
    /// Whether a field with several numbers became several fields.
    pub(crate) unpacked: bool,
}

/// Values of fewer bytes stay inside the ONNX file.
const MIN_EXTERNAL: u64 = 1024;

/// The messages that contain tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The message in a field. `None` if the field contains no tensors.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) => Self::Attribute,
            _ => return None,
        })
    }
}

impl Rewrite<'_> {
    /// Copies a file.
    pub(crate) fn apply(&self, graph: &Path) -> Result<GraphCopy, ProtobufError> {
        let file = File::open(graph)?;
        let end = file.metadata()?.len();
        let mut bytes = Vec::new();
        let unpacked = self.copy(&mut ValueReader::from_file(file), end, Message::Model, &mut bytes)?;
        Ok(GraphCopy { bytes, unpacked })
    }

    /// Copies the fields of a message. Returns whether any was unpacked.
    fn copy(
        &self,
        reader: &mut impl ReadValue<Types = OwnedValues>,
        end: u64,
        message: Message,
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtobufError> {
        let mut unpacked = false;
        while reader.position() < end {
            let tag = reader.read_varint()?;
            let value = match tag & 7 {
                0 => varint(reader.read_varint()?),
                1 => reader.read_i64()?.to_le_bytes().to_vec(),
                5 => reader.read_i32()?.to_le_bytes().to_vec(),
                2 => {
                    unpacked |= self.copy_field(reader, tag >> 3, message, out)?;
                    continue;
                }
                _ => return Err(ProtobufError::new(ErrorKind::FieldTypeMismatch)),
            };
            out.extend(varint(tag));
            out.extend(value);
        }
        Ok(unpacked)
    }

    /// Copies a field of variable length, whose tag has been read. Returns whether it was unpacked.
    fn copy_field(
        &self,
        reader: &mut impl ReadValue<Types = OwnedValues>,
        field: u64,
        message: Message,
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtobufError> {
        let len = reader.read_varint()?;
        if let Some(child) = message.child(field) {
            let mut content = Vec::new();
            let end = reader.position() + len;
            let unpacked = self.copy(reader, end, child, &mut content)?;
            put_bytes(out, field, &content);
            return Ok(unpacked);
        }
        match (message, field, self.inline) {
            (Message::Tensor, 9, InlineData::External(location)) if len >= MIN_EXTERNAL => {
                let offset = reader.position();
                reader.skip(len as usize)?;
                for (key, value) in
                    [("location", location), ("offset", &offset.to_string()), ("length", &len.to_string())]
                {
                    put_entry(out, key, value.to_owned())?;
                }
                out.extend([14 << 3, 1]);
            }
            (Message::Tensor, 13, _) => {
                let bytes = reader.read_bytes(len as usize)?;
                let entry = StringStringEntryProto::decode(ValueReader::from_buf(bytes))?;
                let (key, value) = (entry.key.unwrap_or_default(), entry.value.unwrap_or_default());
                let value = if key == "location" { (self.location)(&value) } else { value };
                put_entry(out, &key, value)?;
            }
            // Dims, floats and ints, one field each: rten does not read fields that hold several.
            (Message::Tensor, 1, InlineData::External(_))
            | (Message::Attribute, 8, InlineData::External(_)) => {
                let end = reader.position() + len;
                while reader.position() < end {
                    out.extend([varint(field << 3), varint(reader.read_varint()?)].concat());
                }
                return Ok(true);
            }
            (Message::Attribute, 7, InlineData::External(_)) => {
                for _ in 0..len / 4 {
                    out.extend(varint(field << 3 | 5));
                    out.extend(reader.read_i32()?.to_le_bytes());
                }
                return Ok(true);
            }
            _ => put_bytes(out, field, &reader.read_bytes(len as usize)?),
        }
        Ok(false)
    }
}

fn varint(value: u64) -> Vec<u8> {
    encode_varint(value, &mut [0; MAX_VARINT_LEN]).to_vec()
}

fn put_bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    out.extend(varint(field << 3 | 2));
    out.extend(varint(content.len() as u64));
    out.extend(content);
}

/// Writes an entry of a tensor's `external_data`.
fn put_entry(out: &mut Vec<u8>, key: &str, value: String) -> Result<(), ProtobufError> {
    let mut content = Vec::new();
    let entry = StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    entry.encode(ValueWriter::new(&mut content))?;
    put_bytes(out, 13, &content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::ModelProto;

    use super::*;

    fn golden() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles/sd/unet/model.onnx")
    }

    #[test]
    fn a_copy_that_changes_nothing_has_the_same_bytes() {
        let rewrite = Rewrite { inline: InlineData::Keep, location: &|location| location.to_owned() };
        assert!(rewrite.apply(&golden()).unwrap().bytes == std::fs::read(golden()).unwrap());
    }

    #[test]
    fn inline_data_becomes_external_data_in_the_file_itself() {
        let rewrite = Rewrite { inline: InlineData::External("0.data"), location: &|_| String::new() };
        let copy = rewrite.apply(&golden()).unwrap().bytes;
        let file = std::fs::read(golden()).unwrap();
        assert!(copy.len() < file.len() / 2, "{} of {}", copy.len(), file.len());
        let tensors = |bytes: &[u8]| ModelProto::parse_buf(bytes).unwrap().graph.unwrap().initializer;
        let mut external = 0;
        for (own, original) in tensors(&copy).iter().zip(tensors(&file)) {
            assert_eq!((&own.name, &own.dims), (&original.name, &original.dims));
            let values = original.raw_data.map(std::cell::RefCell::into_inner);
            if own.external_data.is_empty() {
                assert_eq!(own.raw_data.as_ref().map(|data| data.borrow().clone()), values);
                continue;
            }
            external += 1;
            let entry = |index: usize| own.external_data[index].value.clone().unwrap();
            let (offset, len): (usize, usize) = (entry(1).parse().unwrap(), entry(2).parse().unwrap());
            assert_eq!((entry(0), &file[offset..offset + len]), ("0.data".to_owned(), &values.unwrap()[..]));
        }
        assert!(external > 10, "{external}");
    }
    #[test]
    fn packed_numbers_are_written_one_by_one() {
        let message = |field: u64, content: &[u8]| {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, field, content);
            bytes
        };
        let floats = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
        let attribute = [message(8, &[1, 0xac, 0x02]), message(7, &floats)].concat();
        let tensor = message(1, &[2, 3]);
        let graph = [message(1, &message(5, &attribute)), message(5, &tensor)].concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), message(7, &graph)).unwrap();
        let rewrite = Rewrite { inline: InlineData::External("0.data"), location: &|_| String::new() };
        let copy = rewrite.apply(file.path()).unwrap();
        assert!(copy.unpacked);
        let graph = ModelProto::parse_buf(&copy.bytes).unwrap().graph.unwrap();
        let attribute = &graph.node[0].attribute[0];
        assert_eq!((&attribute.ints[..], &attribute.floats[..]), (&[1, 300][..], &[1.5, -2.0][..]));
        assert_eq!(graph.initializer[0].dims, [2, 3]);
    }
}
