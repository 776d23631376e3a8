//! Finds a file of a folder, and says what to do about a folder without a network or a scheduler: what it has instead.

use std::path::{Path, PathBuf};

use super::{BundleError, NETWORK_GRAPHS};
use crate::regular_file;

/// The folders of a network in a pipeline.
const NETWORK_FOLDERS: [&str; 3] = ["unet", "transformer", ""];

/// Returns the first of these files that exists. `advice` says what to do about a folder without any.
pub(super) fn first_file(
    directory: &Path,
    candidates: &[&str],
    advice: impl FnOnce(&Path) -> String,
) -> Result<PathBuf, BundleError> {
    for path in candidates.iter().map(|candidate| directory.join(candidate)).filter(|path| path.exists()) {
        regular_file::check(&path).map_err(BundleError::reading(&path))?;
    }
    candidates.iter().map(|candidate| directory.join(candidate)).find(|path| path.is_file()).ok_or_else(
        || BundleError::Missing {
            directory: directory.to_owned(),
            searched: candidates.iter().map(|&c| c.to_owned()).collect(),
            advice: advice(directory),
        },
    )
}

/// Advice about a folder that has none of [`NETWORK_GRAPHS`].
pub(crate) fn network_advice(directory: &Path) -> String {
    if let Some(snapshot) = subfolders(&directory.join("snapshots")).pop() {
        return format!("this is the root of a model in the cache of a hub; name {}", snapshot.display());
    }
    if let Some(pipeline) = subfolders(directory).into_iter().find(|folder| is_pipeline(folder)) {
        return format!("the model is in a folder of it; name {}", pipeline.display());
    }
    if let Some(weights) = pytorch_weights(directory) {
        return format!(
            "{} has PyTorch weights without a graph; export the model with optimum-cli or models/export (docs/models.md says \
             which)",
            weights.display()
        );
    }
    match other_graphs(directory).as_slice() {
        [] => "copy the network there, or export the model again".to_owned(),
        [file] => format!(
            "{file} is there; name it in denoised.toml: [graph] file = {file:?} (`denoised init {}` drafts this file)",
            directory.join(file).display()
        ),
        several => format!("name one of its graphs in denoised.toml, [graph] file: {}", several.join(", ")),
    }
}

/// Advice about a folder without the scheduler's configuration.
pub(super) fn scheduler_advice(directory: &Path) -> String {
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    match real.parent().filter(|parent| is_pipeline(parent)) {
        Some(pipeline) => {
            format!("this is a component of the pipeline in its parent; name {}", pipeline.display())
        }
        None => SCHEDULER_ADVICE.to_owned(),
    }
}

const SCHEDULER_ADVICE: &str = "copy this file from the original model, or describe the scheduler in denoised.toml, [scheduler] (`denoised init` \
     drafts it)";

/// Returns the ONNX files in a folder and in its folder `onnx`, relative to the folder.
pub(crate) fn other_graphs(directory: &Path) -> Vec<String> {
    let is_graph = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "onnx") && path.is_file();
    let graphs = ["", "onnx"].into_iter().flat_map(|folder| entries(&directory.join(folder)));
    let relative = |path: PathBuf| path.strip_prefix(directory).map(|path| path.display().to_string()).ok();
    graphs.filter(is_graph).filter_map(relative).collect()
}

/// Whether a folder has what a model's folder has.
fn is_pipeline(folder: &Path) -> bool {
    let has_graph = || {
        let graphs = NETWORK_GRAPHS.iter().filter(|graph| graph.contains('/'));
        graphs.clone().any(|graph| folder.join(graph).is_file())
    };
    folder.join("model_index.json").is_file() || has_graph()
}

/// Returns a file with weights of PyTorch in place of the network.
fn pytorch_weights(directory: &Path) -> Option<PathBuf> {
    let is_weights = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("safetensors" | "bin" | "ckpt" | "pt" | "pth"))
    };
    NETWORK_FOLDERS.iter().flat_map(|folder| entries(&directory.join(folder))).find(is_weights)
}

fn subfolders(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| path.is_dir()).collect()
}

/// The entries of a folder in the order of their names; none if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    /// Every folder had the same message, the list of files that were searched.
    #[test]
    fn a_folder_without_a_network_had_no_advice() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let cases: [(&[&str], String); 6] = [
            (&[], "copy the network there, or export the model again".to_owned()),
            (
                &["unet/diffusion_pytorch_model.safetensors", "model_index.json"],
                format!(
                    "{root}/unet/diffusion_pytorch_model.safetensors has PyTorch weights without a graph; export the \
                     model with optimum-cli or models/export (docs/models.md says which)"
                ),
            ),
            (
                &["snapshots/abc/unet/model.onnx"],
                format!("this is the root of a model in the cache of a hub; name {root}/snapshots/abc"),
            ),
            (&["sd15/unet/model.onnx"], format!("the model is in a folder of it; name {root}/sd15")),
            (
                &["net.onnx"],
                format!(
                    "net.onnx is there; name it in denoised.toml: [graph] file = \"net.onnx\" (`denoised init \
                     {root}/net.onnx` drafts this file)"
                ),
            ),
            (
                &["a.onnx", "onnx/b.onnx"],
                "name one of its graphs in denoised.toml, [graph] file: a.onnx, onnx/b.onnx".to_owned(),
            ),
        ];
        for (files, expected) in cases {
            for entry in entries(directory.path()) {
                if entry.is_dir() { std::fs::remove_dir_all(entry) } else { std::fs::remove_file(entry) }
                    .unwrap();
            }
            for file in files {
                let path = directory.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "{}").unwrap();
            }
            let error = Bundle::open(directory.path()).unwrap_err().to_string();
            assert!(error.ends_with(&format!("model.onnx; {expected}")), "{files:?}: {error}");
        }
    }

    /// It was advised to copy a scheduler into the folder of a component.
    #[test]
    fn the_folder_of_a_component_was_taken_for_a_model() {
        let directory = tempfile::tempdir().unwrap();
        let unet = directory.path().join("unet");
        std::fs::create_dir(&unet).unwrap();
        std::fs::write(unet.join("model.onnx"), "").unwrap();
        let error = Bundle::open(&unet).unwrap_err().to_string();
        let pipeline = directory.path().canonicalize().unwrap();
        let expected =
            format!("this is a component of the pipeline in its parent; name {}", pipeline.display());
        assert!(error.ends_with(&expected), "{error}");
    }

    #[test]
    fn a_wrong_file_in_denoised_toml_was_reported_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let description = directory.path().join("denoised.toml");
        std::fs::write(&description, "[graph]\nfile = \"net.onnx\"\n").unwrap();
        let error = Bundle::open(directory.path()).unwrap_err().to_string();
        let expected = "graph.file: there is no file net.onnx in this folder; correct the name";
        assert_eq!(error, format!("{}: {expected}", description.display()));
        std::fs::write(directory.path().join("model.onnx"), "").unwrap();
        std::fs::remove_file(description).unwrap();
        let error = Bundle::open(directory.path()).unwrap_err().to_string();
        assert!(error.ends_with(SCHEDULER_ADVICE), "{error}");
    }
}
