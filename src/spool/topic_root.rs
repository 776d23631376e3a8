//! The file with the root of the topics that the daemon last served, beside the spool.
//!
//! It is a file of its own, so that `denoised doctor` can read it while the daemon has locked the spool.

use std::io::ErrorKind;
use std::path::Path;

use super::atomic_file;

/// The name of the file.
pub(crate) const FILE_NAME: &str = "topic-root";

/// Returns the root that the daemon of this spool last served; `None` before its first start.
pub(crate) fn read(directory: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(directory.join(FILE_NAME)) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned()).filter(|root| !root.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores the root that the daemon serves.
pub(crate) fn write(directory: &Path, root: &str) -> std::io::Result<()> {
    atomic_file::write(directory, FILE_NAME, format!("{root}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        for root in ["denoised/kitchen", "d"] {
            write(directory.path(), root).unwrap();
            assert_eq!(read(directory.path()).unwrap().as_deref(), Some(root));
        }
        // An empty file, as a power loss may leave it, is no root.
        std::fs::write(directory.path().join(FILE_NAME), "").unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        assert!(write(Path::new("/nonexistent"), "d").is_err());
    }
}
