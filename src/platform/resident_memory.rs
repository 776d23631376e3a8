//! The resident memory of this process.

use super::kibibytes;

/// The resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResidentMemory {
    /// At present.
    pub(crate) current: u64,
    /// The largest since the process started.
    pub(crate) peak: u64,
}

impl ResidentMemory {
    /// Reads the memory of this process; `None` if the kernel does not report it.
    pub(crate) fn of_this_process() -> Option<Self> {
        Self::from_status(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn from_status(status: &str) -> Option<Self> {
        Some(Self { current: kibibytes(status, "VmRSS")?, peak: kibibytes(status, "VmHWM")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_read_in_bytes() {
        let status = "Name:\tdenoised\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = ResidentMemory { current: 1 << 20, peak: 2 << 20 };
        assert_eq!(ResidentMemory::from_status(status), Some(expected));
        assert_eq!(ResidentMemory::from_status("Name:\tdenoised\n"), None);
        assert!(ResidentMemory::of_this_process().is_some_and(|memory| memory.current <= memory.peak));
    }
}
