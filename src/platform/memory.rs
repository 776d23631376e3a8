//! How much memory this process can get, and how much of it is resident.

use super::{Platform, kibibytes};
use crate::inference::{MemoryBounds, ResidentMemory};

/// Where version 1 and version 2 of control groups mount the memory controller.
const CGROUP_V1: &str = "/sys/fs/cgroup/memory";
const CGROUP_V2: &str = "/sys/fs/cgroup";

/// The files of a control group.
struct CgroupFiles {
    root: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The entry of `memory.stat` with the file cache that the kernel drops first.
    reclaimable: &'static str,
}

const V1_FILES: CgroupFiles = CgroupFiles {
    root: CGROUP_V1,
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const V2_FILES: CgroupFiles = CgroupFiles {
    root: CGROUP_V2,
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file",
};

impl Platform {
    /// Returns what bounds the memory of this process: the machine, its control groups, and `ulimit -v`.
    pub(crate) fn memory_bounds(&self) -> MemoryBounds {
        MemoryBounds {
            machine: self.available_memory(),
            cgroup: self.free_in_cgroups(),
            address_space: self.free_address_space(),
        }
    }

    /// Returns the resident memory of this process.
    pub(crate) fn resident_memory(&self) -> Option<ResidentMemory> {
        let status = self.text("/proc/self/status")?;
        let bytes = |name: &str| kibibytes(&status, name);
        Some(ResidentMemory { anonymous: bytes("RssAnon")?, total: bytes("VmRSS")?, peak: bytes("VmHWM")? })
    }

    /// The memory that the tightest control group of this process still allows, without the file cache that the kernel
    /// drops when memory is short.
    fn free_in_cgroups(&self) -> Option<u64> {
        let groups = self.text("/proc/self/cgroup")?;
        let free = groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            match controllers {
                "" => self.free_along(path, &V2_FILES),
                names if names.split(',').any(|name| name == "memory") => self.free_along(path, &V1_FILES),
                _ => None,
            }
        });
        free.min()
    }

    /// The smallest of what a group and the groups around it still allow. In a container the path may be the host's, and
    /// only the root of the mount exists.
    fn free_along(&self, path: &str, files: &CgroupFiles) -> Option<u64> {
        let groups = std::path::Path::new(path).ancestors();
        groups.filter_map(|group| self.free_in(&group.to_string_lossy(), files)).min()
    }

    fn free_in(&self, group: &str, files: &CgroupFiles) -> Option<u64> {
        let directory = format!("{}{}", files.root, group.trim_end_matches('/'));
        let number = |file: &str| self.text(&format!("{directory}/{file}"))?.parse::<u64>().ok();
        // "max" of version 2 is no number. Version 1 states no limit as a number near 2^63.
        let limit = number(files.limit).filter(|limit| *limit < 1 << 60)?;
        let statistics = self.text(&format!("{directory}/memory.stat")).unwrap_or_default();
        let entry =
            statistics.lines().find_map(|line| line.strip_prefix(files.reclaimable)?.strip_prefix(' '));
        let reclaimable = entry.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        let used = number(files.usage).unwrap_or(0).saturating_sub(reclaimable);
        Some(limit.saturating_sub(used))
    }

    /// What `ulimit -v` leaves of the address space.
    fn free_address_space(&self) -> Option<u64> {
        let limits = self.text("/proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
        let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
        let used = kibibytes(&self.text("/proc/self/status")?, "VmSize")?;
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Platform) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let platform = Platform::new(root.path());
        (root, platform)
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 800 kB\nMemAvailable: 500 kB\n");
    const STATUS: (&str, &str) = (
        "proc/self/status",
        "VmSize:\t   20 kB\nVmHWM:\t   9 kB\nVmRSS:\t   7 kB\nRssAnon:\t   4 kB\nRssFile:\t   3 kB\n",
    );

    #[test]
    fn a_machine_without_limits_offers_what_is_available() {
        let (_root, platform) = machine(&[MEMINFO, ("proc/self/cgroup", "0::/user.slice\n"), STATUS]);
        let machine = Some(500 << 10);
        assert_eq!(platform.memory_bounds(), MemoryBounds { machine, cgroup: None, address_space: None });
    }

    #[test]
    fn the_tightest_group_of_version_2_counts_without_its_file_cache() {
        let (_root, platform) = machine(&[
            ("proc/self/cgroup", "0::/system.slice/denoised.service\n"),
            ("sys/fs/cgroup/system.slice/denoised.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "6000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "5000\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 100\ninactive_file 4500\nactive_file 1\n"),
            ("sys/fs/cgroup/memory.max", "7000\n"),
            ("sys/fs/cgroup/memory.current", "900\n"),
        ]);
        assert_eq!(platform.memory_bounds().cgroup, Some(5500));
    }

    #[test]
    fn a_container_of_version_1_has_its_limit_at_the_root() {
        let (_root, platform) = machine(&[
            ("proc/self/cgroup", "12:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n"),
        ]);
        assert_eq!(platform.memory_bounds().cgroup, Some(1500));
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let (_root, platform) = machine(&[("proc/self/cgroup", "4:memory:/\n"), unlimited]);
        assert_eq!(platform.memory_bounds().cgroup, None);
    }

    #[test]
    fn the_limit_of_the_address_space_counts_without_what_is_mapped() {
        let line = |limit: &str| {
            format!("Limit  Soft  Hard\nMax address space         {limit}   unlimited   bytes\n")
        };
        let (_root, platform) = machine(&[STATUS, ("proc/self/limits", &line("102400"))]);
        assert_eq!(platform.memory_bounds().address_space, Some(80 << 10));
        let (_root, platform) = machine(&[STATUS, ("proc/self/limits", &line("unlimited"))]);
        assert_eq!(platform.memory_bounds().address_space, None);
    }

    #[test]
    fn the_resident_memory_is_read_from_the_status() {
        let (_root, platform) = machine(&[STATUS]);
        let expected = ResidentMemory { anonymous: 4096, total: 7168, peak: 9216 };
        assert_eq!(platform.resident_memory(), Some(expected));
        assert!(Platform::default().resident_memory().is_some_and(|own| own.peak >= own.total));
    }
}
