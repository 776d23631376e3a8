//! Builds small models.

use rten_onnx::onnx::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

use crate::onnx::rewriting::constants::{Elements, int64_vector, write};

/// A model under construction.
#[derive(Default)]
pub(super) struct Net {
    graph: GraphProto,
    names: usize,
}

impl Net {
    /// Adds an input. Axes that are no numbers are names.
    pub(super) fn input(&mut self, name: &str, data_type: DataType, axes: &[&str]) -> String {
        self.graph.input.push(value_info(name, data_type, axes));
        name.to_owned()
    }

    /// Adds a node with one output.
    pub(super) fn op(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.name();
        self.named_op(&format!("node {output}"), operator, inputs, attribute)
    }

    /// Adds a node with this name and one output.
    pub(super) fn named_op(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        let output = self.name();
        self.graph.node.push(NodeProto {
            name: Some(name.to_owned()),
            op_type: Some(operator.to_owned()),
            input: inputs.iter().copied().map(str::to_owned).collect(),
            output: vec![output.clone()],
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Adds an initializer of integers.
    pub(super) fn vector(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.graph.initializer.push(int64_vector(&name, values));
        name
    }

    /// Adds an initializer of floating-point numbers.
    pub(super) fn numbers(&mut self, data_type: DataType, dims: &[i64], values: &[f64]) -> String {
        let name = self.name();
        let tensor = write(&name, data_type, dims, &Elements::Floats(values.to_vec())).unwrap();
        self.graph.initializer.push(tensor);
        name
    }

    /// The model with these outputs.
    pub(super) fn model(mut self, outputs: &[(&str, DataType)]) -> ModelProto {
        for (name, data_type) in outputs {
            let mut output = value_info(name, *data_type, &[]);
            output.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None;
            self.graph.output.push(output);
        }
        ModelProto {
            ir_version: Some(8),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
            ..ModelProto::default()
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("value {}", self.names)
    }
}

/// The operators of a model's nodes.
pub(super) fn operators(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.as_deref().unwrap()).collect()
}

/// The nodes of an operator.
pub(super) fn nodes<'a>(model: &'a ModelProto, operator: &str) -> Vec<&'a NodeProto> {
    let nodes = &model.graph.as_ref().unwrap().node;
    nodes.iter().filter(|node| node.op_type.as_deref() == Some(operator)).collect()
}

fn value_info(name: &str, data_type: DataType, axes: &[&str]) -> ValueInfoProto {
    let dim = |axis: &&str| match axis.parse() {
        Ok(len) => Dimension { dim_value: Some(len), dim_param: None },
        Err(_) => Dimension { dim_value: None, dim_param: Some((*axis).to_owned()) },
    };
    let shape = TensorShapeProto { dim: axes.iter().map(dim).collect() };
    let tensor = TypeProtoTensor { elem_type: Some(data_type), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { tensor_type: Some(tensor), sequence: None }),
    }
}
