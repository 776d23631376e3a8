//! The board: which it is, its power and heat, NVIDIA's libraries.

use super::finding::Finding;
use crate::platform::{JetPack, L4tRelease, Platform};

pub(super) fn findings(board: &Platform) -> Vec<Finding> {
    let release = board.l4t_release();
    let mut findings = vec![model(board, release.as_ref())];
    if board.l4t_release().is_some() {
        findings.push(power(board));
    }
    findings.push(heat(board));
    findings.extend(libraries(board, release.and_then(|release| release.jetpack)));
    findings
}

fn model(board: &Platform, release: Option<&L4tRelease>) -> Finding {
    let name = board.model().unwrap_or_else(|| board.device());
    match release {
        Some(L4tRelease { version: l4t, jetpack: Some(jetpack) }) => {
            Finding::good("board", format!("{name}, {jetpack} (Linux for Tegra {l4t})"))
        }
        Some(L4tRelease { version: l4t, jetpack: None }) => Finding::note(
            "board",
            format!("{name}, Linux for Tegra {l4t}, which is older than JetPack 5"),
            "flash JetPack 5 or later with NVIDIA's SDK Manager; what is older has a glibc that is too old",
        ),
        None => Finding::note(
            "board",
            format!("{name}, no Jetson (there is no /etc/nv_tegra_release)"),
            "nothing to do; the lines below tell which provider serves here",
        ),
    }
}

fn power(board: &Platform) -> Finding {
    match board.power_mode() {
        Some(mode) if mode.starts_with("MAXN") => Finding::good("power mode", mode),
        Some(mode) => Finding::note(
            "power mode",
            mode,
            "for the greatest speed: sudo nvpmodel -m 0 && sudo jetson_clocks",
        ),
        None => Finding::note("power mode", "nvpmodel has kept none", "choose one: sudo nvpmodel -m 0"),
    }
}

fn heat(board: &Platform) -> Finding {
    let heat = board.thermal_status();
    let Some(hottest) = heat.hottest() else {
        return Finding::note(
            "heat",
            "there is no thermal zone",
            "nothing to do: [board] pause_above_c has no effect",
        );
    };
    if heat.throttles.is_empty() {
        return Finding::good(
            "heat",
            format!("{hottest:.0} °C at the warmest of {} zones", heat.zones.len()),
        );
    }
    let next = "cool the board (sudo jetson_clocks --fan), or choose a lower power mode";
    Finding::note("heat", format!("{hottest:.0} °C, and {} slow it down", heat.throttles.join(", ")), next)
}

/// NVIDIA's libraries that ONNX Runtime's providers load, on a Jetson.
fn libraries(board: &Platform, jetpack: Option<JetPack>) -> Vec<Finding> {
    let Some(jetpack) = jetpack else {
        return Vec::new();
    };
    // The package by which each JetPack's own repository brings the library.
    let wanted = [
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
    let of = |packages: [&'static str; 3]| match jetpack {
        JetPack::Five => packages[0],
        JetPack::Six => packages[1],
        JetPack::Seven => packages[2],
    };
    wanted
        .into_iter()
        .map(|(name, file, packages)| match board.library(file) {
            Some(library) => Finding::good(name, format!("{} ({})", library.version, library.path.display())),
            None => {
                let next = format!("sudo apt install {} (or all of it: nvidia-jetpack)", of(packages));
                Finding::missing(name, format!("{file} is not there"), next)
            }
        })
        .collect()
}
