//! Converts a graph from float16 to float32, for providers that compute in float32.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rten_onnx::onnx::{
    DataLocation, DataType, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    TypeProto, ValueInfoProto,
};

/// The key of an entry in `external_data` whose value is the element type of the file, if it is not that of the tensor.
pub(crate) const STORED_TYPE: &str = "stored_type";
/// The value of [`STORED_TYPE`] for float16.
pub(crate) const FLOAT16: &str = "float16";

/// Attributes with an element type as their value, of operators in ONNX's own domain.
const TYPE_ATTRIBUTES: [&str; 7] =
    ["to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision", "precision"];

/// Converts the values, types and attributes of a model from float16 to float32. Returns the number of tensors converted.
///
/// Values inside the model are converted. External values stay as they are, and their tensors get an entry
/// [`STORED_TYPE`], by which whoever copies the values converts them.
pub(crate) fn widen_float16(model: &mut ModelProto) -> usize {
    model.graph.as_mut().map_or(0, widen_graph)
}

fn widen_graph(graph: &mut GraphProto) -> usize {
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.for_each(widen_value);
    let tensors = graph.initializer.iter_mut().map(widen_tensor).filter(|is_changed| *is_changed).count();
    tensors + graph.node.iter_mut().map(widen_node).sum::<usize>()
}

fn widen_value(value: &mut ValueInfoProto) {
    if let Some(kind) = &mut value.r#type {
        widen_type(kind);
    }
}

fn widen_type(kind: &mut TypeProto) {
    if let Some(tensor) = &mut kind.tensor_type {
        tensor.elem_type = tensor.elem_type.map(widened);
    }
    if let Some(element) = kind.sequence.as_mut().and_then(|sequence| sequence.elem_type.as_mut()) {
        widen_type(element);
    }
}

fn widened(kind: DataType) -> DataType {
    if kind == DataType::FLOAT16 { DataType::FLOAT } else { kind }
}

fn widen_node(node: &mut NodeProto) -> usize {
    let is_standard = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
    let mut tensors = 0;
    for attribute in &mut node.attribute {
        let name = attribute.name.as_deref().unwrap_or_default();
        if is_standard
            && TYPE_ATTRIBUTES.contains(&name)
            && attribute.i == Some(i64::from(DataType::FLOAT16.0))
        {
            attribute.i = Some(i64::from(DataType::FLOAT.0));
        }
        tensors += usize::from(attribute.t.as_mut().is_some_and(widen_tensor));
        tensors += attribute.g.as_mut().map_or(0, widen_graph);
    }
    tensors
}

/// Converts a tensor. Returns whether it was float16.
fn widen_tensor(tensor: &mut TensorProto) -> bool {
    if tensor.data_type != Some(DataType::FLOAT16) {
        return false;
    }
    tensor.data_type = Some(DataType::FLOAT);
    if tensor.data_location == Some(DataLocation::EXTERNAL) {
        let (key, value) = (Some(STORED_TYPE.to_owned()), Some(FLOAT16.to_owned()));
        tensor.external_data.push(StringStringEntryProto { key, value });
        return true;
    }
    let bytes = if let Some(raw) = tensor.raw_data.take() {
        widened_bytes(&raw.into_inner())
    } else {
        // Typed data holds the bits of each value in the lower half of an int32.
        let values = tensor.int32_data.drain(..).map(|bits| f16::from_bits(bits as u16).to_f32());
        values.flat_map(f32::to_le_bytes).collect()
    };
    tensor.raw_data = Some(bytes.into());
    true
}

/// Converts little-endian float16 values to little-endian float32 values. Both slices have the same length.
pub(crate) fn widen_values(float16: &mut [u16], float32: &mut [f32]) {
    // No work on the processors that exist in practice, which are little-endian themselves.
    float16.iter_mut().for_each(|bits| *bits = u16::from_le(*bits));
    float16.reinterpret_cast::<f16>().convert_to_f32_slice(float32);
    float32.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().to_le()));
}

/// The float32 values of a little-endian float16 array. A last odd byte is ignored.
fn widened_bytes(float16: &[u8]) -> Vec<u8> {
    let mut bits: Vec<u16> = float16.chunks_exact(2).map(bytemuck::pod_read_unaligned).collect();
    let mut values = vec![0.0_f32; bits.len()];
    widen_values(&mut bits, &mut values);
    bytemuck::cast_slice(&values).to_vec()
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::{AttributeProto, TypeProtoTensor};

    use super::*;

    fn float16(name: &str, values: &[f32]) -> TensorProto {
        let raw: Vec<u8> = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        TensorProto {
            name: Some(name.to_owned()),
            dims: vec![values.len() as i64],
            data_type: Some(DataType::FLOAT16),
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        }
    }

    fn floats(tensor: &TensorProto) -> Vec<f32> {
        assert_eq!(tensor.data_type, Some(DataType::FLOAT));
        let raw = tensor.raw_data.as_ref().unwrap().borrow();
        raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn node(operator: &str, attribute: AttributeProto) -> NodeProto {
        NodeProto { op_type: Some(operator.to_owned()), attribute: vec![attribute], ..NodeProto::default() }
    }

    fn number(name: &str, value: i32) -> AttributeProto {
        AttributeProto { name: Some(name.to_owned()), i: Some(value.into()), ..AttributeProto::default() }
    }

    #[test]
    fn values_types_and_attributes_become_float32_and_others_stay() {
        let values = [1.0, -0.5, 65504.0, f32::INFINITY, 6e-8];
        let expected = [1.0, -0.5, 65504.0, f32::INFINITY, f16::from_f32(6e-8).to_f32()];
        let typed = TensorProto {
            data_type: Some(DataType::FLOAT16),
            int32_data: vec![0x3c00, 0xbc00],
            ..TensorProto::default()
        };
        let external = TensorProto {
            data_type: Some(DataType::FLOAT16),
            data_location: Some(DataLocation::EXTERNAL),
            ..TensorProto::default()
        };
        let integers = TensorProto { data_type: Some(DataType::INT64), ..TensorProto::default() };
        let inner = GraphProto { initializer: vec![float16("c", &values)], ..GraphProto::default() };
        let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT16), shape: None };
        let kind = TypeProto { tensor_type: Some(tensor), ..TypeProto::default() };
        let constant = AttributeProto { t: Some(float16("d", &values)), ..AttributeProto::default() };
        let branch = AttributeProto { g: Some(inner), ..AttributeProto::default() };
        let custom = NodeProto { domain: Some("custom".to_owned()), ..node("Other", number("to", 10)) };
        let graph = GraphProto {
            node: vec![
                node("Constant", constant),
                node("If", branch),
                node("Cast", number("to", DataType::FLOAT16.0)),
                node("Cast", number("to", DataType::INT64.0)),
                node("Concat", number("axis", 10)),
                custom,
            ],
            initializer: vec![float16("a", &values), typed, external, integers],
            input: vec![ValueInfoProto { name: Some("x".to_owned()), r#type: Some(kind) }],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        assert_eq!(widen_float16(&mut model), 5);
        let graph = model.graph.unwrap();
        let attribute = |index: usize| &graph.node[index].attribute[0];
        assert_eq!(floats(&graph.initializer[0]), expected);
        assert_eq!(floats(&graph.initializer[1]), [1.0, -1.0]);
        assert_eq!(graph.initializer[2].external_data[0].value.as_deref(), Some(FLOAT16));
        assert_eq!(graph.initializer[3].data_type, Some(DataType::INT64));
        assert_eq!(floats(attribute(0).t.as_ref().unwrap()), expected);
        assert_eq!(floats(&attribute(1).g.as_ref().unwrap().initializer[0]), expected);
        assert_eq!([2, 3, 4, 5].map(|index| attribute(index).i.unwrap()), [1, 7, 10, 10]);
        let input = graph.input[0].r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        assert_eq!(input.elem_type, Some(DataType::FLOAT));
    }
}
