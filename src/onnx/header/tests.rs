use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::*;
use crate::tensor::ValueInfo;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian/unet/model.onnx")
}

#[test]
fn a_graph_is_described_without_an_engine() {
    let header = Header::read(&golden()).unwrap();
    let inputs: Vec<_> = header.io.inputs.iter().map(ValueInfo::to_string).collect();
    assert_eq!(inputs[0], "sample float32[?, 1, 4, 5]");
    assert_eq!(header.node_names.len(), 38, "{:?}", header.node_names);
    assert!(header.operators.contains(&Operator { domain: String::new(), name: "Floor".to_owned() }));
    assert_eq!(header.custom_operators().count(), 0);
}

#[test]
fn the_dynamic_axes_of_the_inputs_have_the_lengths_of_a_shape() {
    let header = Header::read(&golden()).unwrap();
    let shapes = [("sample", vec![3, 1, 4, 5]), ("no input", vec![7])];
    let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape));
    assert_eq!(header.dynamic_axes(&shapes), [("batch".to_owned(), 3)]);
}

#[test]
fn a_file_that_is_no_whole_graph_is_an_error_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let whole = std::fs::read(golden()).unwrap();
    for bytes in [b"\x08\x08no graph", &whole[..whole.len() / 2], &whole[..whole.len() - 1]] {
        std::fs::write(file.path(), bytes).unwrap();
        let error = Header::read(file.path()).unwrap_err().to_string();
        assert!(
            error.contains(&file.path().display().to_string()) && error.contains("export it again"),
            "{error}"
        );
    }
}

/// "error in message denoised::onnx::header::decode::Model field 7: io error: failed to fill whole buffer".
#[test]
fn a_damaged_file_was_reported_with_names_of_rust() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let whole = std::fs::read(golden()).unwrap();
    let error = |bytes: &[u8]| {
        std::fs::write(file.path(), bytes).unwrap();
        Header::read(file.path()).unwrap_err().to_string()
    };
    // The operator sets follow the graph.
    for length in (3..whole.len() - 64).step_by(41) {
        let error = error(&whole[..length]);
        let plain = ["::", "  ", "io error", "buffer", "message", "field"];
        assert!(plain.iter().all(|word| !error.contains(word)), "{length}: {error}");
        assert!(error.ends_with("); copy or download it again, or export it again"), "{length}: {error}");
    }
    // A graph that is no message.
    let expected = "this is not a whole ONNX file (its contents are damaged); copy or download it again, or export it again";
    let damaged = error(b"\x08\x08\x3a\x02\x0f\x0f");
    assert!(damaged.ends_with(expected), "{damaged}");
    let short = error(b"\x08\x08\x3a\x7f\x0a");
    assert!(short.contains("(it ends early)") || short.contains("(its graph has 127 bytes"), "{short}");
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

    let io = Header::read(file.path()).unwrap().io;
    let names = |values: &[ValueInfo]| values.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&io.inputs), names(&io.outputs)), (vec!["sample".into()], vec!["out_sample".into()]));
}

/// A `TensorProto` with 4 floats in another file.
fn external(name: &str, location: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        message(13, &[message(1, key.as_bytes()), message(2, value.as_bytes())].concat())
    };
    let entries = [entry("location", location), entry("offset", "16"), entry("length", "16")].concat();
    [&[1 << 3, 4, 2 << 3, 1][..], &message(8, name.as_bytes()), &entries, &[14 << 3, 1]].concat()
}

#[test]
fn external_data_is_found_wherever_a_tensor_can_be() {
    let attribute = |number: u8, content: &[u8]| message(5, &message(number, content));
    let node = |operator: &str, attribute: &[u8]| {
        message(1, &[message(4, operator.as_bytes()), attribute.to_vec()].concat())
    };
    let sparse = |number: u8, tensor: &[u8]| message(number, tensor);
    let body = [message(5, &external("nested", "nested.bin")), message(12, &message(1, b"y"))].concat();
    let tags = |number: u8| [(number << 3 | 2) | 0x80, number >> 4];
    let two_byte = |number: u8, content: &[u8]| {
        [&tags(number)[..], &field(1, content.len() as u64)[1..], content].concat()
    };
    let graph = [
        message(5, &external("weight", "sub/weights.bin")),
        node("If", &attribute(6, &body)),
        node("Constant", &attribute(5, &external("", "constant.bin"))),
        node("Constant", &message(5, &two_byte(22, &sparse(1, &external("", "sparse_attribute.bin"))))),
        message(15, &sparse(2, &external("", "sparse_indices.bin"))),
        message(12, &message(1, b"y")),
    ]
    .concat();
    let function = [
        message(1, b"Scale"),
        message(7, &[message(4, b"Constant"), attribute(5, &external("", "function.bin"))].concat()),
        message(10, b"local"),
    ]
    .concat();
    let model = [message(7, &graph), two_byte(25, &function)].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model).unwrap();

    let header = Header::read(file.path()).unwrap();
    let found: Vec<_> = header.external.iter().map(|tensor| tensor.location.as_str()).collect();
    assert_eq!(
        found,
        [
            "sub/weights.bin",
            "nested.bin",
            "constant.bin",
            "sparse_attribute.bin",
            "sparse_indices.bin",
            "function.bin"
        ]
    );
    let expected = ExternalTensor {
        name: "weight".to_owned(),
        location: "sub/weights.bin".to_owned(),
        offset: 16,
        len: Some(16),
        size: Some(16),
    };
    assert_eq!(header.external[0], expected);
    assert!(header.functions.contains(&Operator { domain: "local".to_owned(), name: "Scale".to_owned() }));
}
