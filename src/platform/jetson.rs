//! Which JetPack a Jetson runs.

use super::Platform;

/// NVIDIA's software for Jetson boards, by its first number; each has a CUDA and a TensorRT of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JetPack {
    /// Linux for Tegra 35: Ubuntu 20.04, CUDA 11.4, TensorRT 8.5.
    Five,
    /// Linux for Tegra 36: Ubuntu 22.04, CUDA 12, TensorRT 8.6 (6.0) or 10.3 (6.1 and 6.2).
    Six,
    /// Linux for Tegra 38 and later: Ubuntu 24.04, CUDA 13, TensorRT 10.
    Seven,
}

/// What /etc/nv_tegra_release says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Linux for Tegra's version, as `36.4.3`.
    pub l4t: String,
    /// The JetPack to which it belongs, where that is known here.
    pub jetpack: Option<JetPack>,
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
    /// The newest ONNX Runtime that people report to work with it.
    pub fn newest_onnxruntime(self) -> &'static str {
        match self {
            Self::Five => "1.18",
            Self::Six => "1.23",
            Self::Seven => "1.24",
        }
    }
}

impl Platform {
    /// The release of Linux for Tegra, on a Jetson.
    pub fn release(&self) -> Option<Release> {
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
        Some(Release { l4t: format!("{major}.{minor}"), jetpack })
    }

    /// The power mode, from the state that nvpmodel keeps and the names that its configuration gives.
    pub fn power_mode(&self) -> Option<String> {
        let status = self.text("/var/lib/nvpmodel/status")?;
        let id = status.trim().strip_prefix("pmode:")?.trim_start_matches('0');
        let id = if id.is_empty() { "0" } else { id };
        let names = self.text("/etc/nvpmodel.conf").unwrap_or_default();
        // < POWER_MODEL ID=0 NAME=MAXN >
        let name = names.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("< POWER_MODEL ")?;
            let mut words = rest.split_whitespace();
            (words.next()? == format!("ID={id}")).then_some(())?;
            words.next()?.strip_prefix("NAME=").map(str::to_owned)
        });
        Some(name.unwrap_or_else(|| format!("number {id}")))
    }
}
