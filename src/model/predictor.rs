//! The network behind an engine: a batch goes in, predictions come out.

use crate::bundle::manifest::Manifest;
use crate::bundle::signature::{Signature, TensorInput};
use crate::inference::session::Tensor;

/// Which engine, provider and library really serve.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Backend {
    /// `onnxruntime` or `embedded`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// The execution provider.
    pub provider: String,
    /// What each provider did in a profiled run at the start; empty where the engine has but one
    /// place to run.
    #[serde(rename = "provider_shares")]
    pub ran: Vec<ProviderShare>,
    /// The providers that were asked for first and did not work.
    #[serde(rename = "rejected_providers", skip_serializing_if = "Vec::is_empty")]
    pub instead_of: Vec<RejectedProvider>,
}

/// What one provider did of an evaluation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ProviderShare {
    /// The provider.
    pub provider: String,
    /// The nodes that it ran, as they were after fusing; of a provider that builds an engine of its
    /// own, the graph's nodes that no other ran.
    pub nodes: usize,
    /// Its share of the time of all nodes, in percent.
    pub percent: f64,
}

/// A provider that does not work here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RejectedProvider {
    /// The provider.
    pub provider: String,
    /// The library's words.
    pub reason: String,
}

impl Backend {
    /// Nothing is known yet of what runs.
    pub fn new(engine: &'static str, version: String, provider: String) -> Self {
        Self { engine, version, provider, ran: Vec::new(), instead_of: Vec::new() }
    }
}

impl std::fmt::Display for ProviderShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = if self.nodes == 1 { "node" } else { "nodes" };
        write!(f, "{} ran {} {nodes} in {} % of the time", self.provider, self.nodes, self.percent)
    }
}

/// A network that can be evaluated.
pub trait Predictor: Send {
    /// How it is fed and read.
    fn signature(&self) -> &Signature;

    /// What serves.
    fn origin(&self) -> &Backend;

    /// Evaluate the batch, whose length the signature allows; `output` is replaced by the
    /// predictions, one sample's after the other.
    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError>;
}

/// Samples with their time steps and conditions, in buffers that are used again.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each sample's axes as the network takes it; empty where it is the signature's shape.
    pub shape: Vec<usize>,
    /// The samples, one after the other.
    pub samples: Vec<f32>,
    /// Each sample's time step.
    pub times: Vec<f64>,
    /// Each sample's class label; 0 where the network has none.
    pub classes: Vec<i64>,
    /// For each condition of the manifest, each sample's value.
    pub conditions: Vec<Vec<f32>>,
    /// For each of the signature's tensors, one sample's axes and the values of all.
    pub tensors: Vec<Tensor>,
}

impl Batch {
    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Remove all samples; the buffers stay.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.times.clear();
        self.classes.clear();
        for condition in &mut self.conditions {
            condition.clear();
        }
        for tensor in &mut self.tensors {
            tensor.data.clear();
        }
    }

    /// Add a sample that `write` appends, with the conditions' default values.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<f32>), time: f64, class: i64, manifest: &Manifest) {
        write(&mut self.samples);
        self.times.push(time);
        self.classes.push(class);
        self.conditions.resize_with(manifest.conditions.len(), Vec::new);
        for (column, condition) in self.conditions.iter_mut().zip(manifest.conditions.values()) {
            column.push(condition.default as f32);
        }
    }

    /// Give the last sample these conditions instead of the defaults.
    pub fn set_conditions(&mut self, values: &[f32]) {
        for (column, value) in self.conditions.iter_mut().zip(values) {
            if let Some(last) = column.last_mut() {
                *last = *value;
            }
        }
    }
}

impl Batch {
    /// Give the last sample these tensors, in the signature's order; those that all samples share
    /// are taken from the first.
    pub fn set_tensors(&mut self, inputs: &[TensorInput], values: &[Tensor]) {
        self.tensors.resize_with(values.len(), Tensor::default);
        for ((column, tensor), input) in self.tensors.iter_mut().zip(values).zip(inputs) {
            if column.data.is_empty() || !input.role.is_shared() {
                column.shape.clone_from(&tensor.shape);
                column.data.extend_from_slice(&tensor.data);
            }
        }
    }

    /// Add the first sample once more.
    pub(crate) fn repeat_first(&mut self, inputs: &[TensorInput]) {
        let len = self.samples.len() / self.len().max(1);
        self.samples.extend_from_within(..len);
        self.times.push(self.times[0]);
        self.classes.push(self.classes[0]);
        for condition in &mut self.conditions {
            condition.push(condition[0]);
        }
        for (tensor, _) in self.tensors.iter_mut().zip(inputs).filter(|(_, input)| !input.role.is_shared()) {
            let each: usize = tensor.shape.iter().product();
            tensor.data.extend_from_within(..each);
        }
    }
}

/// An evaluation that failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The engine's words.
    #[error("{engine}: {reason}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// What it says.
        reason: String,
    },
    /// The output is of another size than a sample's, or twice that.
    #[error("the output has {found} values where {expected} or twice as many were expected")]
    OutputLength {
        /// One output for each value of the samples.
        expected: usize,
        /// As many came.
        found: usize,
    },
    /// A graph that had left memory can't be opened again.
    #[error(transparent)]
    Open(Box<crate::model::ModelError>),
    /// A graph whose model is gone.
    #[error("the model is gone")]
    Closed,
    /// The output has other axes.
    #[error(
        "the output {output} has the axes {found:?} where {expected} were expected; export the folder again"
    )]
    OutputShape {
        /// The output.
        output: String,
        /// What was expected.
        expected: String,
        /// What came.
        found: Vec<usize>,
    },
    /// The output is of another type.
    #[error("the output is no float tensor")]
    OutputType,
}
