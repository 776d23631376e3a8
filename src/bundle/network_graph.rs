//! The graph of a bundle's network: which file it is, and what to do about a folder without one.

use std::path::{Path, PathBuf};

use super::missing_file::{first_file, network_advice};
use super::model_index::{Component, ModelIndex};
use super::other_graph;
use super::{BundleError, NETWORK_GRAPHS};
use crate::regular_file;

/// The graph that denoised.toml names.
pub(super) fn described_graph(
    directory: &Path,
    description: &Path,
    file: &Path,
) -> Result<PathBuf, BundleError> {
    let path = directory.join(file);
    match regular_file::check(&path) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = file.display();
            let fault = format!("graph.file: there is no file {name} in this folder; correct the name");
            Err(BundleError::Content { path: description.to_owned(), fault })
        }
        Err(error) => Err(BundleError::reading(&path)(error)),
    }
}

/// The graph of the network: of the component that model_index.json names, if there are two.
pub(super) fn network_graph(directory: &Path, index: &ModelIndex) -> Result<PathBuf, BundleError> {
    let networks = ["unet", "transformer"].map(|component| (component, format!("{component}/model.onnx")));
    let present: Vec<_> = networks.iter().filter(|(_, file)| directory.join(file).is_file()).collect();
    let is_named = |component: &str| matches!(index.component(component), Some(Component::Class { .. }));
    let named: Vec<_> = present.iter().filter(|(component, _)| is_named(component)).collect();
    match (present.as_slice(), named.as_slice()) {
        ([_, _, ..], [(_, file)]) => Ok(directory.join(file)),
        ([_, _, ..], _) => Err(BundleError::Content {
            path: directory.to_owned(),
            fault: "it has two networks, unet/model.onnx and transformer/model.onnx; name one in denoised.toml: [graph] \
                    file = \"unet/model.onnx\""
                .to_owned(),
        }),
        _ => first_file(directory, &NETWORK_GRAPHS, network_advice)
            .map_err(|missing| other_graph::misnamed_network(directory).unwrap_or(missing)),
    }
}

/// The folder of a graph in a bundle; `None` if the graph lies in the bundle itself.
pub(super) fn component_of(directory: &Path, graph: &Path) -> Option<String> {
    let folder = graph.parent().filter(|folder| *folder != directory)?;
    folder.file_name().map(|name| name.to_string_lossy().into_owned())
}
