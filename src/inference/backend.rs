//! The engine and the execution providers that run a graph.

use super::provider::Provider;
use crate::units::counted;

/// The engine and execution provider of a session.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Backend {
    /// `onnxruntime` or `embedded`.
    pub engine: &'static str,
    /// The version of the engine. A receipt contains this object's keys, and `version` is the program's there.
    #[serde(rename = "engine_version")]
    pub version: String,
    /// The execution provider.
    pub provider: String,
    /// Whether evaluations are captured as CUDA graphs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cuda_graph: bool,
    /// The share of each provider in the first evaluation. Empty before it, and for an engine without providers.
    pub provider_shares: Vec<ProviderShare>,
    /// The version of TensorRT, if it runs the network.
    #[serde(skip)]
    pub tensorrt: Option<String>,
    /// The providers that were preferred to this one and do not work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected_providers: Vec<RejectedProvider>,
}

/// The share of an evaluation that one provider ran.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ProviderShare {
    /// The provider.
    pub provider: String,
    /// The number of nodes that it ran, counted after fusion. For a provider that builds an engine, the graph's nodes
    /// that no other provider ran.
    pub nodes: usize,
    /// Its share of the time of all nodes, in percent.
    pub percent: f64,
}

/// A provider that does not work on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RejectedProvider {
    /// The provider.
    pub provider: String,
    /// Why it does not work.
    pub reason: String,
}

impl Backend {
    /// A backend of which no profile exists yet.
    pub fn new(engine: &'static str, version: String, provider: String) -> Self {
        Self {
            engine,
            version,
            provider,
            cuda_graph: false,
            provider_shares: Vec::new(),
            tensorrt: None,
            rejected_providers: Vec::new(),
        }
    }

    /// Whether the provider does one-time work at the first evaluation of a shape, as all but the CPU do.
    pub(crate) fn prepares_shapes(&self) -> bool {
        self.provider != Provider::Cpu.to_string()
    }
}

impl std::fmt::Display for ProviderShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = counted(self.nodes as u64, "node");
        write!(f, "{} ran {nodes} in {} % of the time", self.provider, self.percent)
    }
}
