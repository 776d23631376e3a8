//! The board: its model, power mode, temperature and NVIDIA's libraries.

use super::finding::Finding;
use crate::config::Config;
use crate::platform::{JetPack, L4tRelease, Platform};

pub(super) fn findings(config: &Config, platform: &Platform) -> Vec<Finding> {
    let release = platform.l4t_release();
    let mut findings = vec![model(platform, release.as_ref())];
    if platform.l4t_release().is_some() {
        findings.push(power_mode(platform));
    }
    findings.push(temperature(platform));
    if let Some(jetpack) = release.and_then(|release| release.jetpack) {
        findings.push(pairing(jetpack));
        findings.extend(libraries(platform, jetpack));
        findings.extend(dla_compiler(config, platform, jetpack));
    }
    findings
}

/// The versions that belong to a JetPack.
fn pairing(jetpack: &JetPack) -> Finding {
    let JetPack { cuda, tensorrt, onnxruntime, .. } = jetpack;
    let found = format!(
        "CUDA {cuda}, TensorRT {tensorrt} and ONNX Runtime {onnxruntime} are reported to work together"
    );
    Finding::good("JetPack", format!("{jetpack}: {found}"))
}

/// On a JetPack without the DLA's compiler, a TensorRT that is linked to it does not load.
fn dla_compiler(config: &Config, platform: &Platform, jetpack: &JetPack) -> Option<Finding> {
    const FILE: &str = "libnvdla_compiler.so";
    if jetpack.has_dla_compiler || platform.library(FILE).is_some() {
        return None;
    }
    if platform.tensorrt(config.onnxruntime_library()).needs_dla_compiler {
        return Some(Finding::missing(
            "DLA compiler",
            format!("{jetpack} has no {FILE}, but this ONNX Runtime's TensorRT provider is linked to it"),
            format!("use an ONNX Runtime that was built on {jetpack} ({})", jetpack.onnxruntime),
        ));
    }
    Some(Finding::note(
        "DLA compiler",
        format!(
            "{jetpack} has no {FILE}: a TensorRT from a container, or a provider linked to it, does not load"
        ),
        format!("nothing to do with this system's own TensorRT ({})", jetpack.packages.tensorrt),
    ))
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

/// Checks NVIDIA's libraries, which ONNX Runtime's providers load.
fn libraries(platform: &Platform, jetpack: &JetPack) -> Vec<Finding> {
    let packages = &jetpack.packages;
    let required = [
        ("CUDA", "libcudart.so", packages.cuda),
        ("cuBLAS", "libcublas.so", packages.cublas),
        ("cuDNN", "libcudnn.so", packages.cudnn),
        ("TensorRT", "libnvinfer.so", packages.tensorrt),
        ("TensorRT parser", "libnvonnxparser.so", packages.parser),
    ];
    let check = |(name, file, package)| match platform.library(file) {
        Some(library) => {
            let found = format!("{} ({})", library.version, library.path.display());
            let major = library.version.split('.').next().and_then(|number| number.parse::<u32>().ok());
            if name == "TensorRT" && major > Some(10) {
                let next = format!(
                    "use the TensorRT of {jetpack}, {}: TensorRT 11 does not support boards, and ignores fp16 and int8",
                    jetpack.tensorrt
                );
                return Finding::note(name, found, next);
            }
            Finding::good(name, found)
        }
        None => {
            let next = format!("sudo apt install {package} (or everything: nvidia-jetpack)");
            Finding::missing(name, format!("{file} is not installed"), next)
        }
    };
    required.into_iter().map(check).collect()
}
