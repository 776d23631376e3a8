//! What is known of a session before it was measured.

use super::session_memory::MeasuredGraph;
use crate::inference::backend::Backend;
use crate::inference::provider::Provider;
use crate::inference::{onnx_runtime, prepared_graph};

/// What is known of a graph on a backend by its files.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// The memory of the weights in bytes.
    pub(super) weights: u64,
    /// The smallest size of one sample's attention matrices in bytes, as a factor of the square of its values.
    pub(super) attention: f64,
    /// Whether memory is measured. A GPU's is not part of the resident memory.
    pub(super) is_measured: bool,
    /// By what measurements are found: the graph's name and structure, and what runs it. The values of weights make no
    /// difference.
    pub(super) key: String,
}

impl Estimate {
    pub(super) fn new(graph: &MeasuredGraph, backend: &Backend) -> Self {
        let MeasuredGraph { files, values_per_token, .. } = graph;
        let Backend { engine, version, provider, .. } = backend;
        let is_measured = *provider == Provider::Cpu.to_string();
        let attention = |per_token: u64| size_of::<f32>() as f64 / (per_token as f64).powi(2);
        let is_mapped = is_measured && *engine == onnx_runtime::ENGINE && prepared_graph::is_mapped(files);
        let component = files.graph.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
        let (component, structure) = (component.to_string_lossy(), files.structure_digest());
        Self {
            // Both engines compute float16 as float32 on a processor.
            weights: if is_mapped { files.mapped_memory() } else { files.peak_memory(is_measured) },
            attention: values_per_token.filter(|_| is_measured).map_or(0.0, attention),
            is_measured,
            key: format!("{component} {structure} {engine} {version} {provider}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inference::graph_source::ProvenBackend;
    use crate::onnx::ModelFiles;

    fn estimate(graph_len: u64, engine: &'static str, provider: &str) -> Estimate {
        let files = ModelFiles { graph: "a/unet/model.onnx".into(), graph_len, ..ModelFiles::default() };
        let proven = ProvenBackend::default();
        let graph = MeasuredGraph { files: Arc::new(files), values_per_token: Some(2), proven };
        Estimate::new(&graph, &Backend::new(engine, "1".to_owned(), provider.to_owned()))
    }

    #[test]
    fn the_weights_of_a_prepared_graph_are_mapped_once() {
        let weights = |len: u64, engine, provider| estimate(len, engine, provider).weights;
        let large = 64 << 20;
        assert_eq!(weights(large, "onnxruntime", "cpu"), large);
        assert_eq!(weights(large - 1, "onnxruntime", "cpu"), 2 * (large - 1));
        assert_eq!(weights(large, "onnxruntime", "cuda"), 2 * large);
        assert_eq!(weights(large, "embedded", "cpu"), 2 * large);
    }

    #[test]
    fn a_key_has_the_component_the_structure_and_what_runs_it() {
        let keys = [(1, "embedded", "cpu"), (2, "embedded", "cpu"), (1, "onnxruntime", "cuda")];
        let keys = keys.map(|(len, engine, provider)| estimate(len, engine, provider).key);
        assert!(keys[0].starts_with("unet ") && keys[0].ends_with(" embedded 1 cpu"), "{}", keys[0]);
        assert!(keys[0] != keys[1] && keys[0] != keys[2]);
    }
}
