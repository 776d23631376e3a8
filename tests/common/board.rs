//! A directory tree that looks like a board.

use std::path::Path;

use tempfile::TempDir;

/// The tree, which is deleted with this value.
pub struct Tree(TempDir);

impl Tree {
    /// With what every Jetson has: its name and its release.
    pub fn jetson(model: &str, release: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("proc/device-tree/model", &format!("{model}\0"));
        tree.write("etc/nv_tegra_release", &format!("# {release}, GCID: 1, BOARD: generic, EABI: aarch64\n"));
        tree
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
