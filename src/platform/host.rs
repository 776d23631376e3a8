//! The platform as the machine on which engines are built.

use super::{Platform, tensorrt};
use crate::inference::Host;

impl Host for Platform {
    fn device(&self) -> String {
        self.device()
    }

    fn available_memory(&self) -> Option<u64> {
        self.available_memory()
    }

    fn library_version(&self, file: &str) -> Option<String> {
        match file {
            tensorrt::LIBRARY => self.tensorrt(None).version,
            _ => self.library(file).map(|library| library.version),
        }
    }
}
