//! Where a command writes: a file whose ending selects the format, or a directory of files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::image::Format;

/// The value of `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputTarget {
    /// One file of this format.
    File(PathBuf, Format),
    /// One file for each image.
    Directory(PathBuf),
}

impl OutputTarget {
    /// Chooses by the path's ending: a path without one is a directory.
    pub(super) fn from_path(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Ok(Self::Directory(path.to_owned()));
        }
        let Some(ending) = path.extension() else {
            ensure!(
                !path.exists(),
                "--output: {} is a file without an ending; {}",
                path.display(),
                known_endings(&Format::ALL)
            );
            return Ok(Self::Directory(path.to_owned()));
        };
        match Format::from_name(&ending.to_string_lossy()) {
            Some(format) => Ok(Self::File(path.to_owned(), format)),
            None => bail!(
                "--output: {} ends with .{}, which is not supported; {}, or end the name of a directory with /",
                path.display(),
                ending.display(),
                known_endings(&Format::ALL)
            ),
        }
    }

    /// The format that the ending of a file selects.
    pub(super) fn format(&self) -> Option<Format> {
        match self {
            Self::File(_, format) => Some(*format),
            Self::Directory(_) => None,
        }
    }

    /// Fails if nothing can be written there. Creates nothing.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::File(path, _) => check_file("--output", path),
            Self::Directory(path) => {
                let existing = path.ancestors().find(|ancestor| ancestor.exists() || is_empty(ancestor));
                check_directory("--output", existing.unwrap_or(path))
            }
        }
    }
}

/// Lists the endings of these formats, for an error.
pub(super) fn known_endings(formats: &[Format]) -> String {
    let mut endings = Vec::new();
    for format in formats {
        endings.push(format!(".{}", format.name()));
        if *format == Format::Jpeg {
            endings.push(".jpg".to_owned());
        }
    }
    let last = endings.pop().unwrap_or_default();
    format!("use {} or {last}", endings.join(", "))
}

/// Fails if this file can't be written. Neither creates nor changes it.
pub(super) fn check_file(flag: &str, path: &Path) -> anyhow::Result<()> {
    ensure!(!path.is_dir(), "{flag}: {} is a directory, but one file is written", path.display());
    if path.is_file() {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .with_context(|| format!("{flag}: cannot write {}", path.display()))?;
        return Ok(());
    }
    if path.exists() {
        // A pipe or a device, which may block until something reads from it.
        return Ok(());
    }
    let directory = path.parent().unwrap_or(path);
    ensure!(
        directory.exists() || is_empty(directory),
        "{flag}: the directory {} does not exist; create it",
        directory.display()
    );
    check_directory(flag, directory)
}

/// Fails if no file can be created in this directory.
fn check_directory(flag: &str, directory: &Path) -> anyhow::Result<()> {
    let directory = if is_empty(directory) { Path::new(".") } else { directory };
    ensure!(directory.is_dir(), "{flag}: {} is not a directory", directory.display());
    tempfile::tempfile_in(directory)
        .with_context(|| format!("{flag}: cannot write into {}", directory.display()))?;
    Ok(())
}

/// Writes a file.
pub(super) fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The parent of a path without a directory is empty.
fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_selects_the_format() {
        for (path, expected) in [
            ("a.png", Format::Png),
            ("a.JPG", Format::Jpeg),
            ("a.jpeg", Format::Jpeg),
            ("b/a.webp", Format::Webp),
            ("a.npy", Format::Npy),
        ] {
            assert_eq!(
                OutputTarget::from_path(Path::new(path)).unwrap(),
                OutputTarget::File(path.into(), expected)
            );
        }
        for path in ["images", "images.d/", "/tmp"] {
            assert_eq!(
                OutputTarget::from_path(Path::new(path)).unwrap(),
                OutputTarget::Directory(path.into())
            );
        }
        let error = OutputTarget::from_path(Path::new("a.gif")).unwrap_err().to_string();
        assert_eq!(
            error,
            "--output: a.gif ends with .gif, which is not supported; use .png, .jpeg, .jpg, .webp or .npy, or end the \
             name of a directory with /"
        );
    }

    #[test]
    fn a_path_that_cannot_be_written_is_found_without_writing() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path| OutputTarget::from_path(path).and_then(|target| target.check());
        let message = |path: &Path| format!("{:#}", check(path).unwrap_err());
        let (missing, file) = (directory.path().join("missing"), directory.path().join("file"));
        check(&directory.path().join("a.png")).unwrap();
        check(&missing.join("deeper")).unwrap();
        check(Path::new("a.png")).unwrap();
        assert_eq!(
            message(&missing.join("a.png")),
            format!("--output: the directory {} does not exist; create it", missing.display())
        );
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(message(&file.join("a.png")), format!("--output: {} is not a directory", file.display()));
        assert!(
            message(&file.join("deeper/")).ends_with("is not a directory"),
            "{}",
            message(&file.join("deeper/"))
        );
        assert!(message(Path::new("/proc/a.png")).starts_with("--output: cannot write into /proc: "));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
