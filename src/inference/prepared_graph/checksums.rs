//! CRC-32 of each part of a file, so that a damaged file is noticed at the speed of memory.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

/// The length of the parts. Long enough that one part is read in few calls, and short enough to share the work evenly.
pub(super) const PART_LEN: usize = 8 << 20;
/// The bytes that are read at once. They stay in the processor's cache until their checksum is computed.
const READ_LEN: usize = 1 << 18;

/// The length of a file and the CRC-32 of each of its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    len: u64,
    crc32: Vec<u32>,
}

/// Computes checksums of everything that is written through it.
pub(super) struct ChecksumWriter<W> {
    inner: W,
    sums: Checksums,
    hasher: crc32fast::Hasher,
    /// The bytes in the part that is not complete.
    filled: usize,
}

impl<W: Write> ChecksumWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, sums: Checksums::default(), hasher: crc32fast::Hasher::new(), filled: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        self.sums.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(PART_LEN - self.filled));
            self.hasher.update(part);
            self.filled += part.len();
            if self.filled == PART_LEN {
                self.end_part();
            }
            bytes = rest;
        }
    }

    fn end_part(&mut self) {
        self.sums.crc32.push(std::mem::take(&mut self.hasher).finalize());
        self.filled = 0;
    }

    /// Returns the writer and the checksums.
    pub(super) fn finish(mut self) -> (W, Checksums) {
        if self.filled > 0 {
            self.end_part();
        }
        (self.inner, self.sums)
    }
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl Checksums {
    /// The checksums of a file of this length, with the CRC-32 of each part.
    pub(super) fn new(len: u64, crc32: Vec<u32>) -> Self {
        Self { len, crc32 }
    }

    /// The checksums of a file.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let mut writer = ChecksumWriter::new(std::io::sink());
        std::io::copy(&mut File::open(path)?, &mut writer)?;
        Ok(writer.finish().1)
    }

    /// Compares a file with the checksums on all processors. Returns what is wrong with it.
    pub(super) fn fault(&self, path: &Path) -> std::io::Result<Option<String>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let metadata = path.symlink_metadata()?;
        if !metadata.is_file() {
            return Ok(Some(format!("{name} is not a file")));
        }
        if metadata.len() != self.len {
            return Ok(Some(format!("{name} has {} bytes instead of {}", metadata.len(), self.len)));
        }
        let file = File::open(path)?;
        let next = AtomicUsize::new(0);
        let damaged = || -> std::io::Result<Option<usize>> {
            let mut buffer = vec![0; READ_LEN];
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                let Some(expected) = self.crc32.get(part) else { return Ok(None) };
                if part_checksum(&file, part, self.len, &mut buffer)? != *expected {
                    return Ok(Some(part));
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(self.crc32.len());
        let found = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(damaged)).collect();
            let mut found = damaged()?;
            for thread in others {
                let other = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                found = found.or(other);
            }
            std::io::Result::Ok(found)
        })?;
        let expected_parts = usize::try_from(self.len.div_ceil(PART_LEN as u64)).ok();
        if expected_parts != Some(self.crc32.len()) {
            return Ok(Some("its manifest does not match its files".to_owned()));
        }
        Ok(found.map(|part| format!("{name} has other contents from byte {} on", part * PART_LEN)))
    }
}

/// The CRC-32 of one part of a file of `len` bytes.
fn part_checksum(file: &File, part: usize, len: u64, buffer: &mut [u8]) -> std::io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let start = part as u64 * PART_LEN as u64;
    let end = len.min(start + PART_LEN as u64);
    let mut position = start;
    while position < end {
        let wanted = buffer.len().min((end - position) as usize);
        file.read_exact_at(&mut buffer[..wanted], position)?;
        hasher.update(&buffer[..wanted]);
        position += wanted as u64;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_a_missing_byte_and_a_link_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights.bin");
        let mut bytes: Vec<u8> = (0..2 * PART_LEN + 100).map(|i| (i % 251) as u8).collect();
        let mut writer = ChecksumWriter::new(File::create(&path).unwrap());
        for chunk in bytes.chunks(1_000_003) {
            writer.write_all(chunk).unwrap();
        }
        let (_, sums) = writer.finish();
        assert_eq!((sums.len, sums.crc32.len()), (bytes.len() as u64, 3));
        assert_eq!(sums, Checksums::read(&path).unwrap());
        assert_eq!(sums.fault(&path).unwrap(), None);
        for (position, part) in [(0, 0), (PART_LEN + 7, PART_LEN), (2 * PART_LEN + 99, 2 * PART_LEN)] {
            bytes[position] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let expected = format!("weights.bin has other contents from byte {part} on");
            assert_eq!(sums.fault(&path).unwrap(), Some(expected));
            bytes[position] ^= 1;
        }
        std::fs::write(&path, &bytes[1..]).unwrap();
        assert!(sums.fault(&path).unwrap().unwrap().ends_with(&format!("instead of {}", bytes.len())));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(sums.fault(&path).unwrap().as_deref(), Some("weights.bin is not a file"));
    }
}
