//! The root file system of a board, as a temporary directory.

use std::path::Path;

use tempfile::TempDir;

/// A root directory, which is deleted when this value is dropped.
pub struct Tree(TempDir);

impl Tree {
    /// Creates the files of a Jetson with this model name and L4T release.
    pub fn jetson(model: &str, release: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("proc/device-tree/model", &format!("{model}\0"));
        tree.write("etc/nv_tegra_release", &format!("# {release}, GCID: 1, BOARD: generic, EABI: aarch64\n"));
        tree
    }

    /// Writes a file; its path is relative to the root.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
