//! The models of the demo: a directory of bundles, or else the copies in the program.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The files that the demo's bundles consist of, relative to a directory of bundles.
#[cfg(feature = "demo")]
macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../models/", $path)))),+]
    };
}

#[cfg(feature = "demo")]
const FILES: &[(&str, &[u8])] = files![
    "digits/denoised.toml",
    "digits/model_index.json",
    "digits/scheduler/scheduler_config.json",
    "digits/unet/config.json",
    "digits/unet/model.onnx",
    "swissroll/denoised.toml",
    "swissroll/scheduler/scheduler_config.json",
    "swissroll/unet/model.onnx",
];
#[cfg(not(feature = "demo"))]
const FILES: &[(&str, &[u8])] = &[];

/// The directory of bundles in the working directory, next to the program's checkout, or installed by the package.
/// Otherwise the program's copies are written to `scratch`.
///
/// # Errors
///
/// If there is no directory and the program has no copies, or if they cannot be written.
pub(super) fn directory(scratch: &Path) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    let checkout = program.ancestors().skip(1).map(|above| above.join("models"));
    let mut candidates = std::iter::once(PathBuf::from("models"))
        .chain(checkout)
        .chain([PathBuf::from("/usr/share/denoised/models")]);
    if let Some(directory) = candidates.find(|models| models.join("digits/unet").is_dir()) {
        return Ok(directory);
    }
    anyhow::ensure!(
        !FILES.is_empty(),
        "the demo's models are neither in ./models nor in /usr/share/denoised/models, and this build contains no \
         copies; run the demo in a checkout of the repository"
    );
    for (path, bytes) in FILES {
        let path = scratch.join(path);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        written.and_then(|()| std::fs::write(&path, bytes)).with_context(|| path.display().to_string())?;
    }
    Ok(scratch.to_owned())
}
