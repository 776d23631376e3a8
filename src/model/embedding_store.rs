//! Embeddings of prompts on disk, so that a prompt that was encoded before needs no text encoder.
//!
//! An entry is found by the digest of everything that it depends on: the graph, the tokenizer, the text and how it is
//! encoded. It is written to a temporary file and renamed, and its own digest is checked when it is read. The order of
//! use is in a file, because a board's clock may jump.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::text_encoder::Embedding;
use crate::tensor::Tensor;

/// The folder of the entries in the cache directory.
const FOLDER: &str = "embeddings";
/// The largest size of all entries together in bytes, if the cache may have as many.
const MAX_BYTES: u64 = 256 << 20;
/// The names of the entries, the least recently used first.
const ORDER_FILE: &str = "order";
const DIGEST_LEN: usize = 32;

/// The embeddings in a cache directory.
#[derive(Debug, Clone)]
pub(super) struct EmbeddingStore {
    folder: PathBuf,
    max_bytes: u64,
}

/// The digest of everything that an embedding depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EmbeddingDigest(String);

impl EmbeddingDigest {
    /// The digest of these parts, in this order.
    pub(super) fn new<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            // With its length, so that no other parts have the same bytes.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(format!("{:x}", hasher.finalize()))
    }

    /// The digest in hexadecimal.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What precedes the values of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    key: String,
    rows: Vec<usize>,
    pooled: usize,
    truncated: Option<String>,
}

impl EmbeddingStore {
    /// The embeddings in a cache directory that keeps within a size in bytes.
    pub(super) fn new(cache: &Path, cache_size: u64) -> Self {
        Self { folder: cache.join(FOLDER), max_bytes: cache_size.min(MAX_BYTES) }
    }

    /// Reads an embedding. An entry that is damaged is removed.
    pub(super) fn load(&self, key: &EmbeddingDigest) -> Option<Embedding> {
        let path = self.path(key);
        let bytes = std::fs::read(&path).ok()?;
        let decoded = decode(key, &bytes);
        let followed = match &decoded {
            Some(_) => self.write_order(&self.order_with_last(&key.0)),
            None => {
                log::warn!("{}: the cached embedding is damaged; it is removed", path.display());
                std::fs::remove_file(&path)
            }
        };
        if let Err(error) = followed {
            log::debug!("{}: {error}", path.display());
        }
        decoded
    }

    /// Writes an embedding, and removes the least recently used ones beyond the size.
    pub(super) fn save(&self, key: &EmbeddingDigest, embedding: &Embedding) {
        let bytes = encode(key, embedding);
        if bytes.len() as u64 > self.max_bytes {
            return;
        }
        let write = || {
            std::fs::create_dir_all(&self.folder)?;
            let order = self.order_with_last(&key.0);
            let order = self.make_room(order, bytes.len() as u64)?;
            self.write(&key.0, &bytes)?;
            self.write_order(&order)
        };
        if let Err(error) = write() {
            log::debug!("{}: cannot cache an embedding: {error}", self.folder.display());
        }
    }

    fn path(&self, key: &EmbeddingDigest) -> PathBuf {
        self.folder.join(&key.0)
    }

    /// Writes a file that is complete or absent.
    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let file = NamedTempFile::new_in(&self.folder)?;
        std::fs::write(file.path(), bytes)?;
        file.persist(self.folder.join(name))?;
        Ok(())
    }

    /// The names of all entries, the least recently used first, with this one as the last. Those that another process
    /// wrote at the same time may be missing in the file, and come first.
    fn order_with_last(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(ORDER_FILE)).unwrap_or_default();
        let listed: Vec<&str> = text.lines().collect();
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|file| is_entry(file) && file != name).collect();
        names.sort_by_key(|name| listed.iter().position(|listed| listed == name));
        names.push(name.to_owned());
        names
    }

    fn write_order(&self, names: &[String]) -> std::io::Result<()> {
        self.write(ORDER_FILE, names.join("\n").as_bytes())
    }

    /// Removes the least recently used entries until there is room for the last one, which has this many bytes. Returns
    /// the names that are left.
    fn make_room(&self, mut names: Vec<String>, bytes: u64) -> std::io::Result<Vec<String>> {
        let len = |name: &String| std::fs::metadata(self.folder.join(name)).map_or(0, |file| file.len());
        let others = &names[..names.len().saturating_sub(1)];
        let mut total = others.iter().map(len).sum::<u64>() + bytes;
        let mut removed = 0;
        for name in others {
            if total <= self.max_bytes {
                break;
            }
            total -= len(name);
            std::fs::remove_file(self.folder.join(name))?;
            removed += 1;
        }
        names.drain(..removed);
        Ok(names)
    }
}

/// Whether a file has the name of an entry, a digest in hexadecimal.
fn is_entry(name: &str) -> bool {
    name.len() == 2 * DIGEST_LEN && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The header in JSON on a line, the values in little-endian order, and the digest of both.
fn encode(key: &EmbeddingDigest, embedding: &Embedding) -> Vec<u8> {
    let Embedding { rows, mask, pooled, truncated } = embedding;
    let header = Header {
        key: key.0.clone(),
        rows: rows.shape.clone(),
        pooled: pooled.len(),
        truncated: truncated.clone(),
    };
    let mut bytes = serde_json::to_vec(&header).unwrap_or_default();
    bytes.push(b'\n');
    for value in rows.data.iter().chain(mask).chain(pooled) {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

fn decode(key: &EmbeddingDigest, bytes: &[u8]) -> Option<Embedding> {
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_LEN)?)?;
    if Sha256::digest(content).as_slice() != digest {
        return None;
    }
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let Header { key: own, rows, pooled, truncated } = serde_json::from_slice(&content[..end]).ok()?;
    let [count, width] = rows[..] else { return None };
    let values: Vec<f32> = content[end + 1..]
        .chunks_exact(4)
        .filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)))
        .collect();
    if own != key.0 || values.len() != count * width + count + pooled {
        return None;
    }
    let (rows, rest) = values.split_at(count * width);
    let (mask, pooled) = rest.split_at(count);
    Some(Embedding {
        rows: Tensor::new([count, width], rows.to_vec()),
        mask: mask.to_vec(),
        pooled: pooled.to_vec(),
        truncated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(value: f32) -> Embedding {
        Embedding {
            rows: Tensor::new([2, 3], vec![value; 6]),
            mask: vec![1.0, 0.0],
            pooled: vec![0.5],
            truncated: Some("ä\nb".to_owned()),
        }
    }

    fn key(name: &str) -> EmbeddingDigest {
        EmbeddingDigest::new([name.as_bytes()])
    }

    #[test]
    fn an_embedding_is_found_by_its_digest_alone() {
        let cache = tempfile::tempdir().unwrap();
        let store = EmbeddingStore::new(cache.path(), u64::MAX);
        assert_eq!(store.load(&key("a")), None);
        store.save(&key("a"), &embedding(0.1));
        assert_eq!(store.load(&key("a")), Some(embedding(0.1)));
        assert_eq!(store.load(&key("b")), None);
        assert_ne!(EmbeddingDigest::new([&b"ab"[..], b""]), EmbeddingDigest::new([&b"a"[..], b"b"]));
    }

    #[test]
    fn a_damaged_entry_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let store = EmbeddingStore::new(cache.path(), u64::MAX);
        store.save(&key("a"), &embedding(0.1));
        let path = store.path(&key("a"));
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for bytes in [&changed[..], &whole[..whole.len() - 1], &[]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(store.load(&key("a")), None);
            assert!(!path.exists());
        }
        // An entry under another name is not that of its key.
        std::fs::write(store.path(&key("b")), &whole).unwrap();
        assert_eq!(store.load(&key("b")), None);
    }

    #[test]
    fn the_least_recently_used_entries_make_room() {
        let cache = tempfile::tempdir().unwrap();
        let one = encode(&key("a"), &embedding(0.0)).len() as u64;
        let store = EmbeddingStore::new(cache.path(), 2 * one);
        let names = ["a", "b", "c"];
        for name in names {
            store.save(&key(name), &embedding(0.0));
        }
        assert_eq!(names.map(|name| store.path(&key(name)).exists()), [false, true, true]);
        assert!(store.load(&key("b")).is_some());
        store.save(&key("d"), &embedding(0.0));
        assert_eq!(["b", "c", "d"].map(|name| store.path(&key(name)).exists()), [true, false, true]);
        EmbeddingStore::new(cache.path(), one - 1).save(&key("e"), &embedding(0.0));
        assert!(!store.path(&key("e")).exists());
    }
}
