//! Changes the graphs of ONNX files.

use std::fs::File;
use std::path::Path;

use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, TensorProto,
    TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

/// Applies a change to the graph in an ONNX file.
pub fn edit(path: &Path, change: impl FnOnce(&mut GraphProto)) {
    let mut model = ModelProto::parse_file(File::open(path).unwrap()).unwrap();
    change(model.graph.as_mut().unwrap());
    std::fs::write(path, model.write_buf().unwrap()).unwrap();
}

/// An input or output of a graph. A negative length is a dynamic axis.
pub fn value(name: &str, element: DataType, axes: &[i64]) -> ValueInfoProto {
    let tensor = TypeProtoTensor { elem_type: Some(element), shape: Some(shape(axes)) };
    let kind = TypeProto { tensor_type: Some(tensor), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind) }
}

fn shape(axes: &[i64]) -> TensorShapeProto {
    let axis = |(i, &length): (usize, &i64)| match length {
        0.. => Dimension { dim_value: Some(length), dim_param: None },
        _ => Dimension { dim_value: None, dim_param: Some(format!("axis_{i}")) },
    };
    TensorShapeProto { dim: axes.iter().enumerate().map(axis).collect() }
}

/// Sets the axes of an input or output.
pub fn set_axes(graph: &mut GraphProto, name: &str, axes: &[i64]) {
    let mut values = graph.input.iter_mut().chain(&mut graph.output);
    let value = values.find(|value| value.name.as_deref() == Some(name)).unwrap();
    value.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = Some(shape(axes));
}

/// A node of the default domain.
pub fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.to_owned()),
        name: Some(output.to_owned()),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A node with one attribute.
pub fn node_with(operator: &str, inputs: &[&str], output: &str, (name, value): (&str, i64)) -> NodeProto {
    let attribute = AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node(operator, inputs, output) }
}

pub fn float_constant(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::FLOAT),
        float_data: vec![value],
        ..TensorProto::default()
    }
}

/// An int64 tensor with one axis.
pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::INT64),
        dims: vec![values.len() as i64],
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// Renames a value in all nodes, and leaves the names of inputs and outputs as they are.
pub fn rename_in_nodes(graph: &mut GraphProto, from: &str, to: &str) {
    let names = graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
    names.filter(|name| *name == from).for_each(|name| to.clone_into(name));
}

/// Renames an input or output, and its uses in all nodes.
pub fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    rename_in_nodes(graph, from, to);
    let mut values = graph.input.iter_mut().chain(&mut graph.output);
    values.find(|value| value.name.as_deref() == Some(from)).unwrap().name = Some(to.to_owned());
}

/// Makes an output the product of what it was and of the value `factor`.
pub fn multiply_output(graph: &mut GraphProto, output: &str, factor: &str) {
    let before = format!("{output}_before");
    rename_in_nodes(graph, output, &before);
    graph.node.push(node("Mul", &[&before, factor], output));
}
