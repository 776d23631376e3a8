//! The list of an entry's files with their checksums.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksums::Checksums;

const FILE: &str = "manifest.json";

/// What an entry contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) graph: GraphKind,
    /// The checksums of all files except this one and the key.
    pub(super) files: BTreeMap<String, Checksums>,
}

/// How the graph in an entry is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GraphKind {
    /// Its weights are beside it.
    OwnWeights,
    /// It refers to the weights of the export.
    ExportedWeights,
    /// There is none: its output was not that of the exported graph.
    Unfit {
        /// How it differed.
        difference: String,
    },
}

impl Manifest {
    /// Writes the manifest to the directory of an entry.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::write(directory.join(FILE), serde_json::to_vec(self)?)
    }

    /// Reads the manifest of an entry and compares all files with it. Fails with what is wrong with the entry.
    pub(super) fn read_and_verify(directory: &Path, others: &[&str]) -> Result<Self, String> {
        let text = std::fs::read(directory.join(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| format!("{FILE}: {error}"))?;
        let files = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
        for file in files {
            let name = file.map_err(|error| error.to_string())?.file_name();
            let name = name.to_string_lossy();
            if name != FILE && !others.contains(&&*name) && !manifest.files.contains_key(&*name) {
                return Err(format!("{name} is not its file"));
            }
        }
        let start = std::time::Instant::now();
        for (name, sums) in &manifest.files {
            let fault = sums.fault(&directory.join(name)).map_err(|error| format!("{name}: {error}"))?;
            fault.map_or(Ok(()), Err)?;
        }
        log::debug!("{}: compared with its checksums in {:.1?}", directory.display(), start.elapsed());
        Ok(manifest)
    }
}
