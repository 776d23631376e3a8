//! The host, as its files describe it: board, memory, groups, shared libraries, temperatures.
//!
//! All files are read under one root directory, which tests replace by a directory tree of their own.

mod access;
mod host;
mod jetson;
mod libraries;
mod memory;
mod nvidia_smi;
mod power;
mod service_unit;
mod tensorrt;
mod thermal;
mod user;

use std::path::{Path, PathBuf};

pub(crate) use access::{Access, AccessError, check_access};
pub(crate) use jetson::{JetPack, L4tRelease};
pub(crate) use nvidia_smi::{GpuReading, NvidiaSmi};
pub(crate) use power::{PowerRail, input_power};
pub(crate) use service_unit::ServiceUnit;
pub(crate) use thermal::ThermalThrottle;
pub(crate) use user::User;

/// The host, as its files describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    root: PathBuf,
}

impl Default for Platform {
    /// The machine that this process runs on.
    fn default() -> Self {
        Self::new("/")
    }
}

impl Platform {
    /// Reads the host's files under this directory.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Reads a text file, without the trailing zeros and white space of the device tree and sysfs.
    pub(crate) fn text(&self, absolute: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(absolute)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
    }

    /// Returns the board's name from the device tree, such as `NVIDIA Jetson Orin Nano Developer Kit`.
    pub(crate) fn model(&self) -> Option<String> {
        self.text("/proc/device-tree/model").filter(|name| !name.is_empty())
    }

    /// Returns the board, the GPUs and the CPU. A cached engine is only valid on the device that built it.
    pub(crate) fn device(&self) -> String {
        let gpus = self.entries("/proc/driver/nvidia/gpus").into_iter().filter_map(|gpu| {
            let information = std::fs::read_to_string(gpu.join("information")).ok()?;
            field(&information, "Model").map(str::to_owned)
        });
        let cpu = self.text("/proc/cpuinfo").unwrap_or_default();
        let cpu = field(&cpu, "model name").or_else(|| field(&cpu, "CPU part")).unwrap_or("");
        let parts = self.model().into_iter().chain(gpus).chain([cpu.to_owned()]);
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Returns the memory that a new allocation could get, in bytes.
    pub(crate) fn available_memory(&self) -> Option<u64> {
        kibibytes(&self.text("/proc/meminfo")?, "MemAvailable")
    }

    /// Returns the memory of the machine, in bytes.
    pub(crate) fn total_memory(&self) -> Option<u64> {
        kibibytes(&self.text("/proc/meminfo")?, "MemTotal")
    }

    /// Returns a directory's entries, sorted by name; none if it does not exist.
    fn entries(&self, absolute: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path(absolute)) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    }
}

/// Returns the value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// Returns the value of a line `name: value kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let kibibytes: u64 = field(text, name)?.trim_end_matches(" kB").trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
