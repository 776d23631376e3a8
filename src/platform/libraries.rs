//! The shared libraries that a machine has.

use std::path::PathBuf;

use super::{Platform, file_name};

/// A shared library that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The file, with the links to it followed.
    pub path: PathBuf,
    /// What follows `.so.` in its name, as `10.3.0`; empty where nothing does.
    pub version: String,
}

/// Where the loader and NVIDIA's packages keep libraries.
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
    /// The library with this name, as `libnvinfer.so`, in the version with the longest name of the
    /// first directory that has it.
    pub fn library(&self, name: &str) -> Option<Library> {
        DIRECTORIES.iter().find_map(|directory| self.library_in(directory, name))
    }

    fn library_in(&self, directory: &str, name: &str) -> Option<Library> {
        let versions = self.entries(directory).into_iter().filter_map(|path| {
            let real = path.canonicalize().ok()?;
            let version = file_name(&path).strip_prefix(name)?.to_owned();
            let version = version.strip_prefix('.').map_or(version.clone(), str::to_owned);
            let fits = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            fits.then_some(Library { path: real, version })
        });
        versions.max_by_key(|library| library.version.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_with_its_version_behind_its_links() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/lib/aarch64-linux-gnu");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("libnvinfer.so.10.3.0"), b"").unwrap();
        std::fs::write(directory.join("libnvinfer_plugin.so.10.3.0"), b"").unwrap();
        std::os::unix::fs::symlink("libnvinfer.so.10.3.0", directory.join("libnvinfer.so.10")).unwrap();
        std::os::unix::fs::symlink("missing.so", directory.join("libcudart.so")).unwrap();
        let board = Platform::at(root.path());
        let found = board.library("libnvinfer.so").unwrap();
        assert_eq!(found.version, "10.3.0");
        assert!(found.path.ends_with("libnvinfer.so.10.3.0"));
        // A link to nothing is no library.
        assert_eq!(board.library("libcudart.so"), None);
    }
}
