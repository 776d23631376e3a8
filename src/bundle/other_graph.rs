//! Graphs that lie in a component's folder under another name than model.onnx.

use std::path::Path;

use super::BundleError;

/// The path of a graph in a component's folder, relative to the bundle.
pub(crate) fn other_graph(directory: &Path, component: &str) -> Option<String> {
    let entries = std::fs::read_dir(directory.join(component)).ok()?;
    let files = entries.flatten().filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.filter(|name| name.ends_with(".onnx") && name != "model.onnx").min()?;
    Some(format!("{component}/{name}"))
}

/// The error for a network whose graph has another name.
pub(super) fn misnamed_network(directory: &Path) -> Option<BundleError> {
    let file = ["unet", "transformer"].into_iter().find_map(|component| other_graph(directory, component))?;
    let fault = format!(
        "the bundle has no unet/model.onnx, but {file}; name it in denoised.toml: [graph] file = \"{file}\""
    );
    Some(BundleError::Content { path: directory.to_owned(), fault })
}

/// Why a pipeline of latents cannot make pictures: its decoder is missing. `None` if it is there, or if nothing indicates
/// such a pipeline.
pub(crate) fn missing_decoder(directory: &Path) -> Option<String> {
    let has_graph = |component: &str| directory.join(component).join("model.onnx").is_file();
    let other = other_graph(directory, "vae_decoder");
    if has_graph("vae_decoder") || !(has_graph("vae_encoder") || has_graph("vae") || other.is_some()) {
        return None;
    }
    let advice = match other {
        Some(file) => format!("{file} is there; rename it to model.onnx"),
        None if has_graph("vae") => {
            "vae/model.onnx is there; if it is the decoder's, rename the folder vae to vae_decoder".to_owned()
        }
        None => "export the whole pipeline".to_owned(),
    };
    Some(format!("vae_decoder/model.onnx is missing, without which latents do not become pictures; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole pipeline was to be exported again.
    #[test]
    fn a_decoder_in_the_folder_vae_was_not_seen() {
        let directory = tempfile::tempdir().unwrap();
        for component in ["vae", "vae_encoder"] {
            std::fs::create_dir(directory.path().join(component)).unwrap();
            std::fs::write(directory.path().join(component).join("model.onnx"), "").unwrap();
        }
        let fault = missing_decoder(directory.path()).unwrap();
        assert!(fault.ends_with("rename the folder vae to vae_decoder"), "{fault}");
    }
}
