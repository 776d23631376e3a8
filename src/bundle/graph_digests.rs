//! The SHA-256 of a bundle's graphs, each with its external data.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::BundleError;
use super::digest_memo::DigestMemo;
use crate::onnx::ModelFiles;

/// The digests of a bundle's graphs, in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphDigests {
    /// The digest of all graphs. For a single graph, its own.
    pub total: String,
    /// By the name of the graph's folder, or of its file if it is in no folder of the bundle.
    pub by_name: BTreeMap<String, String>,
}

impl GraphDigests {
    /// The digests of a bundle from those of its graphs.
    pub(super) fn new(bundle: &Path, by_path: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut by_name = BTreeMap::new();
        for (path, digest) in by_path {
            let own = name(bundle, &path);
            // Graphs of other folders may have the name of one of the bundle.
            let names = (1..).map(|n| if n == 1 { own.clone() } else { format!("{own}_{n}") });
            if let Some(free) = names.into_iter().find(|name| !by_name.contains_key(name)) {
                by_name.insert(free, digest);
            }
        }
        Self { total: total(&by_name), by_name }
    }
}

fn total(by_name: &BTreeMap<String, String>) -> String {
    match by_name.values().next() {
        Some(only) if by_name.len() == 1 => only.clone(),
        _ => list_digest(by_name.iter().map(|(name, digest)| (digest.as_str(), name.as_str()))),
    }
}

/// The name of a graph: `unet` for unet/model.onnx, and `canny` for ../canny/model.onnx.
pub(super) fn name(bundle: &Path, graph: &Path) -> String {
    let inside = graph.strip_prefix(bundle).unwrap_or(graph);
    let folder = inside.parent().and_then(|parent| parent.components().next());
    let name = match folder {
        Some(std::path::Component::Normal(folder)) => folder,
        Some(_) => inside.parent().and_then(Path::file_name).or(inside.file_stem()).unwrap_or_default(),
        None => inside.file_stem().unwrap_or_default(),
    };
    name.to_string_lossy().into_owned()
}

/// The digest of the ONNX file, or, if there is external data, of the list of all files in the format of `sha256sum`. Reads
/// all files, which may have gigabytes, except those that the memo knows.
pub(super) fn graph_digest(graph: &ModelFiles, memo: DigestMemo) -> Result<String, BundleError> {
    let mut files: Vec<&Path> = graph.paths().collect();
    files.sort_unstable();
    files.dedup();
    let digests = known_digests(&files, memo)?;
    let digest = |file: &Path| digests.get(file).map_or("", String::as_str);
    let own = digest(&graph.graph);
    if graph.data.is_empty() {
        return Ok(own.to_owned());
    }
    let name = graph.graph.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = graph.data.iter().map(|file| (digest(&file.path), file.location.as_str()));
    Ok(list_digest([(own, name.as_str())].into_iter().chain(data)))
}

/// The digest of lines with a digest and a name each, as `sha256sum` writes them.
fn list_digest<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let list = entries.fold(String::new(), |mut list, (digest, name)| {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{digest}  {name}");
        list
    });
    format!("{:x}", Sha256::digest(list))
}

/// The digest of each file, by the memo or else by reading the file.
fn known_digests<'a>(
    files: &[&'a Path],
    memo: DigestMemo,
) -> Result<BTreeMap<&'a Path, String>, BundleError> {
    let known = files.iter().filter_map(|file| Some((*file, memo.get(file)?.to_owned())));
    let mut all: BTreeMap<_, _> = known.collect();
    let unknown: Vec<_> = files.iter().filter(|file| !all.contains_key(*file)).copied().collect();
    let recording = memo.record(&unknown);
    let hashed = digests(&unknown)?;
    if let Some(recording) = recording {
        let real: BTreeMap<_, _> =
            hashed.iter().filter_map(|(file, digest)| Some((file.canonicalize().ok()?, digest))).collect();
        recording.save(|path| real.get(path).map(|digest| (*digest).clone()));
    }
    all.extend(hashed);
    Ok(all)
}

/// The digest of each file. As many files are read at the same time as there are processors.
fn digests<'a>(files: &[&'a Path]) -> Result<BTreeMap<&'a Path, String>, BundleError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(&Path, String)>, BundleError> {
        let mut digests = Vec::new();
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            digests.push((*file, file_digest(file).map_err(BundleError::reading(file))?));
        }
        Ok(digests)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = BTreeMap::from_iter(work()?);
        for thread in others {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// Large enough that reading a file of gigabytes takes few calls.
const BUFFER_LEN: usize = 1 << 20;

/// The SHA-256 of a file of any size, in hexadecimal.
pub(crate) fn file_digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; BUFFER_LEN]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:x}", hasher.finalize())),
            Ok(len) => hasher.update(&buffer[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_of_other_folders_keep_their_digests_beside_equal_names() {
        let graphs = ["a/../x/unet/model.onnx", "a/unet/model.onnx"]
            .map(|path| (PathBuf::from(path), path.to_owned()));
        let digests = GraphDigests::new(Path::new("a"), graphs);
        assert_eq!(digests.by_name.keys().collect::<Vec<_>>(), ["unet", "unet_2"]);
    }

    #[test]
    fn a_graph_is_named_by_its_folder_or_its_file() {
        for (graph, expected) in [
            ("a/unet/model.onnx", "unet"),
            ("a/model.onnx", "model"),
            ("a/net/deep/x.onnx", "net"),
            ("a/../x.onnx", "x"),
            ("a/../nets/canny/model.onnx", "canny"),
        ] {
            assert_eq!(name(Path::new("a"), Path::new(graph)), expected);
        }
    }
}
