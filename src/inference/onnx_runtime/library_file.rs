//! Checks the file of a library before the dynamic loader maps it into memory.
//!
//! The loader reads a file that is shorter than its headers say as memory without contents, which ends the process.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::file_kind::{Expected, unexpected_content};
use crate::inference::library_error::LibraryFault;

/// The length of the header of a 64-bit ELF file.
const HEADER_LEN: usize = 64;

/// The processor of this program: the number in an ELF header and its name.
#[cfg(target_arch = "x86_64")]
const OWN_MACHINE: (u16, &str) = (62, "x86-64");
#[cfg(target_arch = "aarch64")]
const OWN_MACHINE: (u16, &str) = (183, "aarch64");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("add this processor's number in ELF headers");

/// Returns why the file is not a complete library for this processor.
pub(super) fn check(path: &Path) -> Result<(), LibraryFault> {
    let metadata = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => LibraryFault::Missing,
        _ => LibraryFault::Unreadable(error),
    })?;
    if metadata.is_dir() {
        return Err(LibraryFault::Directory);
    }
    crate::regular_file::check(path).map_err(LibraryFault::Unreadable)?;
    let file = File::open(path).map_err(LibraryFault::Unreadable)?;
    let mut header = Vec::with_capacity(HEADER_LEN);
    (&file).take(HEADER_LEN as u64).read_to_end(&mut header).map_err(LibraryFault::Unreadable)?;
    if !header.starts_with(b"\x7fELF") {
        let content = unexpected_content(path, Expected::Weights).map_err(LibraryFault::Unreadable)?;
        return Err(content.map_or(LibraryFault::NotElf, LibraryFault::OtherContent));
    }
    let found = metadata.len();
    let truncated = |expected| Err(LibraryFault::Truncated { found, expected });
    let Some(header) = header.first_chunk::<HEADER_LEN>() else { return truncated(HEADER_LEN as u64) };
    check_machine(header)?;
    let tables = header_tables(header);
    let tables_end = tables.iter().map(Table::end).max().unwrap_or_default();
    if tables_end > found {
        return truncated(tables_end);
    }
    let [segments, _] = tables;
    match segments_end(&file, &segments).map_err(LibraryFault::Unreadable)? {
        end if end > found => truncated(end),
        _ => Ok(()),
    }
}

fn check_machine(header: &[u8; HEADER_LEN]) -> Result<(), LibraryFault> {
    let (number, own) = OWN_MACHINE;
    let is_64_bit = header[4] == 2;
    // Byte 5 is the byte order: 1 is little-endian, the order of both processors.
    let found =
        if header[5] == 1 { u16_at(header, 18) } else { u16::from_be_bytes([header[18], header[19]]) };
    if is_64_bit && header[5] == 1 && found == number {
        return Ok(());
    }
    let name = match found {
        3 => "x86 (32 bits)".to_owned(),
        40 => "arm (32 bits)".to_owned(),
        62 => "x86-64".to_owned(),
        183 => "aarch64".to_owned(),
        other => format!("another processor (ELF machine {other})"),
    };
    Err(LibraryFault::Architecture { found: name, own })
}

/// A table of equally long entries in an ELF file.
struct Table {
    offset: u64,
    entry_len: u16,
    entries: u16,
}

impl Table {
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.entry_len) * u64::from(self.entries))
    }
}

/// Returns the tables of the segments and of the sections.
fn header_tables(header: &[u8; HEADER_LEN]) -> [Table; 2] {
    let table = |offset, lengths| Table {
        offset: u64_at(header, offset),
        entry_len: u16_at(header, lengths),
        entries: u16_at(header, lengths + 2),
    };
    [table(32, 54), table(40, 58)]
}

/// Returns the end of the last segment. The table must lie within the file.
fn segments_end(file: &File, segments: &Table) -> std::io::Result<u64> {
    let mut table = vec![0; usize::from(segments.entry_len) * usize::from(segments.entries)];
    file.read_exact_at(&mut table, segments.offset)?;
    let entries = table.chunks_exact(usize::from(segments.entry_len.max(1)));
    // The offset in the file is at byte 8, the length in the file at byte 32.
    let end = |entry: &[u8]| u64_at(entry, 8).saturating_add(u64_at(entry, 32));
    Ok(entries.map(end).max().unwrap_or_default())
}

/// Returns the number at this offset, or 0 beyond the end.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one segment of 1000 bytes from the start, and a table of no sections.
    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64 + 32..64 + 34].copy_from_slice(&1000_u16.to_le_bytes());
        bytes
    }

    /// A truncated library ended the process with a signal, and every other fault had the same wrong advice.
    #[test]
    fn every_file_that_is_no_library_had_the_same_advice() {
        let folder = tempfile::tempdir().unwrap();
        let fault = |bytes: &[u8]| {
            let path = folder.path().join("libonnxruntime.so");
            std::fs::write(&path, bytes).unwrap();
            check(&path).err().map_or_else(String::new, |fault| fault.to_string())
        };
        let (own, name) = OWN_MACHINE;
        assert_eq!(fault(&elf(own)), "");
        assert_eq!(fault(&elf(own)[..999]), "it ends after 999 of 1000 bytes; copy or download it again");
        assert_eq!(fault(&elf(own)[..100]), "it ends after 100 of 120 bytes; copy or download it again");
        assert_eq!(fault(&elf(own)[..20]), "it ends after 20 of 64 bytes; copy or download it again");
        let other = fault(&elf(40));
        assert!(
            other.starts_with(&format!("it is built for arm (32 bits), and this program for {name}")),
            "{other}"
        );
        let not_elf =
            "it is not an ELF file, as every library of Linux is; name the file libonnxruntime.so.X.Y.Z";
        assert_eq!((fault(b"PK\x03\x04").as_str(), fault(b"").as_str()), (not_elf, not_elf));
        let pointer = fault(b"version https://git-lfs.github.com/spec/v1\n");
        assert!(pointer.starts_with("this is a pointer of Git LFS"), "{pointer}");
        assert_eq!(check(&folder.path().join("none")).unwrap_err().to_string(), "there is no such file");
        let directory = check(folder.path()).unwrap_err().to_string();
        assert_eq!(directory, "it is a directory; name the file libonnxruntime.so.X.Y.Z in it");
    }
}
