//! `denoised inspect`: its report, and errors of bundles, engines and providers.

use std::path::Path;

use crate::common::bundles::gaussian_bundle;
use crate::common::commands::{denoised, fails, onnxruntime, succeeds};
use crate::common::{golden, read_json};
use denoised::bundle::{FileUse, KeyUse};

#[cfg(feature = "system-tests")]
#[test]
fn a_broken_bundle_is_reported_with_its_file_and_the_error() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 8] = [
        (
            "graph",
            |b| std::fs::remove_file(b.join("unet/model.onnx")).unwrap(),
            "the bundle has none of: unet/model.onnx",
        ),
        ("truncated", truncate, "unet/model.onnx"),
        (
            "scheduler",
            |b| std::fs::remove_dir_all(b.join("scheduler")).unwrap(),
            "scheduler/scheduler_config.json",
        ),
        (
            "type",
            |b| edit(b, "scheduler/scheduler_config.json", "\"beta_end\": 0.02", "\"beta_end\": \"much\""),
            "beta_end is \"much\", but must be a number",
        ),
        (
            "range",
            |b| {
                edit(
                    b,
                    "scheduler/scheduler_config.json",
                    "\"clip_sample_range\": 1.0",
                    "\"clip_sample_range\": -1.0",
                )
            },
            "clip_sample_range = -1 is refused: it must be more than 0",
        ),
        (
            "class",
            |b| edit(b, "scheduler/scheduler_config.json", "DDPMScheduler", "DreamScheduler"),
            "_class_name is \"DreamScheduler\", which is not supported",
        ),
        ("json", |b| edit(b, "scheduler/scheduler_config.json", "{", "["), "scheduler_config.json"),
        (
            "manifest",
            |b| std::fs::write(b.join("denoised.toml"), "[classes]\nnull = 1\nnames = 3\n").unwrap(),
            "denoised.toml",
        ),
    ];
    for (name, damage, expected) in cases {
        let (_directory, bundle) = gaussian_bundle(name);
        damage(&bundle);
        for engine in ["embedded", "onnxruntime"] {
            let mut command = denoised();
            command
                .arg("inspect")
                .arg(&bundle)
                .args(["--engine", engine])
                .env("ORT_DYLIB_PATH", onnxruntime());
            let stderr = fails(&mut command, 1);
            assert!(stderr.contains(expected), "{name}, {engine}: {stderr}");
        }
    }
    let stderr = fails(denoised().args(["inspect", "/nonexistent"]), 1);
    assert!(stderr.contains("/nonexistent is not a directory"), "{stderr}");
}

/// The embedded engine has int32 in place of int64, and knows the sizes of outputs that the file leaves open.
#[test]
fn the_embedded_engines_own_types_were_shown_as_those_of_the_file() {
    let digits = crate::common::bundles::model("digits");
    let output = succeeds(denoised().arg("inspect").arg(digits).args(["--engine", "embedded"]));
    let report = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "  input                timestep int64[?]\n",
        "  input                class_labels int64[?]\n",
        "  output               out_sample float32[?, 1, ?, ?]\n",
        "  timestep             timestep int64, one for each sample\n",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing: {report}");
    }
}

/// The file was not used, and its keys were used.
#[test]
fn the_configuration_of_an_unused_autoencoder_was_used() {
    let (_directory, bundle) = crate::common::pipelines::folder("sd");
    std::fs::create_dir(bundle.join("vae")).unwrap();
    std::fs::copy(bundle.join("vae_decoder/config.json"), bundle.join("vae/config.json")).unwrap();
    let inventory = denoised::bundle::Bundle::open(&bundle).unwrap().inventory().unwrap();
    let reason = "vae_decoder and vae_encoder are used".to_owned();
    assert_eq!(inventory.files["vae/config.json"], FileUse::NotUsed(reason.clone()));
    let keys = &inventory.keys["vae/config.json"];
    assert!(keys.values().all(|found| *found == KeyUse::NotUsed(reason.clone())), "{keys:?}");
}

fn truncate(bundle: &Path) {
    let graph = bundle.join("unet/model.onnx");
    let bytes = std::fs::read(&graph).unwrap();
    std::fs::write(&graph, &bytes[..bytes.len() / 2]).unwrap();
}

fn edit(bundle: &Path, file: &str, from: &str, to: &str) {
    let path = bundle.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[cfg(feature = "system-tests")]
#[test]
fn an_unsupported_operator_is_named_with_a_hint() {
    let (_directory, bundle) = gaussian_bundle("lacking");
    // An unknown operator whose name has the same length, so that the file stays valid.
    let graph = bundle.join("unet/model.onnx");
    let mut bytes = std::fs::read(&graph).unwrap();
    let position = bytes.windows(5).position(|window| window == b"Floor").unwrap();
    while let Some(at) = bytes.windows(7).position(|window| window == b"\x22\x05Floor") {
        bytes[at + 2..at + 7].copy_from_slice(b"Flown");
    }
    assert!(position > 0);
    std::fs::write(&graph, bytes).unwrap();
    for (engine, hint) in [("embedded", "install ONNX Runtime"), ("onnxruntime", "use a newer ONNX Runtime")]
    {
        let mut command = denoised();
        command.arg("inspect").arg(&bundle).args(["--engine", engine]).env("ORT_DYLIB_PATH", onnxruntime());
        let stderr = fails(&mut command, 1);
        assert!(stderr.contains("Flown") && stderr.contains(hint), "{engine}: {stderr}");
    }
}

#[test]
fn a_missing_onnxruntime_is_reported_with_a_hint() {
    let mut command = denoised();
    let command = command
        .arg("inspect")
        .arg(golden("gaussian"))
        .env("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so.1.2.3");
    let stderr = fails(command, 1);
    let expected = "/nonexistent/libonnxruntime.so.1.2.3: cannot load ONNX Runtime: there is no such file";
    assert!(stderr.contains(expected), "{stderr}");
}

#[cfg(feature = "system-tests")]
#[test]
fn a_required_provider_that_does_not_work_is_an_error_and_a_preferred_one_falls_back_to_the_cpu() {
    let mut command = denoised();
    command
        .arg("inspect")
        .arg(golden("gaussian"))
        .env("ORT_DYLIB_PATH", onnxruntime())
        .env("DENOISED_ENGINE__PROVIDERS", "cuda,cpu")
        .env("DENOISED_ENGINE__POLICY", "required");
    let stderr = fails(&mut command, 1);
    assert!(stderr.contains("the execution provider cuda is required but does not work here"), "{stderr}");
    let output = succeeds(command.env("DENOISED_ENGINE__POLICY", "preferred"));
    let (report, log) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(report.contains("provider cpu"), "{report}");
    assert!(log.contains("the execution provider cuda does not work here"), "{log}");
}

fn inspect(arguments: &[&str]) -> String {
    let output = succeeds(denoised().arg("inspect").arg(golden("gaussian")).args(arguments));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn inspect_reports_every_key_and_every_sampler_in_sections() {
    let report = inspect(&[]);
    let sections: Vec<_> = report.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert_eq!(
        sections,
        [
            "Model",
            "Inputs and outputs",
            "Defaults of a job",
            "Missing",
            "Files",
            "Memory",
            "Scheduler: DDPMScheduler",
            "Samplers"
        ]
    );
    let keys = read_json(&golden("gaussian/scheduler/scheduler_config.json"));
    for key in keys.as_object().unwrap().keys().filter(|key| !key.starts_with('_')) {
        assert!(report.contains(&format!("  {key} ")), "{key} is missing: {report}");
    }
    for expected in [
        "  input                sample float32[?, 1, 4, 5]\n",
        "  timestep             timestep float32, one for each sample\n",
        "  sample               [1, 4, 5], batches of up to 8\n",
        "  heun\n",
        "  with a suffix        karras, exponential",
        "  batching             ",
        "Missing\n  nothing\n",
        "more can't serve this bundle; --all lists them with the reasons\n",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing: {report}");
    }
    assert!(!report.contains("ncsn"), "{report}");

    let all = inspect(&["--all"]);
    let expected = "conditions the network on the index of a noise level, but the network of this bundle's \
                    DDPMScheduler takes the time step of a noise schedule; use a sampler with that conditioning\n";
    let line = all.lines().find(|line| line.starts_with("  ncsn")).unwrap();
    assert!(format!("{line}\n").ends_with(expected), "{all}");
    let (can, cannot) = all.split_once(" samplers that can't serve this bundle\n").unwrap();
    let summary = |report: &str| {
        report.split_once("\nMemory\n").unwrap().1.split_once("Samplers").unwrap().0.to_owned()
    };
    assert_eq!(summary(can), summary(&report));
    let excluded: Vec<&str> =
        cannot.lines().flat_map(|line| line.split_once(": ").unwrap().0.trim().split(", ")).collect();
    assert_eq!(excluded.len(), can.lines().last().unwrap().parse::<usize>().unwrap(), "{all}");
    // Every sampler is listed once, and those that can serve come first.
    for name in diffusion_samplers::sampler::names() {
        let listed = can.lines().filter(|line| line.split_whitespace().next() == Some(name)).count();
        let excluded = excluded.iter().filter(|excluded| **excluded == name).count();
        assert_eq!(listed + excluded, 1, "{name}: {all}");
    }
}
