//! LoRAs and ControlNets as inputs of the graphs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::bundles::{copy_bundle, model};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::golden;
use crate::common::live_fixtures::{Fixtures, made_live};
use crate::common::pipelines::{bundle, sample, values};

/// A file of the fixtures.
pub fn live(file: &str) -> PathBuf {
    golden("live").join(file)
}

fn check_cases(engine: &str) {
    let fixtures = Fixtures::new("live");
    let cases = fixtures.cases();
    for case in &cases {
        fixtures.check(engine, case, &live(case["folder"].as_str().unwrap()), engine);
    }
    assert_eq!(cases.len(), 7);
}

#[cfg(feature = "system-tests")]
#[test]
fn loras_and_controls_reproduce_their_references_on_onnx_runtime() {
    check_cases("onnxruntime");
}

#[test]
fn loras_and_controls_reproduce_their_references_on_the_embedded_engine() {
    check_cases("embedded");
}

fn printed(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stdout).unwrap()
}

fn draw(engine: &str, model: &Path, more: &[&str]) -> Vec<f32> {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("drawn.npy");
    let arguments = ["--prompt", "a fox", "--steps", "3", "--seed", "5"];
    succeeds(sample(engine, model, &output).args(arguments).args(more));
    values(&output).1
}

/// A copy of `sd`, which an exporter wrote without any live input, after `denoised init --live`.
pub fn sd_made_live(more: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let (directory, path, output) = made_live(&bundle("sd"), more);
    assert!(output.contains("unet/model.onnx: 5 inputs for a ControlNet's residuals"), "{output}");
    (directory, path)
}

#[test]
fn an_export_that_became_live_draws_the_same_bytes() {
    let (_directory, path) = sd_made_live(&["--lora", "all"]);
    assert_eq!(draw("embedded", &path, &[]), draw("embedded", &bundle("sd"), &[]));
    let exported = printed(denoised().args(["init", "--live"]).arg(live("sd_live")));
    assert_eq!(
        exported,
        "unet/model.onnx: unchanged, because it has live inputs from its exporter\n\
         text_encoder/model.onnx: unchanged, because it has live inputs from its exporter\n"
    );
    let report = printed(denoised().args(["inspect", "--engine", "embedded"]).arg(&path));
    assert!(report.contains("inputs at 83 layers") && !report.contains("lora_a."), "{report}");
}

#[cfg(feature = "system-tests")]
#[test]
fn an_export_that_became_live_draws_the_same_bytes_on_onnx_runtime() {
    let (_directory, path) = sd_made_live(&[]);
    assert_eq!(draw("onnxruntime", &path, &[]), draw("onnxruntime", &bundle("sd"), &[]));
}

/// The process ended after the export was renamed.
#[test]
fn an_interrupted_change_is_completed() {
    let (_directory, path) = copy_bundle(&bundle("sd"), "sd");
    std::fs::rename(path.join("unet/model.onnx"), path.join("unet/plain.onnx")).unwrap();
    succeeds(denoised().args(["init", "--live"]).arg(&path));
    assert!(path.join("unet/model.onnx").is_file() && path.join("unet/plain.onnx").is_file());
}

#[test]
fn faulty_loras_are_refused_by_name() {
    let sd_live = live("sd_live");
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.npy");
    let refused = |model: &Path, loras: &[String]| {
        let mut command = sample("embedded", model, &output);
        command.env("DENOISED_LIMITS__LORA_RANK", "12").args(["--prompt", "x", "--steps", "1"]);
        fails(command.args(loras.iter().flat_map(|lora| ["--lora", lora])), 2)
    };
    let kohya = live("loras/b_kohya_r8.safetensors");
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &std::fs::read(&kohya).unwrap()[..100_000]).unwrap();
    let text = |path: &Path| path.display().to_string();
    let (_directory, other) = sd_made_live(&[]);
    for (model, loras, expected) in [
        (&sd_live, vec![text(&cut)], "cut.safetensors: it is not a complete safetensors file"),
        (&sd_live, vec![text(&kohya); 2], ", but limits.lora_rank is 12"),
        (
            &other,
            vec![text(&kohya)],
            "was made for another model: down_blocks.1.attentions.0.proj_in maps 48",
        ),
        (&sd_live, vec!["nope".to_owned()], "--lora: loras[0].name is \"nope\", but there is no LoRA; put"),
        (&sd_live, vec![text(&kohya); 100], "loras has 100 entries, but a job has at most 16"),
        (&sd_live, vec![format!("{}=1e9", text(&kohya))], "loras[0].weight is 1000000000, but must lie"),
        (&bundle("sd"), vec![text(&kohya)], "denoised init --live"),
        (&bundle("flux"), vec![text(&kohya)], "flux takes no LoRAs"),
    ] {
        let found = refused(model, &loras);
        assert!(found.contains(expected), "{found}");
    }
}

/// A second run changed nothing, so that the advice to run it with `--lora all` led nowhere.
#[test]
fn the_first_choice_of_live_layers_was_for_ever() {
    let (_directory, path) = sd_made_live(&[]);
    let live_with = |layers: &str| printed(denoised().args(["init", "--live", "--lora", layers]).arg(&path));
    let graph = || std::fs::read(path.join("unet/model.onnx")).unwrap();
    let transformer = graph();
    let all = live_with("all");
    assert!(all.contains("inputs for LoRAs at 83 layers"), "{all}");
    assert_ne!(graph(), transformer);
    assert!(live_with("transformer").contains("inputs for LoRAs at 48 layers"));
    assert_eq!(graph(), transformer);
    let none = live_with("none");
    assert!(none.contains("inputs for LoRAs at 0 layers"), "{none}");
    assert!(none.contains("text_encoder/model.onnx: the plain export again"), "{none}");
    assert!(path.join("unet/plain.onnx").is_file() && !path.join("text_encoder/plain.onnx").exists());
    assert_eq!(draw("embedded", &path, &[]), draw("embedded", &bundle("sd"), &[]));
}

#[test]
fn an_export_that_replaces_a_live_graph_is_not_lost() {
    let (_directory, path) = sd_made_live(&[]);
    std::fs::copy(bundle("sd").join("unet/model.onnx"), path.join("unet/model.onnx")).unwrap();
    let error = fails(denoised().args(["init", "--live"]).arg(&path), 1);
    assert!(error.contains("is a plain export, and plain.onnx beside it is an earlier one"), "{error}");
    std::fs::remove_file(path.join("unet/plain.onnx")).unwrap();
    succeeds(denoised().args(["init", "--live"]).arg(&path));
}

/// No job could have used the inputs.
#[test]
fn a_network_without_prompts_was_given_live_inputs() {
    let (_directory, path) = copy_bundle(&model("digits"), "digits");
    let error = fails(denoised().args(["init", "--live"]).arg(&path), 2);
    assert!(error.contains("has no text_encoder/model.onnx; live inputs are for"), "{error}");
    assert!(!path.join("unet/plain.onnx").exists());
}

/// The first residual was taken for the sample, and the matrices for text.
#[test]
fn a_live_graph_has_the_draft_of_the_plain_one() {
    let (_directory, path) = sd_made_live(&[]);
    let draft = |graph: &str| {
        let (directory, alone) = (tempfile::tempdir().unwrap(), path.join("unet").join(graph));
        std::fs::copy(alone, directory.path().join("model.onnx")).unwrap();
        succeeds(denoised().arg("init").arg(directory.path()));
        std::fs::read_to_string(directory.path().join("denoised.toml")).unwrap()
    };
    let [plain, live] = ["plain.onnx", "model.onnx"].map(|graph| {
        draft(graph).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(live, plain);
}

/// The first directory with such a name gave both.
#[test]
fn two_lora_files_of_one_name_were_one_file_used_twice() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = ["a_peft_r4", "b_kohya_r8"];
    let same = fixtures.map(|name| {
        let directory = folder.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::copy(live(&format!("loras/{name}.safetensors")), directory.join("l.safetensors")).unwrap();
        directory.join("l.safetensors").display().to_string()
    });
    let own = fixtures.map(|name| live(&format!("loras/{name}.safetensors")).display().to_string());
    let drawn =
        |[first, second]: &[String; 2]| {
            let image = folder.path().join("x.npy");
            let mut command = sample("embedded", &live("sd_live"), &image);
            succeeds(command.args([
                "--prompt", "a fox", "--steps", "2", "--seed", "5", "--lora", first, "--lora", second,
            ]));
            values(&image).1
        };
    assert_eq!(drawn(&same), drawn(&own));
}

#[test]
fn a_path_without_a_file_was_a_lora_of_the_models_folder() {
    let (_directory, path) = copy_bundle(&live("sd_live"), "sd");
    std::fs::create_dir(path.join("loras")).unwrap();
    std::fs::copy(live("loras/a_peft_r4.safetensors"), path.join("loras/style.safetensors")).unwrap();
    let image = path.with_file_name("x.npy");
    let mut command = sample("embedded", &path, &image);
    let error = fails(command.args(["--prompt", "x", "--lora", "nodir/style.safetensors"]), 2);
    assert!(error.contains("there is no file nodir/style.safetensors"), "{error}");
}

#[test]
fn the_rank_of_two_loras_was_blamed_on_one() {
    let image = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", &live("sd_live"), &image.path().join("x.npy"));
    command.env("DENOISED_LIMITS__LORA_RANK", "11").args(["--prompt", "x", "--steps", "1"]);
    for lora in ["a_peft_r4", "b_kohya_r8"] {
        command.arg("--lora").arg(live(&format!("loras/{lora}.safetensors")));
    }
    let error = fails(&mut command, 2);
    assert!(error.contains("the sum of the job's LoRAs: it has the rank 12 at "), "{error}");
}
