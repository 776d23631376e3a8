//! Names, nodes and constants that the rewriting adds to a graph.

use std::collections::HashMap;

use rten_onnx::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::constants::{int64_vector, new_ints};

/// The values that the rewriting adds to a graph.
pub(super) struct NewValues {
    /// No name of the graph starts with it.
    prefix: String,
    names: usize,
    vectors: HashMap<Vec<i64>, String>,
}

impl NewValues {
    /// For a graph without any of them. All names start with `prefix`.
    pub(super) fn new(graph: &GraphProto, prefix: &str) -> Self {
        let mut prefix = prefix.to_owned();
        let is_used = |prefix: &str| {
            graph.node.iter().any(|node| {
                let names = node.output.iter().chain(&node.input).chain(&node.name);
                names.into_iter().any(|name| name.starts_with(prefix))
            })
        };
        while is_used(&prefix) {
            prefix.push('_');
        }
        Self { prefix, names: 0, vectors: HashMap::new() }
    }

    /// A name that no other value has.
    pub(super) fn name(&mut self) -> String {
        self.names += 1;
        format!("{}/{}", self.prefix, self.names)
    }

    /// A constant vector of 64-bit integers.
    pub(super) fn vector(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.vectors.get(values) {
            return name.clone();
        }
        let name = self.name();
        self.vectors.insert(values.to_vec(), name.clone());
        name
    }

    /// The constants, as initializers.
    pub(super) fn into_initializers(self) -> Vec<TensorProto> {
        let mut tensors: Vec<_> =
            self.vectors.into_iter().map(|(values, name)| int64_vector(&name, &values)).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// Adds a node with one output, of ONNX's own operators. Returns the output.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let output = self.name();
        self.push(operator, inputs, attributes, output.clone(), nodes);
        output
    }

    /// Adds a reshape.
    pub(super) fn reshape(&mut self, value: &str, shape: &[i64], nodes: &mut Vec<NodeProto>) -> String {
        let output = self.name();
        self.reshape_to(value, shape, output.clone(), nodes);
        output
    }

    /// Adds a reshape whose output has this name.
    pub(super) fn reshape_to(
        &mut self,
        value: &str,
        shape: &[i64],
        output: String,
        nodes: &mut Vec<NodeProto>,
    ) {
        let shape = self.vector(shape);
        self.push("Reshape", &[value, &shape], Vec::new(), output, nodes);
    }

    /// Adds a transposition.
    pub(super) fn transpose(&mut self, value: &str, perm: &[usize], nodes: &mut Vec<NodeProto>) -> String {
        let output = self.name();
        self.transpose_to(value, perm, output.clone(), nodes);
        output
    }

    /// Adds a transposition whose output has this name.
    pub(super) fn transpose_to(
        &mut self,
        value: &str,
        perm: &[usize],
        output: String,
        nodes: &mut Vec<NodeProto>,
    ) {
        let perm: Vec<_> = perm.iter().map(|axis| *axis as i64).collect();
        self.push("Transpose", &[value], vec![new_ints("perm", &perm)], output, nodes);
    }

    /// Adds a node whose output has this name.
    pub(super) fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        output: String,
        nodes: &mut Vec<NodeProto>,
    ) {
        nodes.push(NodeProto {
            domain: None,
            name: Some(self.name()),
            input: inputs.iter().copied().map(str::to_owned).collect(),
            output: vec![output],
            op_type: Some(operator.to_owned()),
            attribute,
        });
    }
}
