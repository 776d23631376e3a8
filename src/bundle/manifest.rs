//! denoised.toml: what the diffusers layout cannot express.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::preview_projection::Projection;
use super::{PipelineKind, Role, manifest_values};
use crate::serde_message::{DocumentFormat, without_rust_types};
use crate::toml_document::{SyntaxFault, array_for_section, huge_integers, syntax_fault};

/// The contents of the file. Every section is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Names of inputs and outputs that differ from the usual ones.
    pub graph: GraphNames,
    /// The scheduler's class and keys, for a bundle without scheduler_config.json.
    pub scheduler: Option<BTreeMap<String, toml::Value>>,
    /// The samples.
    pub sample: SampleDescription,
    /// The classes of a class-conditional network.
    pub classes: Classes,
    /// Defaults of jobs.
    pub default: Defaults,
    /// The projection from latents to previews.
    pub preview: Option<Projection>,
    /// The folders or ONNX files of ControlNets, relative to the bundle, by the names that jobs use.
    pub controlnets: BTreeMap<String, PathBuf>,
    /// Further conditions, by the names that jobs use.
    pub conditions: BTreeMap<String, Condition>,
}

impl Manifest {
    /// The projection from latents of this many channels to previews: the manifest's, or else the published one of the
    /// kind of pipeline.
    pub fn projection(&self, kind: PipelineKind, channels: usize) -> Option<Projection> {
        let projection = self.preview.clone().or_else(|| Projection::published(kind));
        projection.filter(|projection| projection.factors.len() == channels)
    }
}

/// Names of the file, its inputs and its output. An input without a name here is found by the usual names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GraphNames {
    /// The ONNX file, relative to the bundle.
    pub file: Option<PathBuf>,
    /// The input for the sample.
    pub sample: Option<String>,
    /// The input for the time step or noise level.
    pub timestep: Option<String>,
    /// The input for the class label.
    pub class_labels: Option<String>,
    /// The input for the prompt's embeddings, one row per token.
    pub text: Option<String>,
    /// The input for the mask of these embeddings.
    pub text_mask: Option<String>,
    /// The input for the pooled embedding of the prompt.
    pub pooled: Option<String>,
    /// The input for SDXL's sizes.
    pub time_ids: Option<String>,
    /// The input for the embedding of the guidance weight.
    pub timestep_cond: Option<String>,
    /// The input for the guidance weight.
    pub guidance: Option<String>,
    /// The input for the positions of the image's patches.
    pub img_ids: Option<String>,
    /// The input for the positions of the text's tokens.
    pub txt_ids: Option<String>,
    /// The output that holds the prediction.
    pub output: Option<String>,
}

impl GraphNames {
    /// The name of the input with this role.
    pub(super) fn role_name(&self, role: Role) -> Option<&str> {
        let name = match role {
            Role::Text => &self.text,
            Role::TextMask => &self.text_mask,
            Role::Pooled => &self.pooled,
            Role::TimeIds => &self.time_ids,
            Role::GuidanceEmbedding => &self.timestep_cond,
            Role::Guidance => &self.guidance,
            Role::ImageIds => &self.img_ids,
            Role::TextIds => &self.txt_ids,
        };
        name.as_deref()
    }
}

/// How a sample is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// Channels × height × width.
    #[default]
    Image,
    /// Points × 2 coordinates.
    Points,
}

/// The samples of a network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleDescription {
    /// Images or points.
    pub kind: SampleKind,
    /// The values drawn as black and white, or the smallest and largest coordinate drawn.
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
    /// The name of each class, from class 0. That of the label for no class is empty.
    pub names: Vec<String>,
    /// The label for no class, which guidance needs.
    pub null: Option<i64>,
}

/// Defaults of jobs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The sampler. Without it, the scheduler's class determines the sampler.
    pub sampler: Option<String>,
    /// The number of steps.
    pub steps: Option<usize>,
    /// The guidance weight of a job with a prompt or a class.
    pub guidance: Option<f64>,
    /// η of the sampler.
    pub eta: Option<f64>,
    /// The number of tokens of a text encoder that takes as many as a job asks for.
    pub max_sequence_length: Option<usize>,
}

/// A further condition of the network: one number per sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The graph's input. Defaults to the condition's name.
    pub input: Option<String>,
    /// The value for jobs that do not set it.
    pub default: f64,
    /// The smallest value allowed.
    #[serde(default = "unbounded_below")]
    pub min: f64,
    /// The largest value allowed.
    #[serde(default = "unbounded_above")]
    pub max: f64,
}

fn unbounded_below() -> f64 {
    f64::NEG_INFINITY
}

fn unbounded_above() -> f64 {
    f64::INFINITY
}

impl Manifest {
    /// Parses the contents of a file. An error names the line or the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let huge_integer = || huge_integers(text).into_iter().next();
        let table: toml::Table = text.parse().map_err(|error| match huge_integer() {
            Some(fault) => fault.to_string(),
            None => syntax_fault(text, &error).to_string(),
        })?;
        if let Some(fault) = array_for_section::<Self>(&table).or_else(huge_integer) {
            return Err(fault.to_string());
        }
        let manifest: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            let SyntaxFault { line, .. } = syntax_fault(text, &error);
            let message = without_rust_types(error.message(), DocumentFormat::Toml);
            // A message about an unknown key names it.
            match Self::key_at_fault(&table).filter(|_| !message.starts_with("unknown field")) {
                Some(key) => format!("line {line}: {key}: {message}"),
                None => format!("line {line}: {message}"),
            }
        })?;
        match manifest_values::fault(&manifest, &table) {
            Some((key, fault)) => Err(format!("{key} {fault}")),
            None => Ok(manifest),
        }
    }

    /// The key whose value has the wrong type.
    fn key_at_fault(table: &toml::Table) -> Option<String> {
        let error = serde_path_to_error::deserialize::<_, Self>(table.clone()).err()?;
        error.path().iter().next().is_some().then(|| error.path().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message began with a picture of the line.
    #[test]
    fn an_unknown_key_is_named_in_one_line() {
        let error = Manifest::parse("[default]\nsteps = 3\nsampl = \"ddim\"").unwrap_err();
        assert!(error.starts_with("line 3: unknown field `sampl`, expected one of `"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_value_of_another_type_was_reported_without_its_key() {
        for (text, expected) in [
            (
                "[default]\nsteps = \"x\"",
                "line 2: default.steps: invalid type: string \"x\", expected a whole number, 0 or more",
            ),
            (
                "[sample]\nrange = [1]",
                "line 2: sample.range: invalid length 1, expected an array of length 2",
            ),
            (
                "[classes]\nnull = \"b\"",
                "line 2: classes.null: invalid type: string \"b\", expected a whole number",
            ),
            (
                "[preview]\nfactors = [[1, 2]]\nbias = [0, 0, 0]",
                "line 2: preview.factors[0]: invalid length 2, expected an array of length 3",
            ),
        ] {
            assert_eq!(Manifest::parse(text).unwrap_err(), expected);
        }
    }

    /// A list gave the keys of a section their values by position, and a huge number was reported as an `i128`.
    #[test]
    fn a_list_was_taken_for_a_section_of_a_manifest() {
        for (text, expected) in [
            (
                "sample = [\"points\"]",
                "sample: must be a table, and is an array; write [sample], and its keys below",
            ),
            (
                "[[default]]\nsteps = 3",
                "default: must be a table, and is an array; write [default] instead of [[default]]",
            ),
            (
                "[conditions]\nmood = [\"mood\", 0.5]",
                "conditions.mood: must be a table, and is an array; write [conditions.mood], and its keys below",
            ),
            (
                "[default]\nsteps = 99999999999999999999",
                "default.steps: the number 99999999999999999999 is too large; whole numbers have at most 64 bits",
            ),
        ] {
            assert_eq!(Manifest::parse(text), Err(expected.to_owned()));
        }
    }
}
