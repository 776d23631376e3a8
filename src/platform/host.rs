//! The platform as the machine on which engines are built.

use std::path::Path;

use super::{Platform, tensorrt};
use crate::inference::{Host, MemoryBounds, ResidentMemory};

impl Host for Platform {
    fn device(&self) -> String {
        self.device()
    }

    fn available_memory(&self) -> Option<u64> {
        self.available_memory()
    }

    fn memory_bounds(&self) -> MemoryBounds {
        self.memory_bounds()
    }

    fn resident_memory(&self) -> Option<ResidentMemory> {
        self.resident_memory()
    }

    fn library_version(&self, file: &str, onnxruntime: Option<&Path>) -> Option<String> {
        match file {
            tensorrt::LIBRARY => self.tensorrt(onnxruntime).version,
            _ => self.library(file).map(|library| library.version),
        }
    }
}
