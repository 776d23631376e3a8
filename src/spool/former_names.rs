//! Names that the broker may still know from earlier starts: client ids with their sessions, and shared queues.
//!
//! Each kind is a file beside the spool, one name in each line. A name stays there until the broker has forgotten it.

use std::io::{ErrorKind, Result, Write};
use std::path::Path;

/// The file with the client ids.
pub(crate) const CLIENT_IDS: &str = "client-ids";
/// The file with the filters of shared queues.
pub(crate) const SHARED_QUEUES: &str = "shared-queues";

/// Returns the names of earlier starts that differ from the present one.
pub(crate) fn former(directory: &Path, file: &str, present: Option<&str>) -> Result<Vec<String>> {
    let names = read(directory, file)?;
    Ok(names.into_iter().filter(|name| Some(name.as_str()) != present).collect())
}

/// Adds a name.
pub(crate) fn remember(directory: &Path, file: &str, name: &str) -> Result<()> {
    let names = read(directory, file)?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let all: Vec<_> = names.iter().map(String::as_str).chain([name]).collect();
    write(directory, file, &all)
}

/// Removes a name that the broker has forgotten.
pub(crate) fn forget(directory: &Path, file: &str, name: &str) -> Result<()> {
    let names = read(directory, file)?;
    let others: Vec<_> = names.iter().map(String::as_str).filter(|other| *other != name).collect();
    write(directory, file, &others)
}

fn read(directory: &Path, file: &str) -> Result<Vec<String>> {
    match std::fs::read_to_string(directory.join(file)) {
        Ok(text) => Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn write(directory: &Path, file: &str, names: &[&str]) -> Result<()> {
    // Complete or as before, even if the power fails.
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    names.iter().try_for_each(|name| writeln!(temporary, "{name}"))?;
    temporary.as_file().sync_all()?;
    temporary.persist(directory.join(file))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_former_until_it_is_forgotten_or_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let former = |present| former(path, SHARED_QUEUES, present).unwrap();
        assert_eq!(former(Some("a")), [""; 0]);
        for name in ["a", "a", "b"] {
            remember(path, SHARED_QUEUES, name).unwrap();
        }
        assert_eq!(former(Some("b")), ["a"]);
        assert_eq!(former(None), ["a", "b"]);
        forget(path, SHARED_QUEUES, "a").unwrap();
        assert_eq!(former(Some("b")), [""; 0]);
        assert_eq!(read(path, CLIENT_IDS).unwrap(), [""; 0]);
    }
}
