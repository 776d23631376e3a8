//! denoised.toml: what the diffusers layout has no place for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::preview_projection::Projection;

/// The file's contents; every part may be missing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Names of inputs and outputs where they differ from the customary ones.
    pub graph: GraphNames,
    /// The noise schedule where no scheduler_config.json stands in the bundle: its class, and its keys.
    pub scheduler: Option<BTreeMap<String, toml::Value>>,
    /// What a sample is.
    pub sample: SampleDescription,
    /// The classes of a class-conditional network.
    pub classes: Classes,
    /// What a job gets that doesn't say otherwise.
    pub default: Defaults,
    /// How latents are shown before they are decoded.
    pub preview: Option<Projection>,
    /// Further conditions by the name that jobs use.
    pub conditions: BTreeMap<String, Condition>,
}

/// Names in the graph.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GraphNames {
    /// The ONNX file, where it has no customary name.
    pub file: Option<PathBuf>,
    /// The sample's input.
    pub sample: Option<String>,
    /// The time step's input.
    pub timestep: Option<String>,
    /// The class label's input.
    pub class_labels: Option<String>,
    /// The output.
    pub output: Option<String>,
}

/// How a sample is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// Channels × height × width.
    #[default]
    Image,
    /// Points × 2 coordinates.
    Points,
}

/// What a sample is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleDescription {
    /// An image or points.
    pub kind: SampleKind,
    /// The values shown as black and white, or the least and greatest coordinate drawn.
    pub range: [f32; 2],
}

impl Default for SampleDescription {
    fn default() -> Self {
        Self { kind: SampleKind::Image, range: [-1.0, 1.0] }
    }
}

/// The classes of a class-conditional network.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classes {
    /// Their names; class k has the k-th.
    pub names: Vec<String>,
    /// The label that stands for no class, which guidance needs.
    pub null: Option<i64>,
}

/// What a job gets that doesn't say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The sampler; without it the scheduler's class counts.
    pub sampler: Option<String>,
    /// The number of steps.
    pub steps: Option<usize>,
    /// The guidance weight where a class is given.
    pub guidance: Option<f64>,
}

/// A further condition of the network, one number a sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The graph's input; the condition's own name if missing.
    pub input: Option<String>,
    /// What a job gets that doesn't name it.
    pub default: f64,
    /// The least value.
    #[serde(default = "least")]
    pub min: f64,
    /// The greatest value.
    #[serde(default = "greatest")]
    pub max: f64,
}

fn least() -> f64 {
    f64::NEG_INFINITY
}

fn greatest() -> f64 {
    f64::INFINITY
}

impl Manifest {
    /// The contents of a file, or what is wrong with them: the line, or the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        match manifest.fault() {
            Some((key, fault)) => Err(format!("{key} {fault}")),
            None => Ok(manifest),
        }
    }

    /// What is wrong beyond the types, as (key, fault).
    fn fault(&self) -> Option<(String, String)> {
        let [low, high] = self.sample.range;
        if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
            let fault = format!("is [{low}, {high}], but must rise");
            return Some(("sample.range".to_owned(), fault));
        }
        if self.default.steps == Some(0) {
            return Some(("default.steps".to_owned(), "must be at least 1".to_owned()));
        }
        self.conditions.iter().find_map(|(name, c)| {
            (!(c.min..=c.max).contains(&c.default)).then(|| {
                let fault = format!("is {}, outside {}..{}", c.default, c.min, c.max);
                (format!("conditions.{name}.default"), fault)
            })
        })
    }
}
