//! Reads the inputs and outputs of a graph from its ONNX file, without an engine and without the weights.

use std::fs::File;
use std::path::{Path, PathBuf};

use rten_onnx::onnx::{DataType as OnnxDataType, Dimension, ValueInfoProto};
use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};
use sha2::{Digest, Sha256};

use super::BundleError;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// The inputs and outputs of a graph. Inputs that an initializer fills are left out.
///
/// The data of initializers is skipped by seeking, so that this is as quick for gigabytes of weights.
pub fn graph_io(path: &Path) -> Result<GraphIo, BundleError> {
    let file = File::open(path).map_err(BundleError::reading(path))?;
    let unreadable = |reason: String| BundleError::Content {
        path: path.to_owned(),
        fault: format!("this is not a whole ONNX file ({reason}); export it again"),
    };
    let graph =
        ModelIo::decode(ValueReader::from_file(file)).map_err(|error| unreadable(error.to_string()))?.graph;
    if graph.outputs.is_empty() {
        // The outputs are written after the weights. The decoder takes the end of a truncated file for that of the graph.
        return Err(unreadable("its graph has no outputs".to_owned()));
    }
    let inputs = graph.inputs.into_iter().filter(|input| !graph.initializers.contains(&input.name)).collect();
    Ok(GraphIo { inputs, outputs: graph.outputs })
}

/// The files of a graph: the ONNX file, then the external weights in its directory.
pub(super) fn files(graph: &Path) -> Vec<PathBuf> {
    let is_weights =
        |name: &str| name.ends_with(".onnx_data") || name.ends_with(".onnx.data") || name == "weights.pb";
    let entries = graph.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let mut weights: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| is_weights(&name.to_string_lossy())))
        .collect();
    weights.sort();
    [vec![graph.to_owned()], weights].concat()
}

/// The SHA-256 of a graph and its external weights, in hexadecimal.
pub(crate) fn sha256(graph: &Path) -> Result<String, BundleError> {
    let mut hasher = Sha256::new();
    for path in files(graph) {
        let mut file = File::open(&path).map_err(BundleError::reading(&path))?;
        std::io::copy(&mut file, &mut hasher).map_err(BundleError::reading(&path))?;
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// An estimate of the memory in bytes that a graph takes at most while it is opened: twice its file, which the
/// engine parses and then holds, and once its external weights.
pub(crate) fn peak_memory(graph: &Path) -> u64 {
    let length = |file: &Path| file.metadata().map_or(0, |metadata| metadata.len());
    length(graph) + files(graph).iter().map(|file| length(file)).sum::<u64>()
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

/// The graph of a `ModelProto`.
#[derive(Default)]
struct ModelIo {
    graph: GraphHeader,
}

/// The inputs, outputs and names of initializers of a `GraphProto`.
#[derive(Default)]
struct GraphHeader {
    initializers: Vec<String>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

/// The name of a `TensorProto`.
struct InitializerName(String);

impl DecodeMessage for ModelIo {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => model.graph = GraphHeader::decode_field(&mut field)?,
                _ => field.skip()?,
            }
        }
        Ok(model)
    }
}

impl DecodeMessage for GraphHeader {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                5 => graph.initializers.push(InitializerName::decode_field(&mut field)?.0),
                11 => graph.inputs.push(value_info(&ValueInfoProto::decode_field(&mut field)?)),
                12 => graph.outputs.push(value_info(&ValueInfoProto::decode_field(&mut field)?)),
                _ => field.skip()?,
            }
        }
        Ok(graph)
    }
}

impl DecodeMessage for InitializerName {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut name = String::new();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                8 => name = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(Self(name))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian/unet/model.onnx")
    }

    #[test]
    fn a_graph_is_described_without_an_engine() {
        let graph = graph_io(&golden()).unwrap();
        let inputs: Vec<_> = graph.inputs.iter().map(ValueInfo::to_string).collect();
        assert_eq!(inputs[0], "sample float32[?, 1, 4, 5]");
    }

    #[test]
    fn a_file_that_is_no_whole_graph_is_an_error_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = std::fs::read(golden()).unwrap();
        for bytes in [b"no graph", &whole[..whole.len() / 2]] {
            std::fs::write(file.path(), bytes).unwrap();
            let error = graph_io(file.path()).unwrap_err().to_string();
            assert!(error.contains(&file.path().display().to_string()) && error.contains("export it again"));
        }
    }

    /// A protobuf field of the wire type LEN.
    fn field(number: u8, length: u64) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut rest = length;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        [field(number, content.len() as u64), content.to_vec()].concat()
    }

    #[test]
    fn the_data_of_a_large_initializer_is_skipped() {
        // 64 GiB of raw data, a hole in a sparse file: reading it would take minutes and all memory.
        const WEIGHTS: u64 = 64 << 30;
        let raw_data = field(9, WEIGHTS);
        let name = message(8, b"weight");
        let initializer = field(5, WEIGHTS + (raw_data.len() + name.len()) as u64);
        let inputs = [message(11, &message(1, b"weight")), message(11, &message(1, b"sample"))].concat();
        let outputs = message(12, &message(1, b"out_sample"));
        let before = [&initializer[..], &raw_data].concat();
        let after = [&name[..], &inputs, &outputs].concat();
        let graph = field(7, WEIGHTS + (before.len() + after.len()) as u64);

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[&graph[..], &before].concat()).unwrap();
        file.seek(SeekFrom::Current(WEIGHTS as i64)).unwrap();
        file.write_all(&after).unwrap();

        let io = graph_io(file.path()).unwrap();
        let names = |values: &[ValueInfo]| values.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&io.inputs), names(&io.outputs)),
            (vec!["sample".into()], vec!["out_sample".into()])
        );
    }
}
