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

    /// Installs the package: the unit and its user, with these ids and groups.
    pub fn install_service(&self, uid: u32, gid: u32, groups: &str) {
        let unit = std::fs::read_to_string(super::repository().join("systemd/denoised.service")).unwrap();
        self.write("usr/lib/systemd/system/denoised.service", &unit);
        self.write("etc/passwd", &format!("denoised:x:{uid}:{gid}::/var/lib/denoised:/usr/sbin/nologin\n"));
        self.write("etc/group", groups);
    }

    /// Installs TensorRT in these versions.
    pub fn install_tensorrt(&self, versions: &[&str]) {
        for version in versions {
            self.write(&format!("usr/lib/aarch64-linux-gnu/libnvinfer.so.{version}"), "");
        }
    }

    /// Installs ONNX Runtime with a TensorRT provider that is linked to these libraries.
    pub fn install_provider(&self, needed: &[&str]) {
        let names: String = needed.iter().map(|name| format!("\0{name}\0")).collect();
        self.write("usr/lib/denoised/libonnxruntime_providers_tensorrt.so", &format!("\u{7f}ELF{names}"));
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
