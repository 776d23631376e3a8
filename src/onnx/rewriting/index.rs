//! Which node produces a value, and which nodes use it.

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{GraphProto, NodeProto};

/// The producers and the consumers of a graph's values.
pub(super) struct GraphIndex<'a> {
    nodes: &'a [NodeProto],
    producers: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
    outputs: HashSet<&'a str>,
}

impl<'a> GraphIndex<'a> {
    /// Indexes a graph.
    pub(super) fn new(graph: &'a GraphProto) -> Self {
        let mut index = Self {
            nodes: &graph.node,
            producers: HashMap::new(),
            consumers: HashMap::new(),
            outputs: graph.output.iter().filter_map(|output| output.name.as_deref()).collect(),
        };
        for (position, node) in graph.node.iter().enumerate() {
            for output in &node.output {
                index.producers.insert(output, position);
            }
            for input in &node.input {
                index.consumers.entry(input).or_default().push(position);
            }
        }
        index
    }

    /// The node at this position.
    pub(super) fn node(&self, position: usize) -> &'a NodeProto {
        &self.nodes[position]
    }

    /// The node that produces a value. `None` for inputs and initializers.
    pub(super) fn producer(&self, value: &str) -> Option<&'a NodeProto> {
        self.producers.get(value).map(|position| &self.nodes[*position])
    }

    /// The positions of the nodes that use a value, one per use.
    pub(super) fn consumers(&self, value: &str) -> &[usize] {
        self.consumers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The position of the only use of a value. `None` if there are several, or if the graph outputs the value.
    pub(super) fn only_consumer(&self, value: &str) -> Option<usize> {
        match self.consumers(value) {
            [position] if !self.is_output(value) => Some(*position),
            _ => None,
        }
    }

    /// Whether the graph outputs a value.
    pub(super) fn is_output(&self, value: &str) -> bool {
        self.outputs.contains(value)
    }
}

/// The operator of a node of ONNX's own operator set. Empty for nodes of other sets.
pub(super) fn operator(node: &NodeProto) -> &str {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => node.op_type.as_deref().unwrap_or_default(),
        Some(_) => "",
    }
}
