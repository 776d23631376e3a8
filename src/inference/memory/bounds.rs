//! What bounds the memory of this process, and the share of it that sessions may take.

use crate::units::binary_size;

/// The percentage of the free memory that [`MemoryBounds::budget`] gives to sessions. The rest is for pictures, messages
/// and other programs.
const BUDGET_PERCENT: u64 = 80;

/// The bytes of memory that this process can still get, by each of its bounds. `None`: not bounded, or not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryBounds {
    /// What the machine has available. On a board this is also the GPU's memory.
    pub machine: Option<u64>,
    /// What the control groups of this process leave.
    pub cgroup: Option<u64>,
    /// What the limit of the address space leaves.
    pub address_space: Option<u64>,
}

/// The resident memory of this process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidentMemory {
    /// What no file holds, so that the system cannot drop it.
    pub anonymous: u64,
    /// All of it.
    pub total: u64,
    /// The largest total since the start.
    pub peak: u64,
}

impl MemoryBounds {
    /// The smallest bound.
    pub fn free(&self) -> Option<u64> {
        [self.machine, self.cgroup, self.address_space].into_iter().flatten().min()
    }

    /// The memory for sessions: a share of what is free.
    pub fn budget(&self) -> Option<u64> {
        self.free().map(|free| free / 100 * BUDGET_PERCENT)
    }
}

impl std::fmt::Display for MemoryBounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let free = self.free();
        let name = match free {
            None => return f.write_str("memory that is not bounded"),
            Some(_) if self.machine == free => "available on this machine",
            Some(_) if self.cgroup == free => "left by the control group's memory limit",
            Some(_) => "left by the address space limit (ulimit -v)",
        };
        write!(f, "{} {name}", binary_size(free.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_budget_is_a_share_of_the_smallest_bound() {
        let all =
            MemoryBounds { machine: Some(8 * GIB), cgroup: Some(6 * GIB), address_space: Some(7 * GIB) };
        assert_eq!(all.free(), Some(6 * GIB));
        assert_eq!(all.budget(), Some(6 * GIB / 100 * 80));
        assert_eq!(all.to_string(), "6.0 GiB left by the control group's memory limit");
        let address_space = MemoryBounds { address_space: Some(2 * GIB), ..all };
        assert_eq!(address_space.to_string(), "2.0 GiB left by the address space limit (ulimit -v)");
        assert_eq!(MemoryBounds::default().budget(), None);
    }
}
