//! The files in a model's folder: regular files, and those of text of a limited size.

use std::fs::{File, FileType};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The largest file of text, in MiB. The tokenizer.json of a large vocabulary has a quarter of it.
const MAX_MIB: u64 = 64;

/// Refuses what is no regular file, before it is opened: a FIFO may never get a writer, and a device may have no end.
pub(crate) fn check(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(());
    }
    let kind = kind(metadata.file_type());
    refused(format!("it is {kind}, not a regular file; put the file itself there"))
}

fn refused<T>(reason: String) -> std::io::Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, reason))
}

/// Reads a regular file of text.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    check(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take((MAX_MIB << 20) + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MIB << 20 {
        return refused(format!("it has more than {MAX_MIB} MiB, which no configuration or vocabulary has"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(
            ErrorKind::InvalidData,
            format!(
                "it is not text in UTF-8: byte {at} is no character; save it as UTF-8, or download it again"
            ),
        )
    })
}

fn kind(found: FileType) -> &'static str {
    match found {
        _ if found.is_dir() => "a folder",
        _ if found.is_fifo() => "a FIFO",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_limited_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let error = |path: &Path| read_text(path).unwrap_err().to_string();
        assert_eq!(read_text(&file).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(read_text(&file).unwrap(), "{}");
        std::fs::write(&file, b"{\xff}").unwrap();
        assert_eq!(
            error(&file),
            "it is not text in UTF-8: byte 1 is no character; save it as UTF-8, or download it again"
        );
        File::create(&file).unwrap().set_len((MAX_MIB << 20) + 1).unwrap();
        assert_eq!(error(&file), "it has more than 64 MiB, which no configuration or vocabulary has");
        let refused = |kind| format!("it is {kind}, not a regular file; put the file itself there");
        assert_eq!(error(folder.path()), refused("a folder"));
        assert_eq!(error(Path::new("/dev/zero")), refused("a device"));
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(error(&fifo), refused("a FIFO"));
    }
}
