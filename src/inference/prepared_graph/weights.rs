//! Writes the weights of a graph to one file, tensor by tensor, in the type that the provider computes in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::checksums::{ChecksumWriter, Checksums};
use super::external_tensors::Place;
use crate::onnx::{ModelFiles, OWN_VALUES, widen_values};

/// The bytes of a tensor that are read at once. They stay in the processor's cache until they are written.
const CHUNK_LEN: usize = 256 << 10;
/// Tensors of at least this size begin at a page, so that evaluations read no page of another tensor.
const LARGE: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// All others begin at a cache line.
const CACHE_LINE: u64 = 64;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the file of weights.
pub(super) struct WeightsWriter<'a> {
    name: &'a str,
    files: &'a ModelFiles,
    /// The files that are read, by their locations.
    sources: BTreeMap<String, File>,
    out: ChecksumWriter<File>,
    /// What is read, in units of float16 values, and what becomes of it.
    chunk: Vec<u16>,
    widened: Vec<f32>,
    /// The bytes to write in all, for the log.
    total: u64,
    logged: Instant,
}

impl<'a> WeightsWriter<'a> {
    /// Creates the file. `name` is the graph's in the log.
    pub(super) fn create(
        path: &Path,
        name: &'a str,
        files: &'a ModelFiles,
        total: u64,
    ) -> std::io::Result<Self> {
        Ok(Self {
            name,
            files,
            sources: BTreeMap::new(),
            out: ChecksumWriter::new(File::create_new(path)?),
            chunk: vec![0; CHUNK_LEN / 2],
            widened: vec![0.0; CHUNK_LEN / 2],
            total,
            logged: Instant::now(),
        })
    }

    /// Writes the values of one tensor. Returns the offset.
    pub(super) fn write(&mut self, place: &Place) -> std::io::Result<u64> {
        let alignment = if place.prepared_len() >= LARGE { PAGE } else { CACHE_LINE };
        let padding = self.out.len().next_multiple_of(alignment) - self.out.len();
        self.out.write_all(&[0; PAGE as usize][..padding as usize])?;
        let start = self.out.len();
        let source = source(&mut self.sources, self.files, &place.location)?;
        let mut position = 0;
        while position < place.len {
            let len = CHUNK_LEN.min((place.len - position) as usize);
            let bytes = &mut bytemuck::cast_slice_mut(&mut self.chunk)[..len];
            source.read_exact_at(bytes, place.offset + position)?;
            if place.is_float16 {
                let widened = &mut self.widened[..len / 2];
                widen_values(&mut self.chunk[..len / 2], widened);
                self.out.write_all(bytemuck::cast_slice(widened))?;
            } else {
                self.out.write_all(bytes)?;
            }
            position += len as u64;
            if self.logged.elapsed() >= LOG_INTERVAL {
                self.logged = Instant::now();
                let percent = 100 * self.out.len() / self.total.max(1);
                log::info!("{}: {percent} % of its prepared weights are written", self.name);
            }
        }
        Ok(start)
    }

    /// Returns the checksums of the file. They are why nothing waits for the disk: an entry that a power loss cuts off is
    /// noticed and made again.
    pub(super) fn finish(self) -> Checksums {
        self.out.finish().1
    }
}

/// The file at a location that the graph names, opened once.
fn source<'s>(
    sources: &'s mut BTreeMap<String, File>,
    files: &ModelFiles,
    location: &str,
) -> std::io::Result<&'s File> {
    if !sources.contains_key(location) {
        let path = match location {
            OWN_VALUES => &files.graph,
            _ => {
                let file = files.data_index(location).and_then(|index| files.data.get(index));
                &file.ok_or(std::io::ErrorKind::NotFound)?.path
            }
        };
        sources.insert(location.to_owned(), File::open(path)?);
    }
    sources.get(location).ok_or_else(|| std::io::ErrorKind::NotFound.into())
}
