//! The board: its model, power mode, temperature and NVIDIA's libraries.

use super::finding::Finding;
use crate::platform::{JetPack, L4tRelease, Platform};

pub(super) fn findings(platform: &Platform) -> Vec<Finding> {
    let release = platform.l4t_release();
    let mut findings = vec![model(platform, release.as_ref())];
    if platform.l4t_release().is_some() {
        findings.push(power_mode(platform));
    }
    findings.push(temperature(platform));
    findings.extend(libraries(platform, release.and_then(|release| release.jetpack)));
    findings
}

fn model(platform: &Platform, release: Option<&L4tRelease>) -> Finding {
    let name = platform.model().unwrap_or_else(|| platform.device());
    match release {
        Some(L4tRelease { version: l4t, jetpack: Some(jetpack) }) => {
            Finding::good("board", format!("{name}, {jetpack} (Linux for Tegra {l4t})"))
        }
        Some(L4tRelease { version: l4t, jetpack: None }) => Finding::note(
            "board",
            format!("{name}, Linux for Tegra {l4t}, which is older than JetPack 5"),
            "flash JetPack 5 or later with NVIDIA's SDK Manager; the glibc of older releases is too old",
        ),
        None => Finding::note(
            "board",
            format!("{name}, not a Jetson (there is no /etc/nv_tegra_release)"),
            "nothing to do; the lines below show which providers work here",
        ),
    }
}

fn power_mode(platform: &Platform) -> Finding {
    match platform.power_mode() {
        Some(mode) if mode.starts_with("MAXN") => Finding::good("power mode", mode),
        Some(mode) => {
            Finding::note("power mode", mode, "for maximum speed: sudo nvpmodel -m 0 && sudo jetson_clocks")
        }
        None => Finding::note("power mode", "nvpmodel has not set one", "set one: sudo nvpmodel -m 0"),
    }
}

fn temperature(platform: &Platform) -> Finding {
    let status = platform.thermal_status();
    let Some(hottest) = status.hottest() else {
        return Finding::note(
            "temperature",
            "there is no thermal zone",
            "nothing to do: [board] pause_above_c has no effect",
        );
    };
    if status.throttles.is_empty() {
        return Finding::good(
            "temperature",
            format!("{hottest:.0} °C in the hottest of {} zones", status.zones.len()),
        );
    }
    let next = "cool the board (sudo jetson_clocks --fan), or select a lower power mode";
    Finding::note(
        "temperature",
        format!("{hottest:.0} °C, throttled by {}", status.throttles.join(", ")),
        next,
    )
}

/// Checks NVIDIA's libraries, which ONNX Runtime's providers load, on a Jetson.
fn libraries(platform: &Platform, jetpack: Option<JetPack>) -> Vec<Finding> {
    let Some(jetpack) = jetpack else {
        return Vec::new();
    };
    // The library's package in the repository of JetPack 5, 6 and 7.
    let required = [
        ("CUDA", "libcudart.so", ["cuda-libraries-11-4", "cuda-libraries-12-6", "cuda-libraries-13-0"]),
        ("cuBLAS", "libcublas.so", ["libcublas-11-4", "libcublas-12-6", "libcublas-13-0"]),
        ("cuDNN", "libcudnn.so", ["libcudnn8", "libcudnn9-cuda-12", "libcudnn9-cuda-13"]),
        ("TensorRT", "libnvinfer.so", ["libnvinfer8", "libnvinfer10", "libnvinfer10"]),
        (
            "TensorRT parser",
            "libnvonnxparser.so",
            ["libnvonnxparsers8", "libnvonnxparsers10", "libnvonnxparsers10"],
        ),
    ];
    let package = |packages: [&'static str; 3]| match jetpack {
        JetPack::Five => packages[0],
        JetPack::Six => packages[1],
        JetPack::Seven => packages[2],
    };
    required
        .into_iter()
        .map(|(name, file, packages)| match platform.library(file) {
            Some(library) => Finding::good(name, format!("{} ({})", library.version, library.path.display())),
            None => {
                let next = format!("sudo apt install {} (or everything: nvidia-jetpack)", package(packages));
                Finding::missing(name, format!("{file} is not installed"), next)
            }
        })
        .collect()
}
