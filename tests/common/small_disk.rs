//! A disk of a few megabytes that a test can fill.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::commands::ChildGuard;

/// A tmpfs in its own mount namespace, which exists as long as the process that holds it.
pub struct SmallDisk {
    path: PathBuf,
    _holder: ChildGuard,
    _directory: TempDir,
}

impl SmallDisk {
    pub fn new(megabytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let script =
            format!("mount -t tmpfs -o size={megabytes}m tmpfs {at} && echo mounted && exec sleep infinity");
        // A user namespace allows mounting without being root.
        let root = std::fs::metadata("/proc/self").unwrap();
        let options: &[&str] = match std::os::unix::fs::MetadataExt::uid(&root) {
            0 => &["--mount"],
            _ => &["--mount", "--user", "--map-root-user"],
        };
        let mut child = Command::new("unshare")
            .args(options)
            .args(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot run unshare; install util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line, "mounted\n",
            "cannot mount a tmpfs; run these tests as root, or allow unprivileged user namespaces"
        );
        let path = PathBuf::from(format!("/proc/{}/root{at}", child.id()));
        Self { path, _holder: ChildGuard { child }, _directory: directory }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills the disk to its last byte.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::options();
        let mut ballast = ballast.create(true).append(true).open(self.path.join("ballast")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees the space that [`SmallDisk::fill`] took, if any.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.path.join("ballast"));
    }
}
