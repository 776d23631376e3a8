//! What `doctor` reports about releases of JetPack and versions of TensorRT.

use crate::common::board::Tree;
use crate::common::commands::denoised;
use crate::doctor::{about, doctor, findings};
use serde_json::Value;

/// JetPack 7.0, 7.1 and 7.2 were all "JetPack 7", with the packages of 7.0.
#[test]
fn the_releases_of_jetpack_7_are_told_apart() {
    for (l4t, name, pairing) in [
        (
            "R36 (release), REVISION: 4.0",
            "JetPack 6.1",
            "CUDA 12.6, TensorRT 10.3 and ONNX Runtime 1.23 to 1.25",
        ),
        (
            "R38 (release), REVISION: 2.1",
            "JetPack 7.0",
            "CUDA 13.0, TensorRT 10.13 and ONNX Runtime 1.24 or 1.25",
        ),
        (
            "R38 (release), REVISION: 4.0",
            "JetPack 7.1",
            "CUDA 13.0, TensorRT 10.13 and ONNX Runtime 1.24 or 1.25",
        ),
        (
            "R39 (release), REVISION: 2.0",
            "JetPack 7.2",
            "CUDA 13.2, TensorRT 10.16 and ONNX Runtime 1.26 to 1.28",
        ),
    ] {
        let found = doctor(&Tree::jetson("NVIDIA Jetson", l4t));
        let board = about(&found, "board")["found"].as_str().unwrap();
        assert!(board.starts_with(&format!("NVIDIA Jetson, {name} (Linux for Tegra ")), "{board}");
        let expected = format!("{name}: {pairing} are reported to work together");
        assert_eq!(about(&found, "JetPack")["found"], expected);
    }
}

/// JetPack 7.2 has no `libnvdla_compiler.so`, to which TensorRT from a container is linked.
#[test]
fn a_missing_dla_compiler_was_not_reported() {
    let tree = Tree::jetson("NVIDIA Jetson AGX Orin", "R39 (release), REVISION: 2.0");
    let finding = doctor(&tree);
    let finding = about(&finding, "DLA compiler");
    assert_eq!(finding["state"], "note");
    assert!(
        finding["found"].as_str().unwrap().contains("JetPack 7.2 has no libnvdla_compiler.so"),
        "{finding}"
    );
    tree.install_provider(&["libnvinfer.so.10", "libnvdla_compiler.so"]);
    assert_eq!(about(&doctor(&tree), "DLA compiler")["state"], "missing");
    tree.write("usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so", "");
    assert!(doctor(&tree).iter().all(|finding| finding["about"] != "DLA compiler"));
    let older = doctor(&Tree::jetson("NVIDIA Jetson", "R38 (release), REVISION: 2.0"));
    assert!(older.iter().all(|finding| finding["about"] != "DLA compiler"));
}

fn configuration_notes(findings: &[Value]) -> Vec<&str> {
    let notes = findings.iter().filter(|finding| finding["about"] == "configuration");
    notes.map(|finding| finding["found"].as_str().unwrap()).collect()
}

/// ONNX Runtime silently builds float32 engines with TensorRT 11, and runs on the GPU where there is no DLA.
#[test]
fn options_that_this_tensorrt_ignores_were_not_reported() {
    let with = |board: &Tree| {
        let mut command = denoised();
        command
            .env("DENOISED_BOARD__ROOT", board.path())
            .env("DENOISED_ENGINE__TENSORRT__FP16", "true")
            .env("DENOISED_ENGINE__TENSORRT__DLA_CORE", "0");
        findings(&mut command).0
    };
    let board = Tree::jetson("NVIDIA Jetson AGX Orin", "R36 (release), REVISION: 4.3");
    board.install_tensorrt(&["10.3.0"]);
    assert_eq!(configuration_notes(&with(&board)), [""; 0]);
    board.install_tensorrt(&["11.1.0"]);
    // With both installed, the provider decides.
    board.install_provider(&["libnvinfer.so.10"]);
    assert_eq!(configuration_notes(&with(&board)), [""; 0]);
    board.install_provider(&["libnvinfer.so.11"]);
    assert_eq!(
        configuration_notes(&with(&board)),
        [
            "engine.tensorrt.fp16 has no effect: TensorRT 11 computes in the types of the graph; export the model in \
             float16",
            "engine.tensorrt.dla_core has no effect: TensorRT 11.1.0 has no DLA, 10.7 was the last version with it; \
             remove the key"
        ]
    );
    let thor = Tree::jetson("NVIDIA Jetson AGX Thor", "R38 (release), REVISION: 4.0");
    assert_eq!(
        configuration_notes(&with(&thor)),
        ["engine.tensorrt.dla_core has no effect: JetPack 7.1 has no DLA; remove the key"]
    );
    // A TensorRT that JetPack does not have.
    thor.install_tensorrt(&["11.2.0"]);
    let found = with(&thor);
    let tensorrt = about(&found, "TensorRT");
    assert_eq!(tensorrt["state"], "note");
    assert!(
        tensorrt["next"].as_str().unwrap().starts_with("use the TensorRT of JetPack 7.1, 10.13"),
        "{tensorrt}"
    );
}

/// The precision that runs was nowhere to be seen.
#[cfg(feature = "system-tests")]
#[test]
fn inspect_reports_the_precision_and_what_tensorrt_ignores() {
    let board = Tree::jetson("NVIDIA Jetson AGX Orin", "R39 (release), REVISION: 2.0");
    board.install_tensorrt(&["11.1.0"]);
    let inspect = |engine: &str| {
        let mut command = denoised();
        command
            .arg("inspect")
            .arg(crate::common::bundles::model("swissroll"))
            .args(["--engine", engine])
            .env("ORT_DYLIB_PATH", crate::common::commands::onnxruntime())
            .env("DENOISED_BOARD__ROOT", board.path())
            .env("DENOISED_ENGINE__TENSORRT__FP16", "true");
        let output = crate::common::commands::succeeds(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines =
            text.lines().filter(|line| line.starts_with("  precision ") || line.starts_with("  ignored "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // This library has no TensorRT, so that the CPU serves.
    assert_eq!(
        inspect("onnxruntime"),
        [
            "  precision            float32, as exported",
            "  ignored option       engine.tensorrt.fp16 has no effect: TensorRT 11 computes in the types of the graph; \
             export the model in float16",
        ]
    );
    assert_eq!(inspect("embedded"), ["  precision            float32, as exported"]);
}
