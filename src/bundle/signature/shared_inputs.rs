//! Checks that no input of a graph has two meanings.

use super::error::list;
use super::{Role, SignatureError};
use crate::bundle::Manifest;
use crate::tensor::{GraphIo, ValueInfo};

/// The inputs that are known by their usual names or by keys of denoised.toml.
pub(super) struct FoundInputs<'a> {
    pub(super) sample: &'a ValueInfo,
    pub(super) time: &'a ValueInfo,
    pub(super) class: Option<&'a ValueInfo>,
}

/// What one input is for.
struct Meaning<'a> {
    input: &'a str,
    /// The key of denoised.toml that names the input; `None` for an input that is known by its usual name.
    key: Option<String>,
    words: &'static str,
}

/// The names of inputs in denoised.toml. Usual names mean other inputs first.
pub(super) fn named_inputs(manifest: &Manifest) -> Vec<&str> {
    let names = &manifest.graph;
    let own = [&names.sample, &names.timestep, &names.class_labels];
    let roles = Role::ALL.into_iter().filter_map(|role| names.role_name(role));
    let conditions = manifest.conditions.iter();
    let conditions = conditions.map(|(name, condition)| condition.input.as_deref().unwrap_or(name));
    own.into_iter().filter_map(|name| name.as_deref()).chain(roles).chain(conditions).collect()
}

/// The error for an input with two meanings, of which keys of denoised.toml give at least one.
pub(super) fn check(
    graph: &GraphIo,
    manifest: &Manifest,
    found: &FoundInputs<'_>,
) -> Result<(), SignatureError> {
    let meanings = meanings(manifest, found);
    for (i, second) in meanings.iter().enumerate() {
        let Some(first) = meanings[..i].iter().find(|first| first.input == second.input) else { continue };
        let (key, problem) = match (&first.key, &second.key) {
            (Some(first), Some(second)) => {
                (second, format!("which {first} names too, and an input has one meaning"))
            }
            (None, Some(key)) => (key, format!("which is the graph's input for {}", first.words)),
            (Some(key), None) => (key, format!("which is the graph's input for {}", second.words)),
            (None, None) => continue,
        };
        return Err(SignatureError::SharedInput {
            key: key.clone(),
            name: second.input.to_owned(),
            problem,
            inputs: list(&graph.inputs),
        });
    }
    Ok(())
}

fn meanings<'a>(manifest: &'a Manifest, found: &FoundInputs<'a>) -> Vec<Meaning<'a>> {
    let names = &manifest.graph;
    let own = |input: &'a ValueInfo, named: &Option<String>, key: &str, words| Meaning {
        input: &input.name,
        key: named.is_some().then(|| format!("[graph] {key}")),
        words,
    };
    let mut meanings = vec![
        own(found.sample, &names.sample, "sample", "the sample"),
        own(found.time, &names.timestep, "timestep", "the time step"),
    ];
    meanings
        .extend(found.class.map(|input| own(input, &names.class_labels, "class_labels", "the class label")));
    meanings.extend(Role::ALL.into_iter().filter_map(|role| {
        let key = Some(format!("[graph] {}", role.key()));
        Some(Meaning { input: names.role_name(role)?, key, words: role.meaning() })
    }));
    meanings.extend(manifest.conditions.iter().map(|(name, condition)| Meaning {
        input: condition.input.as_deref().unwrap_or(name),
        key: Some(format!("[conditions.{name}]")),
        words: "a condition",
    }));
    meanings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{NetworkSize, Signature};
    use crate::tensor::DataType;

    fn resolve(others: &[ValueInfo], manifest: &str) -> Result<Signature, String> {
        let sample = ValueInfo::with_axes("sample", DataType::F32, &[None, Some(1), Some(8), Some(8)]);
        let time = ValueInfo::with_axes("timestep", DataType::F32, &[None]);
        let label = ValueInfo::with_axes("class_labels", DataType::I64, &[None]);
        let output = ValueInfo { name: "out_sample".to_owned(), ..sample.clone() };
        let inputs = [sample, time, label].into_iter().chain(others.iter().cloned()).collect();
        let graph = GraphIo { inputs, outputs: vec![output] };
        let manifest = Manifest::parse(manifest).unwrap();
        Signature::resolve(&graph, &manifest, NetworkSize::default(), 1).map_err(|error| error.to_string())
    }

    /// The advice was to change the graph, or the engine failed.
    #[test]
    fn two_keys_for_one_input_were_a_fault_of_the_graph() {
        for (manifest, expected) in [
            (
                "[graph]\ntimestep = \"sample\"",
                "[graph] timestep names \"sample\", which is the graph's input for the sample",
            ),
            (
                "[graph]\nclass_labels = \"sample\"",
                "[graph] class_labels names \"sample\", which is the graph's input for the sample",
            ),
            (
                "[graph]\nclass_labels = \"timestep\"",
                "[graph] class_labels names \"timestep\", which is the graph's input for the time step",
            ),
            (
                "[graph]\nsample = \"timestep\"",
                "[graph] sample names \"timestep\", which is the graph's input for the time step",
            ),
            (
                "[graph]\ntimestep = \"class_labels\"\nclass_labels = \"class_labels\"",
                "[graph] class_labels names \"class_labels\", which [graph] timestep names too, and an input has one meaning",
            ),
            (
                "[graph]\nguidance = \"timestep\"",
                "[graph] guidance names \"timestep\", which is the graph's input for the time step",
            ),
            (
                "[graph]\ntext = \"x\"\npooled = \"x\"",
                "[graph] pooled names \"x\", which [graph] text names too, and an input has one meaning",
            ),
            (
                "[conditions.timestep]\ndefault = 0.0",
                "[conditions.timestep] names \"timestep\", which is the graph's input for the time step",
            ),
            (
                "[conditions.class_labels]\ndefault = 0.0",
                "[conditions.class_labels] names \"class_labels\", which is the graph's input for the class label",
            ),
            (
                "[conditions.a]\ninput = \"x\"\ndefault = 0.0\n[conditions.b]\ninput = \"x\"\ndefault = 0.0",
                "[conditions.b] names \"x\", which [conditions.a] names too, and an input has one meaning",
            ),
        ] {
            let error = resolve(&[ValueInfo::with_axes("x", DataType::F32, &[None])], manifest).unwrap_err();
            let inputs =
                "sample float32[?, 1, 8, 8], timestep float32[?], class_labels int64[?], x float32[?]";
            let advice = "Remove the key, or name another one of the inputs";
            assert_eq!(error, format!("denoised.toml: {expected}. {advice}: {inputs}"), "{manifest}");
        }
    }

    /// The first input with a usual name was the time, also if a key gave it another meaning.
    #[test]
    fn a_usual_name_means_an_input_that_no_key_names() {
        let sigma = ValueInfo::with_axes("sigma", DataType::F32, &[None]);
        let signature = resolve(&[sigma], "[conditions.timestep]\ndefault = 0.0").unwrap();
        assert_eq!((signature.time.name.as_str(), signature.conditions.len()), ("sigma", 1));
    }
}
