//! Shared libraries and their versions.

use std::path::PathBuf;

use super::{Platform, file_name};

/// An installed shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// The file, with symbolic links resolved.
    pub(crate) path: PathBuf,
    /// The version in its file name, such as `10.3.0`; may be empty.
    pub(crate) version: String,
}

/// Directories of libraries of the dynamic loader and of NVIDIA's packages.
const DIRECTORIES: [&str; 9] = [
    "/usr/lib/denoised",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib/aarch64-linux-gnu/tegra",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/aarch64-linux/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/lib",
    "/usr/lib",
];

impl Platform {
    /// Finds a library, such as `libnvinfer.so`, in the first directory that has it. Of several files, the one with
    /// the longest version wins.
    pub(crate) fn library(&self, name: &str) -> Option<Library> {
        DIRECTORIES.iter().find_map(|directory| self.library_in(directory, name, |_| true))
    }

    /// Finds a library of this major version.
    pub(crate) fn library_with_major(&self, name: &str, major: u32) -> Option<Library> {
        let is_wanted = |version: &str| version.split('.').next().and_then(|n| n.parse().ok()) == Some(major);
        DIRECTORIES.iter().find_map(|directory| self.library_in(directory, name, is_wanted))
    }

    fn library_in(&self, directory: &str, name: &str, is_wanted: impl Fn(&str) -> bool) -> Option<Library> {
        let versions = self.entries(directory).into_iter().filter_map(|path| {
            let real = path.canonicalize().ok()?;
            let version = file_name(&path).strip_prefix(name)?.to_owned();
            let version = version.strip_prefix('.').map_or(version.clone(), str::to_owned);
            let is_version = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            (is_version && is_wanted(&version)).then_some(Library { path: real, version })
        });
        versions.max_by_key(|library| library.version.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_with_the_version_of_its_file() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/lib/aarch64-linux-gnu");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("libnvinfer.so.10.3.0"), b"").unwrap();
        std::fs::write(directory.join("libnvinfer_plugin.so.10.3.0"), b"").unwrap();
        std::os::unix::fs::symlink("libnvinfer.so.10.3.0", directory.join("libnvinfer.so.10")).unwrap();
        std::os::unix::fs::symlink("missing.so", directory.join("libcudart.so")).unwrap();
        let platform = Platform::new(root.path());
        let found = platform.library("libnvinfer.so").unwrap();
        assert_eq!(found.version, "10.3.0");
        assert!(found.path.ends_with("libnvinfer.so.10.3.0"));
        // A dangling link is skipped.
        assert_eq!(platform.library("libcudart.so"), None);
    }
}
