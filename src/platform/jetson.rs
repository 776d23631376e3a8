//! The JetPack release and the power mode of a Jetson.

use super::Platform;

/// The major version of JetPack, NVIDIA's software for Jetson boards. It determines the versions of CUDA and TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JetPack {
    /// L4T 35: Ubuntu 20.04, CUDA 11.4, TensorRT 8.5.
    Five,
    /// L4T 36: Ubuntu 22.04, CUDA 12, TensorRT 8.6 (6.0) or 10.3 (6.1 and 6.2).
    Six,
    /// L4T 38 and later: Ubuntu 24.04, CUDA 13, TensorRT 10.
    Seven,
}

/// The release of Linux for Tegra (L4T).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct L4tRelease {
    /// The version, such as `36.4.3`.
    pub(crate) version: String,
    /// Its JetPack; `None` if older than JetPack 5.
    pub(crate) jetpack: Option<JetPack>,
}

impl std::fmt::Display for JetPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Five => "JetPack 5",
            Self::Six => "JetPack 6",
            Self::Seven => "JetPack 7",
        })
    }
}

impl JetPack {
    /// Returns the newest ONNX Runtime that is reported to work on it.
    pub(crate) fn newest_onnxruntime(self) -> &'static str {
        match self {
            Self::Five => "1.18",
            Self::Six => "1.23",
            Self::Seven => "1.24",
        }
    }
}

impl Platform {
    /// Reads the L4T release; `None` if this is not a Jetson.
    pub(crate) fn l4t_release(&self) -> Option<L4tRelease> {
        // # R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, …
        let text = self.text("/etc/nv_tegra_release")?;
        let line = text.lines().find(|line| line.starts_with("# R"))?;
        let major = line.trim_start_matches("# R").split(' ').next()?;
        let minor = line.split("REVISION:").nth(1)?.split(',').next()?.trim();
        let jetpack = match major.parse::<u32>().ok()? {
            35 => Some(JetPack::Five),
            36 => Some(JetPack::Six),
            38.. => Some(JetPack::Seven),
            _ => None,
        };
        Some(L4tRelease { version: format!("{major}.{minor}"), jetpack })
    }

    /// Returns the name of the power mode, from the state and the configuration of nvpmodel.
    pub(crate) fn power_mode(&self) -> Option<String> {
        let status = self.text("/var/lib/nvpmodel/status")?;
        let id = status.trim().strip_prefix("pmode:")?.trim_start_matches('0');
        let id = if id.is_empty() { "0" } else { id };
        let names = self.text("/etc/nvpmodel.conf").unwrap_or_default();
        // < POWER_MODEL ID=0 NAME=MAXN >
        let name = names.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("< POWER_MODEL ")?;
            let mut fields = rest.split_whitespace();
            (fields.next()? == format!("ID={id}")).then_some(())?;
            fields.next()?.strip_prefix("NAME=").map(str::to_owned)
        });
        Some(name.unwrap_or_else(|| format!("number {id}")))
    }
}
