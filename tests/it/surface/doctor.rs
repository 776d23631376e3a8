//! What `doctor` prints for several boards.

use std::process::Command;

use super::snapshot::check;
use crate::common::board::Tree;
use crate::common::bundles::model;
use crate::common::commands::denoised;

/// Returns a `doctor` command for a board without a broker, whose spool and engine cache exist.
fn doctor(board: &Tree) -> Command {
    let mut command = denoised();
    board.write("spool/file", "");
    board.write("cache/file", "");
    command
        .arg("doctor")
        .env("DENOISED_ENGINE__KIND", "embedded")
        .env("DENOISED_BOARD__ROOT", board.path())
        .env("DENOISED_MQTT__URL", "mqtt://127.0.0.1:1")
        .env("DENOISED_MODELS__PATHS", model("digits"))
        .env("DENOISED_SPOOL__PATH", board.path().join("spool"))
        .env("DENOISED_ENGINE__CACHE", board.path().join("cache"));
    command
}

/// Compares stdout, stderr and the exit code with a snapshot.
fn check_doctor(name: &str, board: &Tree, command: &mut Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let code = output.status.code().unwrap();
    let text = format!("{}--- stderr\n{}--- exit code {code}\n", text[0], text[1]);
    check(&format!("doctor-{name}"), &text.replace(&board.path().display().to_string(), "[board]"));
}

const ORIN: (&str, &str) = ("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");

#[test]
fn each_jetpack_is_reported_without_and_with_its_libraries() {
    let boards = [
        ("jetpack5", "NVIDIA Jetson AGX Xavier", "R35 (release), REVISION: 4.1"),
        ("jetpack6", ORIN.0, ORIN.1),
        ("jetpack7", "NVIDIA Jetson AGX Thor", "R38 (release), REVISION: 2.0"),
    ];
    for (name, model, release) in boards {
        let board = Tree::jetson(model, release);
        check_doctor(name, &board, &mut doctor(&board));
    }
    let board = Tree::jetson(ORIN.0, ORIN.1);
    for library in ["libcudart", "libcublas", "libcudnn", "libnvinfer", "libnvonnxparser"] {
        board.write(&format!("usr/lib/aarch64-linux-gnu/{library}.so.1.2.3"), "");
    }
    check_doctor("jetpack6-libraries", &board, &mut doctor(&board));
}

#[test]
fn a_release_that_is_too_old_is_reported() {
    let board = Tree::jetson("NVIDIA Jetson Nano", "R32 (release), REVISION: 7.1");
    check_doctor("jetpack4", &board, &mut doctor(&board));
}

#[test]
fn a_machine_that_is_not_a_jetson_is_reported() {
    let board = Tree::jetson("", "");
    std::fs::remove_file(board.path().join("etc/nv_tegra_release")).unwrap();
    board.write("proc/cpuinfo", "model name : Processor\n");
    check_doctor("no-jetson", &board, &mut doctor(&board));
}

#[test]
fn power_mode_temperature_and_groups_are_reported() {
    let board = Tree::jetson(ORIN.0, ORIN.1);
    board.write("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n");
    board.write("var/lib/nvpmodel/status", "pmode:0000");
    board.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
    board.write("sys/class/thermal/thermal_zone0/temp", "48500\n");
    check_doctor("15w", &board, &mut doctor(&board));

    // A group of this process.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let group = status.lines().find_map(|line| line.strip_prefix("Gid:\t")?.split('\t').next()).unwrap();
    board.write("etc/group", &format!("video:x:{group}:\n"));
    board.write("var/lib/nvpmodel/status", "pmode:0002");
    board.write("sys/class/thermal/cooling_device0/type", "gpu-devfreq\n");
    board.write("sys/class/thermal/cooling_device0/cur_state", "2\n");
    check_doctor("maxn-throttled", &board, &mut doctor(&board));
    check_doctor("json", &board, doctor(&board).arg("--json"));
}

#[test]
fn missing_parts_are_reported_with_hints() {
    let board = Tree::jetson(ORIN.0, ORIN.1);
    let mut command = doctor(&board);
    command
        .env("DENOISED_ENGINE__KIND", "onnxruntime")
        .env("DENOISED_ENGINE__LIBRARY", "/nonexistent/libonnxruntime.so.1.2.3")
        .env("DENOISED_MODELS__PATHS", "/nonexistent/model")
        .env("DENOISED_SPOOL__PATH", "/proc/nonexistent/spool")
        .env("DENOISED_ENGINE__CACHE", "/proc/nonexistent/cache");
    check_doctor("missing", &board, &mut command);
}
