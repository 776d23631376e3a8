//! The bundled models, and copies of bundles that a test may change.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{golden, repository};

/// Returns the directory of a bundled model.
pub fn model(name: &str) -> PathBuf {
    repository().join("models").join(name)
}

/// Copies the bundle of the exact Gaussian model.
pub fn gaussian_bundle(name: &str) -> (TempDir, PathBuf) {
    copy_bundle(&golden("gaussian"), name)
}

/// Copies a bundle to a directory with another name. The directory is deleted with the first value.
pub fn copy_bundle(bundle: &Path, name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(name);
    copy_tree(bundle, &copy);
    (directory, copy)
}

/// Copies a directory with all its files. Links are followed.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
