//! `denoised doctor`, on directory trees of Jetsons and on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::board::Tree;
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, free_port, onnxruntime};
use serde_json::Value;

/// Runs `doctor --json`, and returns its findings and its exit code.
pub fn findings(command: &mut Command) -> (Vec<Value>, Option<i32>) {
    let output = command.args(["doctor", "--json"]).output().unwrap();
    let found = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (found, output.status.code())
}

pub fn about<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["about"] == name)
        .unwrap_or_else(|| panic!("there is no finding about {name}"))
}

pub fn doctor(board: &Tree) -> Vec<Value> {
    let mut command = denoised();
    command.env("DENOISED_ENGINE__KIND", "embedded").env("DENOISED_BOARD__ROOT", board.path());
    findings(&mut command).0
}

const LIBRARIES: [(&str, &str); 5] = [
    ("CUDA", "libcudart.so"),
    ("cuBLAS", "libcublas.so"),
    ("cuDNN", "libcudnn.so"),
    ("TensorRT", "libnvinfer.so"),
    ("TensorRT parser", "libnvonnxparser.so"),
];

#[test]
fn missing_libraries_are_reported_with_the_package_of_each_jetpack() {
    let boards = [
        (
            "NVIDIA Jetson AGX Xavier",
            "R35 (release), REVISION: 4.1",
            "JetPack 5 (Linux for Tegra 35.4.1)",
            ["cuda-libraries-11-4", "libcublas-11-4", "libcudnn8", "libnvinfer8", "libnvonnxparsers8"],
        ),
        (
            "NVIDIA Jetson Orin Nano",
            "R36 (release), REVISION: 4.3",
            "JetPack 6.2 (Linux for Tegra 36.4.3)",
            [
                "cuda-libraries-12-6",
                "libcublas-12-6",
                "libcudnn9-cuda-12",
                "libnvinfer10",
                "libnvonnxparsers10",
            ],
        ),
        (
            "NVIDIA Jetson AGX Thor",
            "R38 (release), REVISION: 2.0",
            "JetPack 7.0 (Linux for Tegra 38.2.0)",
            [
                "cuda-libraries-13-0",
                "libcublas-13-0",
                "libcudnn9-cuda-13",
                "libnvinfer10",
                "libnvonnxparsers10",
            ],
        ),
    ];
    let newer = [
        (
            "NVIDIA Jetson Orin Nano",
            "R36 (release), REVISION: 3.0",
            "JetPack 6.0 (Linux for Tegra 36.3.0)",
            ["cuda-libraries-12-2", "libcublas-12-2", "libcudnn8", "libnvinfer8", "libnvonnxparsers8"],
        ),
        (
            "NVIDIA Jetson AGX Orin",
            "R39 (release), REVISION: 2.0",
            "JetPack 7.2 (Linux for Tegra 39.2.0)",
            [
                "cuda-libraries-13-2",
                "libcublas-13-2",
                "libcudnn9-cuda-13",
                "libnvinfer10",
                "libnvonnxparsers10",
            ],
        ),
    ];
    for (name, release, jetpack, packages) in boards.into_iter().chain(newer) {
        let tree = Tree::jetson(name, release);
        let found = doctor(&tree);
        assert_eq!(about(&found, "board")["found"], format!("{name}, {jetpack}"));
        for ((library, file), package) in LIBRARIES.iter().zip(packages) {
            let finding = about(&found, library);
            assert_eq!(finding["state"], "missing");
            let next = finding["next"].as_str().unwrap();
            assert!(next.starts_with(&format!("sudo apt install {package} ")), "{next}");
            // Install the package.
            tree.write(&format!("usr/lib/aarch64-linux-gnu/{file}.1.2.3"), "");
        }
        let found = doctor(&tree);
        for (library, file) in LIBRARIES {
            let finding = about(&found, library);
            assert_eq!(finding["state"], "good");
            assert!(finding["found"].as_str().unwrap().contains(&format!("{file}.1.2.3")), "{finding}");
        }
    }
}

#[test]
fn an_older_release_is_reported_with_what_to_flash() {
    let found = doctor(&Tree::jetson("NVIDIA Jetson Nano", "R32 (release), REVISION: 7.1"));
    let board = about(&found, "board");
    assert!(board["found"].as_str().unwrap().contains("32.7.1, which is older than JetPack 5"), "{board}");
    assert!(board["next"].as_str().unwrap().contains("flash JetPack 5"), "{board}");
}

#[test]
fn power_mode_temperature_and_groups_are_reported() {
    let tree = Tree::jetson("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");
    tree.write("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n");
    tree.write("var/lib/nvpmodel/status", "pmode:0000");
    tree.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
    tree.write("sys/class/thermal/thermal_zone0/temp", "48500\n");
    tree.write("etc/group", "video:x:4000000:\n");
    let found = doctor(&tree);
    let power = about(&found, "power mode");
    assert_eq!((&power["found"], &power["state"]), (&"15W".into(), &"note".into()));
    assert!(power["next"].as_str().unwrap().contains("nvpmodel -m"), "{power}");
    assert_eq!(about(&found, "temperature")["found"], "48 °C in the hottest of 1 zones");
    assert_eq!(about(&found, "group render")["found"], "there is no such group");

    tree.write("var/lib/nvpmodel/status", "pmode:0002");
    tree.write("sys/class/thermal/cooling_device0/type", "gpu-devfreq\n");
    tree.write("sys/class/thermal/cooling_device0/cur_state", "2\n");
    let found = doctor(&tree);
    assert_eq!(about(&found, "power mode")["state"], "good");
    assert_eq!(about(&found, "temperature")["found"], "48 °C, throttled by gpu-devfreq");
}

/// `run` creates its directories with those on the way to them.
#[test]
fn directories_that_run_creates_were_missing() {
    let home = tempfile::tempdir().unwrap();
    let mut command = denoised();
    command
        .current_dir(home.path())
        .env("DENOISED_ENGINE__KIND", "embedded")
        .env("DENOISED_ENGINE__PROVIDERS", "tensorrt,cpu")
        .env("DENOISED_SPOOL__PATH", home.path().join("data/spool"))
        .env("DENOISED_ENGINE__CACHE", "cache");
    let (found, _) = findings(&mut command);
    let spool = home.path().join("data/spool").display().to_string();
    for (key, path) in [("spool.path", spool.as_str()), ("engine.cache", "cache")] {
        let finding = about(&found, key);
        assert_eq!(finding["state"], "good", "{finding}");
        assert_eq!(finding["found"], format!("{path} will be created"));
    }
    assert!(!home.path().join("data").exists() && !home.path().join("cache").exists());
}

#[cfg(feature = "system-tests")]
#[test]
fn following_each_hint_removes_its_finding() {
    let home = tempfile::tempdir().unwrap();
    let inside = |name: &str| -> PathBuf { home.path().join(name) };
    let port = free_port();
    let mut url = format!("mqtt://127.0.0.1:{port}");
    let mut library = inside("libonnxruntime.so.9");
    let mut bundle = inside("model");
    let doctor = |url: &str, library: &Path, bundle: &Path| {
        let mut command = denoised();
        command
            .env("DENOISED_MQTT__URL", url)
            .env("DENOISED_ENGINE__KIND", "onnxruntime")
            .env("DENOISED_ENGINE__PROVIDERS", "openvino,cpu")
            .env("DENOISED_ENGINE__LIBRARY", library)
            .env("DENOISED_MODELS__PATHS", bundle)
            .env("DENOISED_SPOOL__PATH", inside("spool"))
            .env("DENOISED_ENGINE__CACHE", inside("cache"))
            .env("DENOISED_BOARD__ROOT", home.path());
        findings(&mut command)
    };
    let missing = |findings: &[Value]| -> Vec<String> {
        let missing = findings.iter().filter(|finding| finding["state"] == "missing");
        missing.map(|finding| finding["about"].as_str().unwrap().to_owned()).collect()
    };
    let (found, code) = doctor(&url, &library, &bundle);
    assert_eq!(missing(&found), ["ONNX Runtime", "broker", "model"]);
    assert_eq!(code, Some(1));
    for finding in found.iter().filter(|finding| finding["state"] != "good") {
        assert!(finding["next"].as_str().is_some_and(|next| !next.is_empty()), "{finding}");
    }

    assert!(about(&found, "ONNX Runtime")["next"].as_str().unwrap().starts_with("unset or correct"));
    library = onnxruntime();
    assert_eq!(missing(&doctor(&url, &library, &bundle).0), ["broker", "model"]);
    // Start a broker.
    let broker = Broker::start();
    url = broker.url();
    assert_eq!(missing(&doctor(&url, &library, &bundle).0), ["model"]);
    bundle = model("swissroll");
    let (found, code) = doctor(&url, &library, &bundle);
    assert_eq!((missing(&found), code), (Vec::new(), Some(0)));

    // A provider that the library does not have is optional: a note that says where to get it.
    let openvino = about(&found, "provider openvino");
    assert_eq!(openvino["state"], "note");
    let next = openvino["next"].as_str().unwrap();
    assert!(next.contains("onnxruntime-openvino"), "{next}");
    #[cfg(target_arch = "x86_64")]
    {
        let (found, _) = doctor(&url, &crate::common::commands::library("DENOISED_TEST_OPENVINO"), &bundle);
        assert_eq!(about(&found, "provider openvino")["found"], "onnxruntime 1.24.1 works on openvino");
    }
}

#[test]
fn the_text_output_has_the_same_findings() {
    let output = denoised().arg("doctor").env("DENOISED_MQTT__URL", "mqtt://127.0.0.1:1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("MISSING  broker               cannot connect to mqtt://127.0.0.1:1"), "{text}");
    assert!(text.contains("-> sudo apt install mosquitto"), "{text}");
    assert!(text.contains("good     embedded engine      embedded rten 0.27 works on cpu"), "{text}");
}

/// An empty password file, or a file without a certificate, was good in one line and missing in the next.
#[test]
fn one_file_was_good_and_missing() {
    let home = tempfile::tempdir().unwrap();
    let keys = [
        ("mqtt.password_file", "it is empty; write the password to it"),
        ("mqtt.ca_file", "the file contains no certificate in PEM format"),
    ];
    for (key, fault) in keys {
        let file = home.path().join(key);
        std::fs::write(&file, "").unwrap();
        let variable = format!("DENOISED_{}", key.to_uppercase().replace('.', "__"));
        let mut command = denoised();
        command.env("DENOISED_MQTT__URL", "mqtts://127.0.0.1:1").env(variable, &file);
        command.env("DENOISED_MQTT__USERNAME", "board").env("DENOISED_ENGINE__KIND", "embedded");
        let (found, code) = findings(&mut command);
        let states: Vec<_> = found.iter().filter(|finding| finding["about"] == key).collect();
        assert!(states.len() == 1 && states[0]["state"] == "missing", "{states:?}");
        let expected = format!("{}: {fault}", file.display());
        assert!(states[0]["found"].as_str().unwrap().starts_with(&expected), "{states:?}");
        let next = format!("correct the file, or set {key} to another one");
        assert_eq!(states[0]["next"], next);
        let broker = about(&found, "broker");
        assert_eq!((&broker["state"], code), (&"note".into(), Some(1)), "{broker}");
    }
}

#[test]
fn a_root_that_does_not_exist_described_an_empty_machine() {
    let stderr = fails(denoised().args(["doctor", "--root", "/nope"]), 2);
    assert_eq!(stderr, "denoised: --root /nope: there is no such directory\n");
    let stderr = fails(denoised().arg("doctor").env("DENOISED_BOARD__ROOT", "/nope"), 2);
    assert_eq!(stderr, "denoised: DENOISED_BOARD__ROOT: board.root: there is no directory /nope\n");
}

/// `doctor` named documents that the package did not have.
#[test]
fn every_document_that_the_program_names_is_packaged() {
    let repository = crate::common::repository();
    let manifest = std::fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    assert!(manifest.contains(r#"["docs/*.md", "usr/share/doc/denoised/docs/", "644"]"#));
    let mut directories = vec![repository.join("src")];
    let mut named = std::collections::BTreeSet::new();
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for (start, _) in text.match_indices("docs/") {
                let is_name = |c: &char| c.is_ascii_alphanumeric() || "-_./".contains(*c);
                let name: String = text[start..].chars().take_while(is_name).collect();
                named.extend(name.split_once(".md").map(|(stem, _)| format!("{stem}.md")));
            }
            for (start, _) in text.match_indices("document(\"") {
                let rest = &text[start + "document(\"".len()..];
                named.extend(rest.split_once('"').map(|(name, _)| format!("docs/{name}")));
            }
        }
    }
    assert!(named.contains("docs/jetson.md"), "{named:?}");
    for name in named {
        assert!(repository.join(&name).is_file(), "{name} does not exist");
    }
}
