//! A network with as many weights as a graph must have to be prepared.

use std::path::Path;

use half::f16;
use rten_onnx::onnx::{DataType, GraphProto, ModelProto, OperatorSetIdProto, TensorProto};

use super::onnx_graphs::{integers, node, node_with, value};

/// The number of values of a sample: 1×4×5.
const VALUES: usize = 20;
/// The bytes of its weights, more than 64 MiB.
const WEIGHTS: usize = 72 << 20;

/// Writes a pixel bundle whose network has 72 MiB of weights of this type inside the ONNX file.
pub fn write_bundle(directory: &Path, element: DataType) {
    let element_len = if element == DataType::FLOAT16 { 2 } else { 4 };
    let width = WEIGHTS / element_len / VALUES / 2;
    let graph = GraphProto {
        node: vec![
            node("Reshape", &["sample", "flat"], "rows"),
            node("MatMul", &["rows", "up"], "hidden"),
            node("MatMul", &["hidden", "down"], "mixed"),
            node_with("Cast", &["timestep"], "time", ("to", element.0.into())),
            node("Reshape", &["time", "column"], "times"),
            node("Mul", &["times", "scale"], "scaled"),
            node("Add", &["mixed", "scaled"], "sum"),
            node("Reshape", &["sum", "image"], "out_sample"),
        ],
        initializer: vec![
            weights("up", element, &[VALUES, width]),
            weights("down", element, &[width, VALUES]),
            weights("scale", element, &[1, 1]),
            integers("flat", &[-1, VALUES as i64]),
            integers("column", &[-1, 1]),
            integers("image", &[-1, 1, 4, 5]),
        ],
        input: vec![value("sample", element, &[-1, 1, 4, 5]), value("timestep", DataType::FLOAT, &[-1])],
        output: vec![value("out_sample", element, &[-1, 1, 4, 5])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: None, version: Some(17) };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset],
        ..ModelProto::default()
    };
    std::fs::create_dir_all(directory.join("unet")).unwrap();
    let file = std::fs::File::create(directory.join("unet/model.onnx")).unwrap();
    model.write_file(file).unwrap();
    std::fs::write(directory.join("scheduler_config.json"), r#"{"_class_name": "DDPMScheduler"}"#).unwrap();
}

/// Values within ±0.05, from a block that repeats.
fn weights(name: &str, element: DataType, shape: &[usize]) -> TensorProto {
    let mut random = fastrand::Rng::with_seed(name.len() as u64);
    let block = (0..65_521).flat_map(|_| {
        let value = 0.1 * (random.f32() - 0.5);
        match element {
            DataType::FLOAT16 => f16::from_f32(value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        }
    });
    let block: Vec<u8> = block.collect();
    let len = shape.iter().product::<usize>() * if element == DataType::FLOAT16 { 2 } else { 4 };
    let mut raw = block.repeat(len.div_ceil(block.len()));
    raw.truncate(len);
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(element),
        dims: shape.iter().map(|&length| length as i64).collect(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}
