//! What a board tells of itself in files: its name, its memory, its libraries, its heat.
//!
//! Everything is read under one root directory, which tests replace by a tree of their own.

mod host;
mod jetson;
mod libraries;
mod thermal;

use std::path::{Path, PathBuf};

pub use jetson::{JetPack, Release};
pub use libraries::Library;
pub use thermal::{ThermalStatus, ThermalThrottle};

/// A machine, seen through its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    root: PathBuf,
}

impl Default for Platform {
    /// This machine.
    fn default() -> Self {
        Self::at("/")
    }
}

impl Platform {
    /// The machine whose files stand under this directory.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of the machine's stands.
    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// A file's text without the zeros and white space at its end, which the device tree and sysfs put there.
    pub fn text(&self, absolute: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(absolute)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
    }

    /// The board's name from its device tree, as `NVIDIA Jetson Orin Nano Developer Kit`.
    pub fn model(&self) -> Option<String> {
        self.text("/proc/device-tree/model").filter(|name| !name.is_empty())
    }

    /// What does a provider's arithmetic, for telling whether an engine fits: the board, the
    /// graphics cards and the processor.
    pub fn device(&self) -> String {
        let cards = self.entries("/proc/driver/nvidia/gpus").into_iter().filter_map(|card| {
            let information = std::fs::read_to_string(card.join("information")).ok()?;
            field(&information, "Model").map(str::to_owned)
        });
        let cpu = self.text("/proc/cpuinfo").unwrap_or_default();
        let cpu = field(&cpu, "model name").or_else(|| field(&cpu, "CPU part")).unwrap_or("");
        let parts = self.model().into_iter().chain(cards).chain([cpu.to_owned()]);
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Bytes of memory that a new allocation could get.
    pub fn available_memory(&self) -> Option<u64> {
        let memory = self.text("/proc/meminfo")?;
        let kibibytes: u64 = field(&memory, "MemAvailable")?.trim_end_matches(" kB").trim().parse().ok()?;
        Some(kibibytes << 10)
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        let groups = self.text("/etc/group")?;
        let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    }

    /// The numbers of the groups in which this process is.
    pub fn groups_of_this_process(&self) -> Vec<u32> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let numbers = |name: &str| {
            let found = field(&status, name).unwrap_or("").split_whitespace();
            found.filter_map(|number| number.parse().ok()).collect::<Vec<_>>()
        };
        [numbers("Gid"), numbers("Groups")].concat()
    }

    /// What a directory holds, in the order of names; nothing where it is not there.
    fn entries(&self, absolute: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path(absolute)) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// The name of a path's last part.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
