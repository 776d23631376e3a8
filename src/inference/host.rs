//! What execution providers need to know about the machine.

/// What execution providers need to know about the machine.
pub trait Host: std::fmt::Debug + Send + Sync {
    /// The board, the GPUs and the CPU; a cached engine is only valid on the device that built it.
    fn device(&self) -> String;

    /// The memory that a new allocation could get, in bytes, if known.
    fn available_memory(&self) -> Option<u64>;

    /// The version of an installed library, such as `libnvinfer.so`.
    fn library_version(&self, name: &str) -> Option<String>;
}

/// A machine of which nothing is known.
#[derive(Debug, Clone, Copy)]
pub struct UnknownHost;

impl Host for UnknownHost {
    fn device(&self) -> String {
        String::new()
    }

    fn available_memory(&self) -> Option<u64> {
        None
    }

    fn library_version(&self, _: &str) -> Option<String> {
        None
    }
}
