//! The TensorRT that ONNX Runtime's provider loads.

use std::path::{Path, PathBuf};

use super::Platform;
use crate::inference::TensorRt;

/// The provider's library, which is linked to one major version of TensorRT.
const PROVIDER: &str = "libonnxruntime_providers_tensorrt.so";
/// TensorRT's library.
pub(super) const LIBRARY: &str = "libnvinfer.so";
/// The provider's library has about a megabyte. A larger file is not read.
const MAX_PROVIDER_BYTES: u64 = 64 << 20;

/// What is known of the installed TensorRT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstalledTensorRt {
    /// Its version, or only the first number; `None` if it is not installed.
    pub(crate) version: Option<String>,
    /// The JetPack of this board, if it has no DLA.
    jetpack_without_dla: Option<&'static str>,
    /// Whether the provider is linked to the DLA's compiler.
    pub(crate) needs_dla_compiler: bool,
}

impl InstalledTensorRt {
    /// Returns the options that have no effect here, each with the reason and what to do.
    pub(crate) fn warnings(&self, options: &TensorRt) -> Vec<String> {
        let mut warnings = options.ignored_by(self.version.as_deref().unwrap_or_default());
        let is_reported = warnings.iter().any(|warning| warning.starts_with("dla_core"));
        if let Some(jetpack) = self.jetpack_without_dla.filter(|_| options.dla_core.is_some() && !is_reported)
        {
            warnings.push(format!("dla_core has no effect: {jetpack} has no DLA; remove the key"));
        }
        warnings
    }
}

impl Platform {
    /// Finds the TensorRT that the provider beside an ONNX Runtime library loads, or else any.
    pub(crate) fn tensorrt(&self, onnxruntime: Option<&Path>) -> InstalledTensorRt {
        let provider = self.provider_library(onnxruntime);
        let major = provider.as_deref().and_then(|bytes| number_after(bytes, "libnvinfer.so."));
        let library = match major {
            Some(major) => self.library_with_major(LIBRARY, major),
            None => self.library(LIBRARY),
        };
        let version = library.map(|library| library.version).filter(|version| !version.is_empty());
        let jetpack =
            self.l4t_release().and_then(|release| release.jetpack).filter(|jetpack| !jetpack.has_dla);
        InstalledTensorRt {
            version: version.or_else(|| major.map(|major| major.to_string())),
            jetpack_without_dla: jetpack.map(|jetpack| jetpack.name),
            needs_dla_compiler: provider.is_some_and(|bytes| contains(&bytes, b"libnvdla_compiler.so")),
        }
    }

    fn provider_library(&self, onnxruntime: Option<&Path>) -> Option<Vec<u8>> {
        let variable = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
        let library = onnxruntime.map(Path::to_owned).or(variable);
        let named = library.and_then(|library| Some(library.canonicalize().ok()?.parent()?.join(PROVIDER)));
        [named, Some(self.path("/usr/lib/denoised").join(PROVIDER))].into_iter().flatten().find_map(|path| {
            let is_small = path.metadata().ok()?.len() <= MAX_PROVIDER_BYTES;
            is_small.then(|| std::fs::read(path).ok()).flatten()
        })
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Returns the number after the first occurrence of this text that a number follows.
fn number_after(bytes: &[u8], text: &str) -> Option<u32> {
    let starts = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
    starts.map(|(start, _)| &bytes[start + text.len()..]).find_map(|rest| {
        let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_digit).collect();
        String::from_utf8(digits).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Host;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Platform) {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let platform = Platform::new(root.path());
        (root, platform)
    }

    #[test]
    fn the_version_is_the_one_that_the_provider_is_linked_to() {
        let both = [
            ("usr/lib/aarch64-linux-gnu/libnvinfer.so.10.16.2", ""),
            ("usr/lib/aarch64-linux-gnu/libnvinfer.so.11.1.0", ""),
        ];
        for (needed, version) in [("10", "10.16.2"), ("11", "11.1.0"), ("12", "12")] {
            let provider =
                format!("\0libcudart.so.13\0libnvinfer.so.{needed}\0libnvonnxparser.so.{needed}\0");
            let mut files = both.to_vec();
            files.push(("usr/lib/denoised/libonnxruntime_providers_tensorrt.so", &provider));
            let (_root, platform) = tree(&files);
            assert_eq!(platform.tensorrt(None).version.as_deref(), Some(version));
        }
        // The provider beside the configured library comes first.
        let (_root, platform) = tree(&both);
        let (other, _) = tree(&[
            ("libonnxruntime.so.1.31.1", ""),
            ("libonnxruntime_providers_tensorrt.so", "\0libnvinfer.so.11\0libnvdla_compiler.so\0"),
        ]);
        let library = other.path().join("libonnxruntime.so.1.31.1");
        let found = platform.tensorrt(Some(&library));
        assert_eq!((found.version.as_deref(), found.needs_dla_compiler), (Some("11.1.0"), true));
        // The key of the engine cache has the same version.
        assert_eq!(platform.library_version(LIBRARY, Some(&library)).as_deref(), Some("11.1.0"));
        let (_root, platform) = tree(&[]);
        assert_eq!(platform.tensorrt(None).version, None);
    }
}
