//! Small files that are complete or absent.

use std::io::Write;
use std::path::Path;

/// Writes a file, or replaces it, so that it has the old or the new content even if the power fails.
pub(crate) fn write(directory: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["long content", "short"] {
            write(directory.path(), "file", content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), content);
        }
        std::fs::create_dir(directory.path().join("taken")).unwrap();
        assert!(write(directory.path(), "taken", b"x").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
