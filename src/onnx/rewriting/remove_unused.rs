//! Removes what the outputs of a graph do not depend on.

use std::collections::HashSet;

use rten_onnx::onnx::GraphProto;

use super::index::GraphIndex;

/// Removes nodes, initializers and descriptions of values that no output needs. Inputs of the graph stay.
/// Returns the number of nodes removed. The graph must not have nested graphs, whose uses of values are not seen.
pub(crate) fn remove_unused(graph: &mut GraphProto) -> usize {
    let (needed, mut keep) = needed(graph);
    let before = graph.node.len();
    graph.node.retain(|_| keep.next().unwrap_or(true));
    let inputs: HashSet<_> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
    graph.initializer.retain(|tensor| {
        tensor.name.as_deref().is_some_and(|name| needed.contains(name) || inputs.contains(name))
    });
    let produced: HashSet<_> = graph.node.iter().flat_map(|node| &node.output).collect();
    graph.value_info.retain(|info| info.name.as_ref().is_some_and(|name| produced.contains(name)));
    before - graph.node.len()
}

/// The values that are needed, and for each node whether it is. Exporters do not always sort nodes.
fn needed(graph: &GraphProto) -> (HashSet<String>, impl Iterator<Item = bool> + use<>) {
    let index = GraphIndex::new(graph);
    let mut open: Vec<_> = graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
    let mut needed: HashSet<_> = open.iter().copied().map(str::to_owned).collect();
    while let Some(value) = open.pop() {
        let inputs = index.producer(value).map_or(&[][..], |node| &node.input);
        for input in inputs {
            if needed.insert(input.clone()) {
                open.push(input);
            }
        }
    }
    let is_needed = |output: &String| needed.contains(output);
    let keep: Vec<_> = graph.node.iter().map(|node| node.output.iter().any(is_needed)).collect();
    (needed, keep.into_iter())
}
