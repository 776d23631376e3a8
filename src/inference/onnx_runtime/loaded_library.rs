//! The versions of the libraries that this process has loaded.

/// Returns the version in the name of a loaded library's file, by its name without a version.
pub(super) fn loaded_version(name: &str) -> Option<String> {
    version_in(&std::fs::read_to_string("/proc/self/maps").ok()?, name)
}

fn version_in(maps: &str, name: &str) -> Option<String> {
    // 7f5c00000000-7f5c00100000 r--p 00000000 08:01 123   /usr/lib/libnvinfer.so.10.3.0
    maps.lines().find_map(|line| {
        let (_, file) = line.rsplit_once('/')?;
        let version = file.strip_prefix(name)?.strip_prefix('.')?;
        Some(version.trim_end_matches(" (deleted)").to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_of_the_mapped_file() {
        let maps = "5581d2c00000-5581d2c01000 r--p 00000000 08:01 1 /usr/bin/denoised\n\
                    7f5c00000000-7f5c00100000 r--p 00000000 08:01 2 /usr/lib/libnvinfer_plugin.so.11.9.9\n\
                    7f5c00200000-7f5c00300000 r-xp 00000000 08:01 3 /usr/lib/libnvinfer.so.11.1.0\n\
                    7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(version_in(maps, "libnvinfer.so").as_deref(), Some("11.1.0"));
        assert_eq!(version_in(maps, "libopenvino.so"), None);
        assert_eq!(loaded_version("libnvinfer.so"), None);
    }
}
