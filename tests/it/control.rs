//! ControlNets: graphs of all exporters, jobs in one batch, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use denoised::bundle::SchedulerConfig;
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::ModelCard;
use denoised::model::Model;
use denoised::pipeline::{JobEvent, Pipeline};
use rten_onnx::onnx::{DataType, GraphProto, TensorProto};
use serde_json::{Value, json};

use crate::common::bundles::{copy_bundle, copy_tree};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::live_fixtures::Fixtures;
use crate::common::onnx_graphs::{edit, integers, node, node_with, rename, rename_in_nodes, set_axes};
use crate::common::pipelines::{bundle, sample, values};
use crate::common::recorded_jobs::{Recorded, job};
use crate::common::{largest_difference, read_json};
use crate::live::{live, sd_made_live};

fn case(name: &str) -> Value {
    Fixtures::new("live").case(name)
}

fn picture() -> String {
    BASE64.encode(std::fs::read(live("reference/control_a.png")).unwrap())
}

/// A copy of the fixtures' pipeline, whose U-Net and ControlNet are changed.
fn exported(change: impl Fn(&mut GraphProto, bool)) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = copy_bundle(&live("sd_live"), "sd_live");
    edit(&path.join("unet/model.onnx"), |graph| change(graph, false));
    edit(&path.join("controlnet/model.onnx"), |graph| change(graph, true));
    (directory, path)
}

/// Renames the residuals, of which `skip` gives those of the skip connections by their numbers.
fn rename_residuals(graph: &mut GraphProto, skip: impl Fn(usize) -> String, middle: &str) {
    for i in 0..4 {
        rename(graph, &format!("down_block_additional_residuals_{i}"), &skip(i));
    }
    rename(graph, "mid_block_additional_residual", middle);
}

/// The time step becomes one number for the whole batch.
fn make_time_scalar(graph: &mut GraphProto) {
    rename_in_nodes(graph, "timestep", "timestep.row");
    set_axes(graph, "timestep", &[]);
    graph.initializer.push(integers("timestep.shape", &[1]));
    graph.node.insert(0, node("Reshape", &["timestep", "timestep.shape"], "timestep.row"));
}

/// The scale becomes one float64 for the whole batch.
fn make_scale_double(graph: &mut GraphProto) {
    rename_in_nodes(graph, "conditioning_scale", "scale.row");
    set_axes(graph, "conditioning_scale", &[]);
    let scale =
        graph.input.iter_mut().find(|value| value.name.as_deref() == Some("conditioning_scale")).unwrap();
    scale.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = Some(DataType::DOUBLE);
    graph.initializer.push(integers("scale.shape", &[1, 5]));
    let float = i64::from(DataType::FLOAT.0);
    graph.node.insert(0, node("Expand", &["scale.f32", "scale.shape"], "scale.row"));
    graph.node.insert(0, node_with("Cast", &["conditioning_scale"], "scale.f32", ("to", float)));
}

/// The scale is no input.
fn remove_scale(graph: &mut GraphProto) {
    graph.input.retain(|value| value.name.as_deref() != Some("conditioning_scale"));
    graph.initializer.push(TensorProto {
        name: Some("conditioning_scale".to_owned()),
        data_type: Some(DataType::FLOAT),
        dims: vec![1, 5],
        float_data: vec![1.0; 5],
        ..TensorProto::default()
    });
}

fn check_conventions(engine: &str) {
    let case = case("ctl_window_euler");
    let check = |name: &str, change: &dyn Fn(&mut GraphProto, bool)| {
        let (_directory, path) = exported(change);
        Fixtures::new("live").check(engine, &case, &path, name);
    };
    check("axodox", &|graph, is_controlnet| {
        let skip = |i| format!("down_block_{i}_additional_residual");
        rename_residuals(graph, skip, "mid_block_additional_residual.0");
        make_time_scalar(graph);
        if is_controlnet {
            make_scale_double(graph);
        }
    });
    check("StreamDiffusion", &|graph, is_controlnet| match is_controlnet {
        false => rename_residuals(graph, |i| format!("input_control_{i:02}"), "input_control_middle"),
        true => {
            rename_residuals(graph, |i| format!("down_block_{i:02}"), "mid_block");
            remove_scale(graph);
            graph.output.reverse();
        }
    });
}

#[cfg(feature = "system-tests")]
#[test]
fn graphs_of_other_exporters_are_recognised_on_onnx_runtime() {
    check_conventions("onnxruntime");
}

#[test]
fn graphs_of_other_exporters_are_recognised_on_the_embedded_engine() {
    check_conventions("embedded");
}

/// The fixtures' pipeline with the scheduler of most cases.
fn pipeline() -> (Pipeline, Arc<ModelCard>) {
    let options = EngineOptions { kind: EngineKind::Embedded, batch: 8, ..EngineOptions::default() };
    let mut model = Model::load(&live("sd_live"), &options).unwrap();
    model.lora_directories.push(live("loras"));
    let folder = tempfile::tempdir().unwrap();
    let scheduler = folder.path().join("s.json");
    std::fs::write(&scheduler, case("ctl_ddim")["scheduler"].to_string()).unwrap();
    model.bundle.set_scheduler(SchedulerConfig::read(&scheduler).unwrap()).unwrap();
    let card = ModelCard::new(&model);
    (Pipeline::new(model), card)
}

#[test]
fn jobs_with_other_controls_and_loras_share_batches() {
    let fixtures = Fixtures::new("live");
    let own = json!(["ctl_ddim", "ctl_guess_ddim", "plain_ddim"]);
    for batch in fixtures.batches().iter().chain([&own]) {
        let (mut pipeline, card) = pipeline();
        let cases: Vec<_> =
            batch.as_array().unwrap().iter().map(|name| case(name.as_str().unwrap())).collect();
        cases.iter().for_each(|case| pipeline.accept(job(&card, fixtures.request(case))));
        let mut recorded = Recorded::default();
        recorded.drain(&mut pipeline);
        assert_eq!(recorded.failed, []);
        for case in &cases {
            let image = &recorded.images[&(case["name"].as_str().unwrap().to_owned(), 0)];
            fixtures.check_image(case, image, &batch.to_string());
        }
    }
}

#[test]
fn a_receipt_names_each_picture_by_its_digest() {
    let (mut pipeline, card) = pipeline();
    let control = json!({"image": picture(), "end": 0.5, "preprocess": "canny"});
    let request = json!({"id": "x", "seed": 1, "prompt": "a fox", "steps": 2, "controls": [control], "guess_mode": true});
    pipeline.accept(job(&card, request));
    let mut receipt = Value::Null;
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Image { receipt: made, .. } => receipt = serde_json::to_value(&*made).unwrap(),
            JobEvent::Failed(error) => panic!("{}", error.message),
            _ => {}
        });
    }
    let sha256 = "d90499ea36de2ea9cd35d66a8fced3ce2a77c633ea13d0cfe53f54ac79b09f28";
    let expected = json!([{"net": "controlnet", "scale": 1.0, "start": 0.0, "end": 0.5, "preprocess": "canny", "sha256": sha256}]);
    assert_eq!(receipt["controls"], expected);
    assert_eq!(
        (&receipt["guess_mode"], receipt["graph_sha256"]["controlnet"].is_string()),
        (&json!(true), true)
    );
}

fn drawn(model: &Path, more: &[&str]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.npy");
    let arguments = ["--prompt", "a fox", "--steps", "4", "--seed", "5"];
    succeeds(sample("embedded", model, &file).args(arguments).args(more));
    values(&file).1
}

#[test]
fn a_folder_elsewhere_serves_the_pipelines_that_name_it() {
    let (directory, path) = copy_bundle(&live("sd_live"), "sd_live");
    std::fs::rename(path.join("controlnet"), directory.path().join("shapes")).unwrap();
    std::fs::write(path.join("denoised.toml"), "[controlnets]\nshapes = \"../shapes\"\n").unwrap();
    let picture = live("reference/control_a.png").display().to_string();
    let half = format!("shapes={picture}@0.5");
    let both = drawn(&path, &["--control", &half, "--control", &half]);
    let once = drawn(&live("sd_live"), &["--control", &picture]);
    assert!(largest_difference(&both, &once) < 1e-4);
    assert!(largest_difference(&drawn(&path, &[]), &once) > 1e-2);
    let report = String::from_utf8(
        succeeds(denoised().args(["inspect", "--all", "--engine", "embedded"]).arg(&path)).stdout,
    );
    assert!(report.unwrap().contains("ControlNet           shapes ("));
    let report = String::from_utf8(
        succeeds(denoised().args(["inspect", "--engine", "embedded"]).arg(live("sd_live"))).stdout,
    );
    let report = report.unwrap();
    assert!(
        report.contains("ControlNet           controlnet (") && !report.contains("controlnet/model.onnx: ")
    );
}

/// Wide pictures, from another picture and with a mask.
#[test]
fn controls_work_in_all_tasks_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let wide = drawn(&live("sd_live"), &["--width", "96", "--height", "32"]);
    assert_eq!(wide.len(), 3 * 96 * 32);
    let job = |more: Value| {
        let control = json!({"image": {"file": live("reference/control_a.png")}, "resize": true});
        let mut job = json!({"controls": [control], "width": 96, "height": 32});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(file("job.json"), job.to_string()).unwrap();
        drawn(&live("sd_live"), &["--job", &file("job.json")])
    };
    assert!(largest_difference(&job(json!({})), &wide) > 1e-3);
    denoised::npy::write(&[3, 32, 96], &vec![0.2; 3 * 32 * 96])
        .map(|bytes| std::fs::write(file("x.npy"), bytes))
        .unwrap()
        .unwrap();
    let mask: Vec<f32> = (0..32 * 96).map(|i| f32::from(u8::from(i % 96 > 48))).collect();
    denoised::npy::write(&[1, 32, 96], &mask)
        .map(|bytes| std::fs::write(file("mask.npy"), bytes))
        .unwrap()
        .unwrap();
    for more in [json!({}), json!({"mask": {"file": "mask.npy"}})] {
        let mut task = json!({"image": {"file": "x.npy"}, "strength": 0.75});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut without = task.clone();
        without["controls"] = json!([]);
        assert!(largest_difference(&job(task), &job(without)) > 1e-4);
    }
}

#[test]
fn faulty_controls_are_refused_by_name() {
    let picture = live("reference/control_a.png").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.npy");
    let (_directory, without_net) = sd_made_live(&[]);
    let (usage, failure) = (2, 1);
    let refused = |model: &Path, controls: &[String], more: &[&str], code: i32| {
        let mut command = sample("embedded", model, &output);
        command.args(["--prompt", "x", "--steps", "1"]).args(more);
        fails(command.args(controls.iter().flat_map(|control| ["--control", control])), code)
    };
    let sd_live = live("sd_live");
    for (model, controls, more, expected) in [
        (
            &sd_live,
            vec![picture.clone()],
            &["--width", "96"][..],
            "--control: the picture has 64×64 pixels, but 96×64 are needed; send a picture of this size, or set \"resize\": true",
        ),
        (
            &sd_live,
            vec![format!("canny={picture}")],
            &[],
            "controls[0].net is \"canny\", but the ControlNets of sd_live are: controlnet",
        ),
        (
            &sd_live,
            vec![format!("{picture}@1,0.8,0.2")],
            &[],
            "controls[0].start is 0.8, but must be less than end, which is 0.2",
        ),
        (
            &sd_live,
            vec![format!("{picture}@11")],
            &[],
            "controls[0].scale is 11, but must lie between 0 and 10",
        ),
        (
            &sd_live,
            vec![format!("{picture}@1,0,1.5")],
            &[],
            "controls[0].end is 1.5, but must lie between 0 and 1",
        ),
        (&sd_live, vec![picture.clone(); 9], &[], "controls has 9 entries, but a job has at most 8"),
        (&without_net, vec![picture.clone()], &[], "[controlnets] NAME = \"PATH\""),
        (&bundle("sd"), vec![picture.clone()], &[], "denoised init --live"),
        (&bundle("flux"), vec![picture.clone()], &[], "flux takes no controls"),
    ] {
        let found = refused(model, &controls, more, usage);
        assert!(found.contains(expected), "{found}");
    }
    // The fixtures' ControlNet has other channels than this U-Net.
    copy_tree(&live("sd_live/controlnet"), &without_net.join("controlnet"));
    let found = refused(&without_net, &[], &[], failure);
    assert!(
        found.contains("controlnet/model.onnx: the ControlNet ") && found.contains("it steers another model"),
        "{found}"
    );
    let (_directory, plain) = copy_bundle(&bundle("sd"), "sd");
    copy_tree(&live("sd_live/controlnet"), &plain.join("controlnet"));
    let found = refused(&plain, &[], &[], failure);
    assert!(
        found.contains("unet/model.onnx: it has no inputs for the residuals")
            && found.contains("denoised init --live"),
        "{found}"
    );
}

/// The advice was to remove what may be a part of another model.
#[test]
fn other_graphs_in_the_list_of_controlnets_were_to_be_removed() {
    let (_directory, path) = copy_bundle(&live("sd_live"), "sd_live");
    for (graph, what) in [("unet", "a U-Net with inputs"), ("vae_decoder", "no ControlNet, because")] {
        std::fs::write(path.join("denoised.toml"), format!("[controlnets]\nfoo = {graph:?}\n")).unwrap();
        let error = fails(denoised().args(["inspect", "--engine", "embedded"]).arg(&path), 1);
        assert!(
            error.contains(what) && error.contains("; correct controlnets.foo in denoised.toml"),
            "{error}"
        );
    }
}

#[test]
fn inspect_left_out_the_keys_of_controlnets() {
    let (_directory, path) = copy_bundle(&live("sd_live"), "sd");
    let config = path.join("controlnet/config.json");
    let mut keys = read_json(&config);
    keys["global_pool"] = true.into();
    std::fs::write(&config, keys.to_string()).unwrap();
    let output = succeeds(denoised().args(["inspect", "--all", "--engine", "embedded"]).arg(&path));
    let report = String::from_utf8(output.stdout).unwrap();
    let (_, keys) = report.split_once("  controlnet/config.json                     ").unwrap();
    let keys: Vec<_> =
        keys.lines().take_while(|line| !line.starts_with("  ") || line.starts_with("    ")).collect();
    assert_eq!(keys[0], "1 used, 33 without effect");
    assert!(keys.contains(&"    unknown            global_pool"), "{keys:#?}");
    assert!(keys.contains(&"    used               global_pool_conditions"), "{keys:#?}");
}

#[test]
fn a_control_between_two_evaluations_was_ignored_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let stderr = |window: &str, more: &[&str]| {
        let mut command = denoised();
        command.arg("sample").arg(live("sd_live")).args([
            "--prompt",
            "cat",
            "--steps",
            "2",
            "--sampler",
            "ddim",
        ]);
        command.args(["--engine", "embedded", "--seed", "1"]).args(more).arg("--control");
        command.arg(format!("{}@1,{window}", live("reference/control_a.png").display()));
        let output = succeeds(command.arg("--output").arg(directory.path().join("x.png")));
        String::from_utf8(output.stderr).unwrap()
    };
    let notice = "controls[0] has no effect on this job, which has 2 evaluations, none of them between start 0.1 and end 0.4\n";
    let idle = stderr("0.1,0.4", &["--guess-mode"]);
    let guessed = "guess_mode has no effect on this job, whose controls have none\n";
    assert!(idle.starts_with(&[notice, guessed].concat()), "{idle}");
    assert!(!stderr("0,0.5", &["--guess-mode"]).contains("no effect"));
}
