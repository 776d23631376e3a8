//! The LoRA files that jobs name, loaded for the graphs of a model.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::live_feed::Adaptation;
use crate::lora::{AdaptedLayer, Adapter, Component, LoraError, LowRank, Matched, check_rank};

/// A LoRA of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// The name in the job.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What its product is multiplied by.
    pub weight: f64,
}

/// The LoRAs of a job as its graphs take them. Jobs with the same files and weights share one.
#[derive(Debug)]
pub struct JobLoras {
    /// For the denoising network.
    pub network: Arc<Adaptation>,
    /// For each text encoder.
    pub(super) text_encoders: Vec<Arc<Adaptation>>,
    /// The SHA-256 of each file, in hexadecimal digits.
    pub sha256: Vec<String>,
    /// Equal for equal contents and weights.
    pub(super) key: String,
}

impl JobLoras {
    /// Those of the text encoder at this place, and what tells them from others.
    pub(super) fn of_text_encoder(&self, place: usize) -> Option<(&Adaptation, &str)> {
        let adaptation = self.text_encoders.get(place)?;
        let is_changed = adaptation.layers.iter().any(Option::is_some);
        is_changed.then_some((&**adaptation, &*self.key))
    }
}

/// A LoRA that a job cannot use.
#[derive(Debug, thiserror::Error)]
pub enum LoraFault {
    /// The model's graphs have no inputs for LoRAs.
    #[error(
        "the model's graphs have no inputs for LoRAs; give them some with `denoised init --live FOLDER`, or remove loras"
    )]
    NoInputs,
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The file is larger than any that is read.
    #[error("{} has {bytes} bytes, but files of at most {MAX_FILE} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Each file fits the model, but not all together.
    #[error("the sum of the job's LoRAs: {0}")]
    Together(LoraError),
    /// The file does not fit the model.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: LoraError,
    },
}

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 2 << 30;

/// How many files, and how many combinations of them, stay in memory.
const RECENT: usize = 4;

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    path: PathBuf,
    len: u64,
    inode: u64,
    modified: (i64, i64),
}

impl FileVersion {
    fn read(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { path: path.to_owned(), len: metadata.len(), inode: metadata.ino(), modified })
    }
}

/// The products of a file, and its digest.
struct Loaded {
    matched: Matched,
    sha256: String,
}

/// Files with their weights.
type Combination = Vec<(FileVersion, u64)>;

/// The files and combinations that were used last, the latest first.
#[derive(Default)]
struct Recent {
    files: VecDeque<(FileVersion, Arc<Loaded>)>,
    combinations: VecDeque<(Combination, Arc<JobLoras>)>,
}

/// The LoRAs of one model.
pub(super) struct LoraStore {
    graphs: Vec<(Component, Vec<AdaptedLayer>)>,
    max_rank: usize,
    recent: Mutex<Recent>,
}

impl LoraStore {
    /// For a network and its text encoders, with the largest rank of a layer.
    pub(super) fn new(
        network: Vec<AdaptedLayer>,
        text_encoders: Vec<Vec<AdaptedLayer>>,
        max_rank: usize,
    ) -> Self {
        let encoders = [Component::TextEncoder, Component::TextEncoder2].into_iter().zip(text_encoders);
        let graphs = [(Component::Network, network)].into_iter().chain(encoders).collect();
        Self { graphs, max_rank, recent: Mutex::default() }
    }

    /// Whether any graph has inputs for LoRAs.
    pub(super) fn has_layers(&self) -> bool {
        self.graphs.iter().any(|(_, layers)| !layers.is_empty())
    }

    /// Loads the LoRAs of a job.
    ///
    /// # Errors
    ///
    /// The index of the LoRA at fault, and the fault.
    pub(super) fn load(&self, choices: &[LoraChoice]) -> Result<Arc<JobLoras>, (usize, LoraFault)> {
        if !choices.is_empty() && !self.has_layers() {
            return Err((0, LoraFault::NoInputs));
        }
        let mut combination = Vec::new();
        for (index, LoraChoice { path, weight, .. }) in choices.iter().enumerate() {
            let version = FileVersion::read(path).map_err(|error| (index, unreadable(path, error)))?;
            combination.push((version, weight.to_bits()));
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = take_recent(&mut recent.combinations, &combination) {
            return Ok(found);
        }
        let mut files = Vec::new();
        for (index, (version, _)) in combination.iter().enumerate() {
            let file = match take_recent(&mut recent.files, version) {
                Some(file) => file,
                None => Arc::new(self.read(&version.path, version.len).map_err(|fault| (index, fault))?),
            };
            keep_recent(&mut recent.files, version.clone(), &file);
            files.push(file);
        }
        let weights: Vec<f32> = choices.iter().map(|choice| choice.weight as f32).collect();
        let last = choices.len().saturating_sub(1);
        let found =
            Arc::new(self.combined(&files, &weights).map_err(|error| (last, LoraFault::Together(error)))?);
        keep_recent(&mut recent.combinations, combination, &found);
        Ok(found)
    }

    fn read(&self, path: &Path, bytes: u64) -> Result<Loaded, LoraFault> {
        if bytes > MAX_FILE {
            return Err(LoraFault::TooLarge { path: path.to_owned(), bytes });
        }
        let contents = std::fs::read(path).map_err(|error| unreadable(path, error))?;
        let graphs: Vec<_> =
            self.graphs.iter().map(|(component, layers)| (*component, &layers[..])).collect();
        let matched = Adapter::parse(&contents).and_then(|adapter| adapter.matched(&graphs, self.max_rank));
        let matched = matched.map_err(|error| LoraFault::File { path: path.to_owned(), error })?;
        let sha256 = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Loaded { matched, sha256 })
    }

    /// The sum of several files, each with its weight.
    fn combined(&self, files: &[Arc<Loaded>], weights: &[f32]) -> Result<JobLoras, LoraError> {
        let mut adaptations = Vec::new();
        for (component, layers) in &self.graphs {
            let mut sums = Vec::with_capacity(layers.len());
            for (index, layer) in layers.iter().enumerate() {
                let of_file = |file: &'_ Arc<Loaded>| file.matched.layers.get(component)?.get(index)?.clone();
                let parts: Vec<(LowRank, f32)> = files
                    .iter()
                    .zip(weights)
                    .filter_map(|(file, weight)| Some((of_file(file)?, *weight)))
                    .collect();
                check_rank(&layer.module, parts.iter().map(|(part, _)| part.rank).sum(), self.max_rank)?;
                let parts: Vec<_> = parts.iter().map(|(part, weight)| (part, *weight)).collect();
                sums.push(LowRank::weighted_sum(&parts));
            }
            adaptations.push(Arc::new(Adaptation { layers: sums }));
        }
        let sha256: Vec<_> = files.iter().map(|file| file.sha256.clone()).collect();
        let key =
            sha256.iter().zip(weights).map(|(sha256, weight)| format!("{sha256} {weight:e} ")).collect();
        let network = adaptations.remove(0);
        Ok(JobLoras { network, text_encoders: adaptations, sha256, key })
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> LoraFault {
    LoraFault::Unreadable { path: path.to_owned(), error }
}

/// The value of a key, which becomes the latest one.
fn take_recent<K: PartialEq, V: Clone>(recent: &mut VecDeque<(K, V)>, key: &K) -> Option<V> {
    let index = recent.iter().position(|(own, _)| own == key)?;
    let entry = recent.remove(index)?;
    let value = entry.1.clone();
    recent.push_front(entry);
    Some(value)
}

fn keep_recent<K: PartialEq, V>(recent: &mut VecDeque<(K, Arc<V>)>, key: K, value: &Arc<V>) {
    recent.retain(|(own, _)| *own != key);
    recent.push_front((key, Arc::clone(value)));
    recent.truncate(RECENT);
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    use super::*;

    const MODULE: &str = "mid_block.attentions.0.proj_in";

    /// A LoRA of rank 1 whose a is 1 everywhere and whose b is `b` everywhere.
    fn write(path: &Path, b: f32) {
        let (ones, b) = (1.0_f32.to_le_bytes().repeat(2), b.to_le_bytes().repeat(3));
        let down = TensorView::new(Dtype::F32, vec![1, 2], &ones).unwrap();
        let up = TensorView::new(Dtype::F32, vec![3, 1], &b).unwrap();
        let names = ["A", "B"].map(|end| format!("unet.{MODULE}.lora_{end}.weight"));
        std::fs::write(path, serialize(names.into_iter().zip([down, up]), None).unwrap()).unwrap();
    }

    fn store(max_rank: usize) -> LoraStore {
        let layer = AdaptedLayer { module: MODULE.to_owned(), inputs: 2, outputs: 3 };
        LoraStore::new(vec![layer], Vec::new(), max_rank)
    }

    fn choice(path: &Path, weight: f64) -> LoraChoice {
        LoraChoice { name: "style".to_owned(), path: path.to_owned(), weight }
    }

    #[test]
    fn files_of_a_job_are_added_with_their_weights() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        write(&paths[0], 10.0);
        write(&paths[1], 100.0);
        let store = store(2);
        let choices = [choice(&paths[0], 0.5), choice(&paths[1], -1.0)];
        let loras = store.load(&choices).unwrap();
        let sum = loras.network.layers[0].as_ref().unwrap();
        assert_eq!((sum.rank, &sum.b[..]), (2, &[5.0, 5.0, 5.0, -100.0, -100.0, -100.0][..]));
        assert!(Arc::ptr_eq(&loras, &store.load(&choices).unwrap()), "the same job has the same matrices");
        let other = store.load(&[choice(&paths[0], 0.25)]).unwrap();
        assert_eq!(other.sha256[0], loras.sha256[0]);
        assert_ne!(other.key, loras.key);
    }

    #[test]
    fn a_file_that_changed_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("style");
        write(&path, 1.0);
        let store = store(8);
        let before = store.load(&[choice(&path, 1.0)]).unwrap();
        std::fs::remove_file(&path).unwrap();
        write(&path, 2.0);
        assert_ne!(store.load(&[choice(&path, 1.0)]).unwrap().sha256, before.sha256);
    }

    #[test]
    fn the_file_at_fault_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (good, missing) = (folder.path().join("good"), folder.path().join("missing"));
        write(&good, 1.0);
        let (index, fault) = store(8).load(&[choice(&good, 1.0), choice(&missing, 1.0)]).unwrap_err();
        assert_eq!(index, 1);
        assert!(fault.to_string().starts_with(&missing.display().to_string()), "{fault}");
        let (_, fault) = store(1).load(&[choice(&good, 1.0), choice(&good, 1.0)]).unwrap_err();
        assert!(
            fault.to_string().starts_with("the sum of the job's LoRAs: it has the rank 2 at "),
            "{fault}"
        );
        assert!(fault.to_string().ends_with("raise it, or use files of smaller ranks"), "{fault}");
        let without_inputs = LoraStore::new(Vec::new(), Vec::new(), 8);
        assert!(matches!(without_inputs.load(&[choice(&good, 1.0)]), Err((0, LoraFault::NoInputs))));
    }
}
