//! Files of jobs and pictures that arguments name.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::job::is_address;

/// The largest file, in MiB. A device such as /dev/zero has no end.
const MAX_MIB: u64 = 256;

/// Reads a file, pipe or device up to the limit.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    ensure!(!path.as_os_str().is_empty(), "the path is empty; name a file");
    check_address(path)?;
    ensure!(!path.is_dir(), "{} is a directory; name a file", path.display());
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_from(file, &path.display().to_string())
}

/// Fails for an address, which is not fetched.
pub(super) fn check_address(path: &Path) -> anyhow::Result<()> {
    let is_missing_address = is_address(&path.to_string_lossy()) && !path.exists();
    ensure!(
        !is_missing_address,
        "{} is an address, and addresses are not fetched; download the file and name its path",
        path.display()
    );
    Ok(())
}

/// Reads an open file up to the limit.
pub(super) fn read_from(source: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take((MAX_MIB << 20) + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {name}"))?;
    ensure!(bytes.len() as u64 <= MAX_MIB << 20, "{name} has more than {MAX_MIB} MiB; name a smaller file");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_was_a_file_that_is_missing() {
        let error = read(Path::new("https://example.org/fox.png")).unwrap_err().to_string();
        assert_eq!(
            error,
            "https://example.org/fox.png is an address, and addresses are not fetched; download the file and name its path"
        );
    }

    #[test]
    fn a_device_without_end_is_an_error() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero has more than 256 MiB; name a smaller file");
        assert!(read(Path::new("/")).unwrap_err().to_string().contains("is a directory"));
        assert_eq!(read_from(&b"abc"[..], "x").unwrap(), b"abc");
    }
}
