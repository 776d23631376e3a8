//! Writes the weights of a graph to one file, in the type that the provider computes in.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::checksums::{Checksums, PART_LEN};
use super::external_tensors::Place;
use crate::onnx::{ModelFiles, OWN_VALUES, widen_values};

/// The bytes that are written at once. They stay in the processor's cache until then.
const CHUNK_LEN: usize = 256 << 10;
/// Tensors of at least this size begin at a page, so that evaluations read no page of another tensor.
const LARGE: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// All others begin at a cache line.
const CACHE_LINE: u64 = 64;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Where each tensor is in the file of weights. Between tensors are zeros.
#[derive(Debug, Default)]
pub(super) struct Layout {
    tensors: Vec<Tensor>,
    /// The length of the file.
    pub(super) len: u64,
}

/// A tensor in the file of weights.
#[derive(Debug)]
struct Tensor {
    start: u64,
    end: u64,
    place: Place,
}

impl Layout {
    /// Appends a tensor. Returns its offset.
    pub(super) fn push(&mut self, place: Place) -> u64 {
        let len = place.prepared_len();
        let start = self.len.next_multiple_of(if len >= LARGE { PAGE } else { CACHE_LINE });
        self.len = start + len;
        self.tensors.push(Tensor { start, end: self.len, place });
        start
    }
}

/// The file of weights while it is written.
pub(super) struct WeightsFile<'a> {
    file: File,
    layout: &'a Layout,
    /// The files that are read, by their locations.
    sources: BTreeMap<&'a str, File>,
}

impl<'a> WeightsFile<'a> {
    /// Creates the file with its final length, by which the cache counts it.
    pub(super) fn create(path: &Path, files: &ModelFiles, layout: &'a Layout) -> std::io::Result<Self> {
        let mut sources = BTreeMap::new();
        for Tensor { place, .. } in &layout.tensors {
            let location = place.location.as_str();
            if !sources.contains_key(location) {
                sources.insert(location, File::open(source(files, location)?)?);
            }
        }
        let file = File::create_new(path)?;
        file.set_len(layout.len)?;
        Ok(Self { file, layout, sources })
    }

    /// Writes the values on all processors. `name` is the graph's in the log.
    ///
    /// Returns the checksums of the file. They are why nothing waits for the disk: an entry that a power loss cuts off is
    /// noticed and made again.
    pub(super) fn write(&self, name: &str) -> std::io::Result<Checksums> {
        let parts = usize::try_from(self.layout.len.div_ceil(PART_LEN as u64)).unwrap_or(usize::MAX);
        let (next, start) = (AtomicUsize::new(0), Instant::now());
        let logged = AtomicUsize::new(0);
        let write = || -> std::io::Result<Vec<(usize, u32)>> {
            let (mut chunk, mut sums) = (Chunk::default(), Vec::new());
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= parts {
                    return Ok(sums);
                }
                sums.push((part, self.write_part(part, &mut chunk)?));
                let intervals = (start.elapsed().as_secs() / LOG_INTERVAL.as_secs()) as usize;
                if logged.fetch_max(intervals, Ordering::Relaxed) < intervals {
                    log::info!("{name}: {} % of its prepared weights are written", 100 * part / parts);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(parts);
        let mut sums = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(write)).collect();
            let mut sums = write()?;
            for thread in others {
                sums.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            std::io::Result::Ok(sums)
        })?;
        sums.sort_unstable();
        Ok(Checksums::new(self.layout.len, sums.into_iter().map(|(_, sum)| sum).collect()))
    }

    /// Writes one part of the file. Returns its CRC-32.
    fn write_part(&self, part: usize, chunk: &mut Chunk) -> std::io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut position = part as u64 * PART_LEN as u64;
        let end = self.layout.len.min(position + PART_LEN as u64);
        let mut tensor = self.layout.tensors.partition_point(|tensor| tensor.end <= position);
        while position < end {
            let len = CHUNK_LEN.min((end - position) as usize);
            let (bytes, chunk_end) = (&mut chunk.written()[..len], position + len as u64);
            bytes.fill(0);
            while let Some(next) = self.layout.tensors.get(tensor).filter(|next| next.start < chunk_end) {
                let (from, to) = (next.start.max(position), next.end.min(chunk_end));
                let range = (from - position) as usize..(to - position) as usize;
                self.read(next, from - next.start, range, chunk)?;
                if next.end > chunk_end {
                    break;
                }
                tensor += 1;
            }
            let bytes = &chunk.written()[..len];
            hasher.update(bytes);
            self.file.write_all_at(bytes, position)?;
            position = chunk_end;
        }
        Ok(hasher.finalize())
    }

    /// Reads the values of a tensor from the byte `offset` on, in its prepared type, into a range of the chunk.
    fn read(
        &self,
        tensor: &Tensor,
        offset: u64,
        range: std::ops::Range<usize>,
        chunk: &mut Chunk,
    ) -> std::io::Result<()> {
        let source = self.sources.get(tensor.place.location.as_str()).ok_or(std::io::ErrorKind::NotFound)?;
        if !tensor.place.is_float16 {
            return source.read_exact_at(&mut chunk.written()[range], tensor.place.offset + offset);
        }
        // Tensors, chunks and parts begin at whole values.
        let narrow = &mut chunk.narrow[..range.len() / 4];
        source.read_exact_at(bytemuck::cast_slice_mut(narrow), tensor.place.offset + offset / 2)?;
        widen_values(narrow, &mut chunk.values[range.start / 4..range.end / 4]);
        Ok(())
    }
}

/// What is read and written at once.
struct Chunk {
    /// float16 values.
    narrow: Vec<u16>,
    /// The bytes to write, aligned for float32 values.
    values: Vec<f32>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { narrow: vec![0; CHUNK_LEN / 4], values: vec![0.0; CHUNK_LEN / 4] }
    }
}

impl Chunk {
    fn written(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.values)
    }
}

/// The file at a location that the graph names.
fn source<'f>(files: &'f ModelFiles, location: &str) -> std::io::Result<&'f Path> {
    if location == OWN_VALUES {
        return Ok(&files.graph);
    }
    let file = files.data_index(location).and_then(|index| files.data.get(index));
    Ok(&file.ok_or(std::io::ErrorKind::NotFound)?.path)
}
