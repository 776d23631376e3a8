//! The platform as the machine on which engines are built.

use super::Platform;
use crate::inference::Host;

impl Host for Platform {
    fn device(&self) -> String {
        self.device()
    }

    fn available_memory(&self) -> Option<u64> {
        self.available_memory()
    }

    fn library_version(&self, file: &str) -> Option<String> {
        self.library(file).map(|library| library.version)
    }
}
