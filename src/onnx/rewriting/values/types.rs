//! The types of nodes' first outputs.

use rten_onnx::onnx::DataType;

use super::NodeInputs;
use crate::onnx::rewriting::constants::attribute;

/// Infers the type of the first output's elements.
pub(super) fn infer(node: &NodeInputs<'_>) -> Option<DataType> {
    let input = match node.operator() {
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => return Some(DataType::INT64),
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Not" | "IsNaN"
        | "IsInf" => {
            return Some(DataType::BOOL);
        }
        "Cast" => return node.int("to").map(|to| DataType(to as i32)),
        "Constant" => return constant(node),
        "ConstantOfShape" => {
            return match attribute(node.node, "value") {
                Some(value) => value.t.as_ref()?.data_type,
                None => Some(DataType::FLOAT),
            };
        }
        "Where" | "DequantizeLinear" => 1,
        "Abs"
        | "Add"
        | "BatchNormalization"
        | "Ceil"
        | "Clip"
        | "Concat"
        | "Conv"
        | "ConvTranspose"
        | "Cos"
        | "DepthToSpace"
        | "Div"
        | "Einsum"
        | "Erf"
        | "Exp"
        | "Expand"
        | "Flatten"
        | "Floor"
        | "Gather"
        | "GatherElements"
        | "GatherND"
        | "Gelu"
        | "Gemm"
        | "GlobalAveragePool"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Identity"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "MatMul"
        | "Max"
        | "AveragePool"
        | "MaxPool"
        | "Min"
        | "Mod"
        | "Mul"
        | "Neg"
        | "Pad"
        | "Pow"
        | "RMSNormalization"
        | "Range"
        | "Reciprocal"
        | "ReduceMax"
        | "ReduceMean"
        | "ReduceMin"
        | "ReduceSum"
        | "Relu"
        | "Reshape"
        | "Resize"
        | "Round"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Slice"
        | "Softmax"
        | "SpaceToDepth"
        | "Split"
        | "Sqrt"
        | "Squeeze"
        | "Sub"
        | "Tanh"
        | "Tile"
        | "Transpose"
        | "Trilu"
        | "Unsqueeze" => 0,
        _ => return None,
    };
    node.input(input)?.data_type
}

fn constant(node: &NodeInputs<'_>) -> Option<DataType> {
    let value = node.node.attribute.first()?;
    match value.name.as_deref()? {
        "value" => value.t.as_ref()?.data_type,
        "value_int" | "value_ints" => Some(DataType::INT64),
        "value_float" | "value_floats" => Some(DataType::FLOAT),
        _ => None,
    }
}
