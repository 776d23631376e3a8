//! Checks of single values, each as the `deserialize_with` of its key.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error};

use crate::bundle::model_name;
use crate::inference::Provider;
use crate::topic_name;

fn path<'de, D: Deserializer<'de>>(deserializer: D, what: &str) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        return Err(D::Error::custom(format!("the path is empty; {what}")));
    }
    Ok(path)
}

/// The user name at the broker.
pub(super) fn user_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match topic_name::text_fault(&name) {
        Some(fault) => Err(D::Error::custom(format!("the user name cannot be sent to a broker: {fault}"))),
        None => Ok(name),
    }
}

/// The path of a directory.
pub(super) fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    path(deserializer, "name a directory")
}

/// The path of a file; the key can be left out.
pub(super) fn optional_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    path(deserializer, "name a file, or remove the key").map(Some)
}

/// The root of a file tree: an existing directory.
pub(super) fn file_tree<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let root = path(deserializer, "name a directory")?;
    if !root.is_absolute() {
        return Err(D::Error::custom(format!("{} is not an absolute path", root.display())));
    }
    if !root.is_dir() {
        return Err(D::Error::custom(format!("there is no directory {}", root.display())));
    }
    Ok(root)
}

/// A list of directories.
pub(super) fn directories<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(D::Error::custom(format!("{:?} is not an absolute path", path.display().to_string())))
        }
        None => Ok(paths),
    }
}

/// The directories of the models.
pub(super) fn model_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    if paths.is_empty() {
        return Err(D::Error::custom("the list is empty; name at least one model's directory"));
    }
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(D::Error::custom("a path is empty; name a model's directory"));
    }
    let mut names = BTreeSet::new();
    match paths.iter().map(|path| model_name(path)).find(|name| !names.insert(name.clone())) {
        Some(name) => Err(D::Error::custom(format!(
            "two models are named {name:?}, by which jobs select them; rename or remove a directory"
        ))),
        None => Ok(paths),
    }
}

/// The execution providers in order of preference.
pub(super) fn providers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Provider>, D::Error> {
    let providers = Vec::<Provider>::deserialize(deserializer)?;
    if providers.is_empty() {
        return Err(D::Error::custom(
            "the list is empty; name at least one of tensorrt, cuda, openvino and cpu",
        ));
    }
    let is_repeated = |(index, provider): &(usize, &Provider)| providers[..*index].contains(provider);
    match providers.iter().enumerate().find(is_repeated) {
        Some((_, provider)) => Err(D::Error::custom(format!("{provider} is listed twice"))),
        None => Ok(providers),
    }
}

/// The execution providers of one model; the key can be left out.
pub(super) fn optional_providers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Provider>>, D::Error> {
    providers(deserializer).map(Some)
}

/// The provider that serves while another one builds an engine.
pub(super) fn interim_provider<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Provider>, D::Error> {
    let provider = Provider::deserialize(deserializer)?;
    if provider.builds_engines() {
        return Err(D::Error::custom(format!("{provider} builds an engine itself; use cuda or cpu")));
    }
    Ok(Some(provider))
}
