//! The embeddings of one text encoder, in memory and on disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::embedding_store::{EmbeddingDigest, EmbeddingStore};
use super::text_encoder::{Embedding, Layer};
use crate::inference::{Backend, EngineOptions, GraphDigest, ProvenBackend};

/// The number of embeddings that are cached in memory.
const EMBEDDING_CACHE_LEN: usize = 32;

/// The files that decide how a text is tokenized.
const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// What tells an embedding of a text encoder from its others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EmbeddingKey {
    /// The prompt with the texts around it.
    pub(super) text: [String; 3],
    pub(super) layer: Layer,
    /// The number of tokens.
    pub(super) length: usize,
    /// The LoRAs. Empty without any.
    pub(super) loras: String,
}

/// The embeddings of one text encoder.
pub(super) struct EmbeddingCache {
    recent: Mutex<LruCache>,
    store: EmbeddingStore,
    encoder: EncoderIdentity,
}

/// What an embedding depends on besides its text.
pub(super) struct EncoderIdentity {
    pub(super) graph: GraphDigest,
    /// The configuration beside the graph, and the files of the tokenizer.
    pub(super) files: Vec<PathBuf>,
    /// How the pipeline reads the encoder.
    pub(super) reading: String,
    /// The options of the engine that change numbers.
    pub(super) options: String,
    /// The backend that is tried first.
    pub(super) planned: Backend,
    /// The backend of the network, once it was evaluated. The encoder runs on it, or on one after it.
    pub(super) network: ProvenBackend,
    /// The backend of the encoder, once it was evaluated.
    pub(super) proven: ProvenBackend,
    digest_of_files: OnceLock<Option<EmbeddingDigest>>,
}

impl EncoderIdentity {
    pub(super) fn new(
        graph: GraphDigest,
        files: Vec<PathBuf>,
        reading: String,
        options: &EngineOptions,
        planned: Backend,
        (network, proven): (ProvenBackend, ProvenBackend),
    ) -> Self {
        let options = format!("{:?} {}", options.provider, options.rewrite);
        let digest_of_files = OnceLock::new();
        Self { graph, files, reading, options, planned, network, proven, digest_of_files }
    }

    /// The files of a tokenizer's directory that decide how a text is tokenized.
    pub(super) fn tokenizer_files(directory: &std::path::Path) -> impl Iterator<Item = PathBuf> {
        TOKENIZER_FILES.into_iter().map(|file| directory.join(file))
    }

    /// The backend on which the encoder is expected to run.
    fn backend(&self) -> &Backend {
        self.proven.get().or(self.network.get()).unwrap_or(&self.planned)
    }

    /// Whether the encoder runs on this backend, so that embeddings are those of the backend in their digest.
    fn runs_on(&self, backend: &Backend) -> bool {
        self.proven.get().is_some_and(|proven| {
            (proven.engine, &proven.version, &proven.provider)
                == (backend.engine, &backend.version, &backend.provider)
        })
    }

    /// The digest of an embedding on a backend. `None` if a file cannot be read.
    fn digest(&self, key: &EmbeddingKey, backend: &Backend) -> Option<EmbeddingDigest> {
        let files = self.digest_of_files.get_or_init(|| digest_of_files(&self.files)).as_ref()?;
        let graph = (self.graph)().ok()?;
        let EmbeddingKey { text, layer, length, loras } = key;
        let settings = format!("{layer:?} {length} {} {} {loras}", self.reading, self.options);
        let parts = [
            env!("CARGO_PKG_VERSION"),
            backend.engine,
            &backend.version,
            &backend.provider,
            &graph,
            files.as_str(),
            &settings,
        ];
        let texts = text.iter().map(String::as_str);
        Some(EmbeddingDigest::new(parts.into_iter().chain(texts).map(str::as_bytes)))
    }
}

impl EmbeddingCache {
    pub(super) fn new(store: EmbeddingStore, encoder: EncoderIdentity) -> Self {
        Self { recent: Mutex::default(), store, encoder }
    }

    /// The embedding for a key, or else the one that `encode` makes.
    pub(super) fn get_or_encode<E>(
        &self,
        key: EmbeddingKey,
        encode: impl FnOnce() -> Result<Embedding, E>,
    ) -> Result<Embedding, E> {
        if let Some(embedding) = self.recent().get(&key) {
            return Ok(embedding);
        }
        let backend = self.encoder.backend().clone();
        let digest = self.encoder.digest(&key, &backend);
        let stored = digest.as_ref().and_then(|digest| self.store.load(digest));
        let embedding = match stored {
            Some(embedding) => embedding,
            None => {
                let embedding = encode()?;
                if let Some(digest) = digest.filter(|_| self.encoder.runs_on(&backend)) {
                    self.store.save(&digest, &embedding);
                }
                embedding
            }
        };
        self.recent().insert(key, embedding.clone());
        Ok(embedding)
    }

    fn recent(&self) -> MutexGuard<'_, LruCache> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of the names and contents of files. Files that do not exist count too.
fn digest_of_files(files: &[PathBuf]) -> Option<EmbeddingDigest> {
    let mut parts = Vec::new();
    for file in files {
        let content = match std::fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            content => Some(content.ok()?),
        };
        parts.push(vec![u8::from(content.is_some())]);
        parts.push(content.unwrap_or_default());
    }
    Some(EmbeddingDigest::new(parts.iter().map(Vec::as_slice)))
}

/// The most recently used embeddings, the latest last.
#[derive(Default)]
struct LruCache(VecDeque<(EmbeddingKey, Embedding)>);

impl LruCache {
    fn get(&mut self, key: &EmbeddingKey) -> Option<Embedding> {
        let index = self.0.iter().position(|(cached, _)| cached == key)?;
        let entry = self.0.remove(index)?;
        let embedding = entry.1.clone();
        self.0.push_back(entry);
        Some(embedding)
    }

    fn insert(&mut self, key: EmbeddingKey, embedding: Embedding) {
        // Another thread may have encoded the same prompt.
        self.0.retain(|(cached, _)| *cached != key);
        if self.0.len() == EMBEDDING_CACHE_LEN {
            self.0.pop_front();
        }
        self.0.push_back((key, embedding));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::tensor::Tensor;

    fn key(text: &str) -> EmbeddingKey {
        let text = [text.to_owned(), String::new(), String::new()];
        EmbeddingKey { text, layer: Layer::Last, length: 77, loras: String::new() }
    }

    fn embedding(value: f32) -> Embedding {
        Embedding {
            rows: Tensor::new([1, 1], vec![value]),
            mask: vec![1.0],
            pooled: Vec::new(),
            truncated: None,
        }
    }

    fn cache(directory: &Path, graph: &'static str, provider: &str) -> EmbeddingCache {
        let backend = |provider: &str| Backend::new("embedded", "1".to_owned(), provider.to_owned());
        let encoder = EncoderIdentity {
            graph: Arc::new(move || Ok(graph.to_owned())),
            files: vec![directory.join("tokenizer.json")],
            reading: String::new(),
            options: String::new(),
            planned: backend("cpu"),
            network: ProvenBackend::default(),
            proven: Arc::new(OnceLock::from(backend(provider))),
            digest_of_files: OnceLock::new(),
        };
        EmbeddingCache::new(EmbeddingStore::new(directory, u64::MAX), encoder)
    }

    /// The embedding of a text, and whether it was encoded.
    fn found(cache: &EmbeddingCache, text: &str, value: f32) -> (Embedding, bool) {
        let mut is_encoded = false;
        let embedding = cache.get_or_encode(key(text), || {
            is_encoded = true;
            Ok::<_, Infallible>(embedding(value))
        });
        (embedding.unwrap(), is_encoded)
    }

    #[test]
    fn an_embedding_is_encoded_once_for_all_processes() {
        let directory = tempfile::tempdir().unwrap();
        let first = cache(directory.path(), "a", "cpu");
        assert_eq!(found(&first, "fox", 1.0), (embedding(1.0), true));
        assert_eq!(found(&first, "fox", 2.0), (embedding(1.0), false));
        assert_eq!(found(&cache(directory.path(), "a", "cpu"), "fox", 2.0), (embedding(1.0), false));
        // Another graph, another provider and another tokenizer have other embeddings.
        assert!(found(&cache(directory.path(), "b", "cpu"), "fox", 2.0).1);
        assert!(found(&cache(directory.path(), "a", "cuda"), "fox", 2.0).1);
        std::fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
        assert!(found(&cache(directory.path(), "a", "cpu"), "fox", 2.0).1);
    }

    #[test]
    fn the_least_recently_used_embedding_leaves_the_cache() {
        let mut cache = LruCache::default();
        for i in 0..EMBEDDING_CACHE_LEN {
            cache.insert(key(&i.to_string()), embedding(i as f32));
        }
        assert_eq!(cache.get(&key("0")), Some(embedding(0.0)));
        cache.insert(key("99"), embedding(99.0));
        assert_eq!((cache.get(&key("0")), cache.get(&key("1"))), (Some(embedding(0.0)), None));
        // Inserted once more, an embedding takes no further room.
        cache.insert(key("0"), embedding(0.0));
        assert_eq!(cache.0.len(), EMBEDDING_CACHE_LEN);
    }
}
