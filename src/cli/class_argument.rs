//! The flag `--class`.

use anyhow::anyhow;

use crate::bundle::Bundle;

/// Returns the label of a class that is given by its number or by its name in denoised.toml. Whether a number is one of
/// the model's classes is checked with the job.
pub(super) fn class_label(class: &str, bundle: &Bundle) -> anyhow::Result<i64> {
    if let Ok(label) = class.parse() {
        return Ok(label);
    }
    let (model, names) = (&bundle.name, &bundle.manifest.classes.names);
    // The label for no class has an empty name.
    let named = || names.iter().filter(|name| !name.is_empty()).map(String::as_str);
    match names.iter().position(|name| name == class && !name.is_empty()) {
        Some(label) => Ok(label as i64),
        None if named().next().is_none() => {
            Err(anyhow!("--class: {model} has no names of classes; use a number instead of {class:?}"))
        }
        None => {
            let names: Vec<_> = named().collect();
            Err(anyhow!("--class: {model} has no class {class:?}; its classes are: {}", names.join(", ")))
        }
    }
}
