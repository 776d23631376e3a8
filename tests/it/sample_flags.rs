//! `denoised sample` and its neighbours: what flags take, where results are written, and what is refused.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::bundles::{copy_bundle, copy_tree, model};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{bundle, sample, values};
use crate::common::{golden, largest_difference};
use denoised::bundle::Role;
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{JobLimits, ModelCard, parse};
use denoised::model::Model;

fn gaussian(output: &Path) -> Command {
    sample("embedded", &golden("gaussian"), output)
}

#[test]
fn the_ending_of_the_output_selects_the_format() {
    let directory = tempfile::tempdir().unwrap();
    let digits = |output: &Path| {
        let mut command = sample("embedded", &model("digits"), output);
        command.args(["--class", "3", "--steps", "2", "--seed", "1"]);
        command
    };
    for (name, magic) in [
        ("x.png", &b"\x89PNG"[..]),
        ("x.jpg", b"\xff\xd8\xff"),
        ("x.JPEG", b"\xff\xd8\xff"),
        ("x.webp", b"RIFF"),
    ] {
        let path = directory.path().join(name);
        succeeds(&mut digits(&path));
        assert!(std::fs::read(&path).unwrap().starts_with(magic), "{name}");
        let figure = directory.path().join(format!("figure-{name}"));
        let mut command = denoised();
        succeeds(
            command.arg("visualize").arg(model("digits")).args(["--at", "0"]).arg("--output").arg(&figure),
        );
        assert!(std::fs::read(&figure).unwrap().starts_with(magic), "{name}");
    }
    let pixels = |name: &str| image::open(directory.path().join(name)).unwrap().to_luma8();
    assert_eq!(pixels("x.webp"), pixels("x.png"));
    let images = directory.path().join("images");
    succeeds(digits(&images).args(["--format", "webp", "--count", "2"]));
    let mut names: Vec<_> =
        std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0000-1.webp", "0001-2.webp"]);
    let jpeg = |quality: &str| {
        let path = directory.path().join(format!("{quality}.jpg"));
        let output = succeeds(digits(&path).args(["--quality", quality]));
        assert!(!String::from_utf8(output.stderr).unwrap().contains("has no effect"));
        std::fs::read(&path).unwrap()
    };
    assert_eq!(jpeg("95"), std::fs::read(directory.path().join("x.jpg")).unwrap());
    assert!(jpeg("20").len() < jpeg("95").len());
    let output = succeeds(digits(&directory.path().join("x.png")).args(["--quality", "20"]));
    let notice = "quality has no effect on png, which loses nothing\n";
    assert!(String::from_utf8(output.stderr).unwrap().contains(notice));
    let text = fails(digits(&directory.path().join("x.jpg")).args(["--quality", "101"]), 2);
    assert_eq!(text, "denoised: --quality: quality is 101, but must lie between 1 and 100\n");
    let text = fails(&mut digits(Path::new("x.gif")), 2);
    assert!(text.contains(".gif, which is not supported; use .png, .jpeg, .jpg, .webp or .npy"), "{text}");
    let mut command = denoised();
    let text = fails(command.arg("visualize").arg(model("digits")).args(["--output", "x.npy"]), 2);
    assert!(text.contains("x.npy has no ending of a picture; use .png, .jpeg, .jpg or .webp"), "{text}");
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_model_is_loaded() {
    let missing = Path::new("/nonexistent/model");
    for (output, expected) in [
        ("/nonexistent/x.png", "--output: the directory /nonexistent does not exist; create it"),
        ("/proc/x.png", "--output: cannot write into /proc"),
        ("/proc/images/", "--output: cannot write into /proc"),
        ("/dev/null/x.png", "--output: /dev/null is not a directory"),
    ] {
        let text = fails(&mut sample("embedded", missing, Path::new(output)), 2);
        assert!(text.contains(expected), "{text}");
    }
    let mut command = sample("embedded", missing, Path::new("x.png"));
    let text = fails(command.args(["--latents", "/nonexistent/x.npy"]), 2);
    assert!(text.contains("--latents: the directory /nonexistent does not exist"), "{text}");
    let text = fails(sample("embedded", missing, Path::new("x.png")).args(["--latents", "x.png"]), 2);
    assert!(text.contains("--latents: x.png must end with .npy"), "{text}");
    let text = fails(sample("embedded", missing, Path::new("x.npy")).args(["--latents", "x.npy"]), 2);
    assert!(text.contains("--latents and --output are the same file; name two"), "{text}");
    let mut command = denoised();
    let text = fails(command.arg("visualize").arg(missing).args(["--output", "/nonexistent/x.png"]), 2);
    assert!(text.contains("--output: the directory /nonexistent does not exist"), "{text}");
    let text = fails(denoised().args(["demo", "--output", "/proc/x"]), 2);
    assert!(text.contains("--output: cannot write into /proc"), "{text}");
}

#[test]
fn a_figure_of_latents_is_refused_without_asking_for_a_prompt() {
    let mut command = denoised();
    let text = fails(command.arg("visualize").arg(bundle("sd")).args(["--output", "x.png"]), 2);
    assert!(text.contains("sd works on the latents of pictures; visualize draws models of pixels"), "{text}");
}

#[test]
fn a_class_is_given_by_its_number_or_its_name() {
    let (directory, copy) = copy_bundle(&model("digits"), "digits");
    let description = copy.join("denoised.toml");
    let text = std::fs::read_to_string(&description).unwrap();
    std::fs::write(&description, text.replace("\"3\", \"4\"", "\"three\", \"four\"")).unwrap();
    let sampled = |class: &str| {
        let output = directory.path().join(format!("{class}.npy"));
        succeeds(sample("embedded", &copy, &output).args(["--class", class, "--steps", "2", "--seed", "1"]));
        values(&output).1
    };
    assert_eq!(sampled("three"), sampled("3"));
    assert!(largest_difference(&sampled("three"), &sampled("four")) > 0.1);
    let text = fails(sample("embedded", &copy, Path::new("x.npy")).args(["--class", "six"]), 2);
    assert!(
        text.contains(
            "--class: digits has no class \"six\"; its classes are: 0, 1, 2, three, four, 5, 6, 7, 8, 9"
        ),
        "{text}"
    );
    let text = fails(gaussian(Path::new("x.npy")).args(["--class", "six"]), 2);
    assert!(text.contains("--class: gaussian has no names of classes"), "{text}");
}

/// Only `inspect` had a misspelt key of the folder's own file; --scheduler took a sampler's name for a missing file.
#[test]
fn a_misspelt_key_of_the_folders_own_scheduler_was_ignored_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("gaussian");
    copy_tree(&golden("gaussian"), &model);
    let file = model.join("scheduler/scheduler_config.json");
    let text = r#"{"_class_name": "DDIMScheduler", "beta_shedule": "linear", "colour": 1}"#;
    std::fs::write(&file, text).unwrap();
    let output = directory.path().join("x.npy");
    let mut command = denoised();
    command.arg("sample").arg(&model).args(["--steps", "2", "--output"]).arg(&output);
    let text = String::from_utf8(succeeds(&mut command).stderr).unwrap();
    let expected = format!(
        "{}: beta_shedule is not a key of DDIMScheduler and has no effect; did you mean beta_schedule?\n",
        file.display()
    );
    assert_eq!(text.matches(&expected).count(), 1, "{text}");
    assert!(!text.contains("colour"), "{text}");
    let text = fails(gaussian(&output).args(["--scheduler", "euler_a"]), 2);
    let expected = "--scheduler takes a scheduler_config.json; for the sampler use --sampler euler_a\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_key_that_another_scheduler_does_not_have_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("x.npy");
    let scheduler = directory.path().join("scheduler.json");
    std::fs::write(&scheduler, r#"{"_class_name": "DDIMScheduler", "beta_shedule": "linear"}"#).unwrap();
    let output_of_run = succeeds(gaussian(&output).args(["--steps", "2", "--scheduler"]).arg(&scheduler));
    let text = String::from_utf8(output_of_run.stderr).unwrap();
    let expected = format!(
        "--scheduler: {}: beta_shedule is not a key of DDIMScheduler and has no effect; did you mean beta_schedule?\n",
        scheduler.display()
    );
    assert!(text.starts_with(&expected), "{text}");
    std::fs::write(&scheduler, "{").unwrap();
    let text = fails(gaussian(&output).arg("--scheduler").arg(&scheduler), 2);
    assert!(text.starts_with("denoised: --scheduler: "), "{text}");
}

#[test]
fn text_where_a_number_is_expected_is_described() {
    for (flags, expected) in [
        (["--steps", "abc"], "invalid value 'abc' for '--steps <STEPS>': expected a whole number, 0 or more"),
        (["--seed", "-1"], "invalid value '-1' for '--seed <SEED>': expected a whole number, 0 or more"),
        (
            ["--seed", "18446744073709551616"],
            "for '--seed <SEED>': expected a whole number of at most 18446744073709551615",
        ),
        (["--eta", "nan"], "invalid value 'nan' for '--eta <FACTOR>': expected a number"),
        (["--crop", "5"], "for '--crop <TOP,LEFT>': expected two whole numbers with a comma between them"),
        (["--conditions", "x"], "for '--conditions <NAME=NUMBER,…>': expected a name and a number"),
        (["--format", "gif"], "for '--format <FORMAT>': expected one of: png, jpeg, webp, npy"),
    ] {
        let text = fails(gaussian(Path::new("x.npy")).args(flags), 2);
        assert!(text.contains(expected), "{text}");
    }
    let mut command = denoised();
    command.arg("visualize").arg(model("digits")).args(["--output", "x.png", "--at", "a,b"]);
    let text = fails(&mut command, 2);
    assert!(text.contains("expected whole numbers with commas between them, such as 0,250,999"), "{text}");
}

#[test]
fn fields_without_effect_are_reported() {
    let path = |name: &str| bundle(name).display().to_string();
    let (init, mask) = (path("init.png"), path("mask.png"));
    let repaint =
        ["--prompt", "", "--image", &init, "--mask", &mask, "--sampler", "repaint", "--strength", "0.5"];
    for (model, more, expected) in [
        (
            bundle("sd"),
            &["--prompt", "", "--guidance", "1", "--negative-prompt", "blurry", "--guidance-rescale", "0.7"]
                [..],
            "negative_prompt has no effect on this job, whose guidance is 1\n\
             guidance_rescale has no effect on this job, whose guidance is 1\n",
        ),
        (
            bundle("sdxl"),
            &["--prompt", "", "--guidance", "0.5", "--negative-prompt-2", "blurry"],
            "guidance has no effect on sdxl, whose pipeline has no guidance up to a scale of 1\n\
             negative_prompt_2 has no effect on this job, whose guidance is 0.5\n",
        ),
        (
            bundle("flux"),
            &["--prompt", "", "--guidance-rescale", "0.7"],
            "guidance_rescale has no effect on flux, which takes the guidance scale as an input\n",
        ),
        (
            bundle("flux"),
            &["--prompt", "", "--negative-prompt", "blurry"],
            "negative_prompt has no effect on flux, which takes the guidance scale as an input\n",
        ),
        (
            bundle("lcm"),
            &["--prompt", "", "--negative-prompt", "blurry"],
            "negative_prompt has no effect on lcm, which takes the guidance scale as an input\n",
        ),
        (
            golden("gaussian"),
            &["--guidance-rescale", "0.5"],
            "guidance_rescale has no effect on this job, whose guidance is 1\n",
        ),
        (
            golden("families/z_image_turbo"),
            &["--prompt", "", "--cfg-truncation", "0.5", "--cfg-normalization", "0.5"],
            "cfg_truncation has no effect on this job, whose guidance is 0\n\
             cfg_normalization has no effect on this job, whose guidance is 0\n",
        ),
        (bundle("sd"), &repaint, "strength has no effect on repaint, which starts from noise\n"),
        // An empty negative prompt asks for nothing, and a rescale of 0 is off.
        (
            bundle("sd"),
            &["--prompt", "", "--negative-prompt", "", "--guidance", "1", "--guidance-rescale", "0"],
            "",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = sample("embedded", &model, &directory.path().join("x.npy"));
        let output = command.args(more).args(["--steps", "1"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let reported: String = stderr
            .lines()
            .filter(|line| line.contains("has no effect"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(reported, expected);
    }
}

fn card(name: &str) -> Arc<ModelCard> {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    ModelCard::new(&Model::load(&bundle(name), &options).unwrap())
}

/// The fields without effect of a request.
fn ignored(card: &Arc<ModelCard>, request: &str) -> Vec<String> {
    let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
    let request = parse(request.as_bytes()).unwrap();
    request.check(std::slice::from_ref(card), limits, || 1).unwrap().ignored
}

#[test]
fn previews_of_a_model_without_a_projection_are_reported() {
    assert_eq!(
        ignored(&card("flux"), r#"{"prompt": "", "preview_every": 1}"#),
        [
            "preview_every has no effect on flux, which has no projection for previews (see `denoised fit-preview`)"
        ]
    );
}

#[test]
fn previews_after_more_evaluations_than_a_job_has_were_not_reported() {
    let card = card("sd");
    let request =
        |every: u64| format!(r#"{{"prompt": "", "sampler": "ddim", "steps": 2, "preview_every": {every}}}"#);
    assert_eq!(
        ignored(&card, &request(3)),
        ["preview_every has no effect on this job, which has 2 evaluations"]
    );
    assert!(ignored(&card, &request(2)).is_empty());
}

#[test]
fn guidance_for_a_distilled_network_without_an_input_for_it_is_reported() {
    let mut schnell = card("flux");
    Arc::make_mut(&mut schnell).signature.tensors.retain(|tensor| tensor.role != Role::Guidance);
    assert_eq!(
        ignored(&schnell, r#"{"prompt": "", "guidance": 3.5}"#),
        ["guidance has no effect on flux, which is distilled for one scale"]
    );
    assert_eq!(
        ignored(&schnell, r#"{"prompt": "", "negative_prompt": "blurry"}"#),
        ["negative_prompt has no effect on flux, which is distilled for one scale"]
    );
}

#[test]
fn a_second_prompt_for_one_text_encoder_is_reported() {
    let mut refiner = card("sdxl");
    Arc::make_mut(&mut refiner).latent.as_mut().unwrap().1.text_encoders.remove(0);
    for field in ["prompt_2", "negative_prompt_2"] {
        let request = format!(r#"{{"prompt": "", "{field}": "a"}}"#);
        let expected = format!("{field} has no effect on sdxl, which has one text encoder");
        assert_eq!(ignored(&refiner, &request), [expected]);
    }
}

#[test]
fn every_command_that_loads_a_model_takes_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (file, output) = (directory.path().join("config.toml"), directory.path().join("x.png"));
    std::fs::write(&file, "[engine]\nkind = \"onnxruntime\"\nlibrary = \"/nonexistent/libonnxruntime.so\"\n")
        .unwrap();
    let commands = [("sample", true), ("visualize", true), ("inspect", false), ("fit-preview", false)];
    for (name, has_output) in commands {
        let run = |more: &[&str]| {
            let mut command = denoised();
            command.arg(name).arg(golden("gaussian")).arg("--config").arg(&file).args(more);
            if has_output {
                command.arg("--output").arg(&output);
            }
            command
        };
        let text = fails(&mut run(&[]), 1);
        assert!(text.contains("/nonexistent/libonnxruntime.so"), "{name}: {text}");
        let text = fails(run(&[]).env("DENOISED_ENGINE__LIBRARY", "/other/libonnxruntime.so"), 1);
        assert!(text.contains("/other/libonnxruntime.so"), "{name}: {text}");
        if name == "sample" || name == "inspect" {
            succeeds(&mut run(&["--engine", "embedded"]));
        }
    }
    std::fs::write(&file, "[engine]\nbatchsize = 5\n").unwrap();
    let mut command = sample("embedded", &golden("gaussian"), &output);
    let text = fails(command.arg("--config").arg(&file), 2);
    assert!(text.contains("config.toml:2: engine.batchsize"), "{text}");
}

/// `[models.engine.NAME]` is found by the name of the directory, also if the path is `.`.
#[cfg(feature = "system-tests")]
#[test]
fn engine_settings_of_one_model_apply_to_sample() {
    let directory = tempfile::tempdir().unwrap();
    let (file, output) = (directory.path().join("config.toml"), directory.path().join("x.npy"));
    let library = crate::common::commands::onnxruntime();
    let text = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cpu\"]\n[models.engine.gaussian]\nproviders = \
         [\"cuda\"]\npolicy = \"required\"\n",
        library.display().to_string()
    );
    std::fs::write(&file, text).unwrap();
    let run = |model: &Path| {
        let mut command = denoised();
        command
            .arg("sample")
            .arg(model)
            .arg("--config")
            .arg(&file)
            .args(["--steps", "2", "--output"])
            .arg(&output);
        command
    };
    succeeds(&mut run(&golden("gaussian-scalar")));
    for mut command in [run(&golden("gaussian")), run(Path::new("."))] {
        let text = fails(command.current_dir(golden("gaussian")), 1);
        assert!(text.contains("cuda"), "{text}");
    }
}
