//! Files and graphs that cannot be loaded: each error names its cause once, with the advice that fits it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use denoised::bundle::Bundle;
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use tempfile::TempDir;

use crate::common::bundles::{copy_bundle, gaussian_bundle};
use crate::common::commands::{denoised, fails, library, onnxruntime};
use crate::common::onnx_files::{edit, edit_graph, externalize, move_to_blobs};
use crate::common::pipelines::{bundle, sample, sample_image_on};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438\n";

#[test]
fn a_pointer_of_git_lfs_is_called_one_wherever_it_is() {
    let (_directory, path) = copy_bundle(&bundle("sd"), "sd");
    externalize(&path.join("unet/model.onnx"), |_| "model.onnx_data".to_owned());
    for file in [
        "unet/model.onnx",
        "unet/model.onnx_data",
        "unet/config.json",
        "vae_decoder/model.onnx",
        "text_encoder/model.onnx",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
    ] {
        let original = std::fs::read(path.join(file)).unwrap();
        std::fs::write(path.join(file), POINTER).unwrap();
        let error = Bundle::open(&path).unwrap_err().to_string();
        let expected = format!(
            "{}: this is a pointer of Git LFS, not the file; run `git lfs pull` in the folder",
            path.join(file).display()
        );
        assert_eq!(error, expected);
        std::fs::write(path.join(file), original).unwrap();
    }
    // A graph that is not used may be one.
    std::fs::create_dir(path.join("safety_checker")).unwrap();
    std::fs::write(path.join("safety_checker/model.onnx"), POINTER).unwrap();
    std::fs::write(path.join("unet/model_fp16.onnx"), POINTER).unwrap();
    Bundle::open(&path).unwrap();
}

#[test]
fn a_file_of_another_kind_in_place_of_a_graph_is_named() {
    let (_directory, path) = gaussian_bundle("other");
    let safetensors = [&[2, 0, 0, 0, 0, 0, 0, 0], &b"{}"[..]].concat();
    for (contents, expected) in [
        (&b""[..], "this file is empty"),
        (b"<!DOCTYPE html>\n<html></html>", "this is a web page"),
        (&safetensors, "these are safetensors"),
        (b"\x80\x02}q\x00.", "this is a pickle"),
        (b"PK\x03\x04", "this is a zip archive"),
        (b"../../../blobs/4d7a", "this is the text of a link"),
        (b"\x08\x08\x3a\x7f\x0a", "this is not a whole ONNX file"),
    ] {
        std::fs::write(path.join("unet/model.onnx"), contents).unwrap();
        let error = Bundle::open(&path).unwrap_err().to_string();
        assert!(error.contains("unet/model.onnx: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_link_to_a_missing_file_is_named() {
    let (directory, path) = copy_bundle(&bundle("sd"), "sd");
    externalize(&path.join("unet/model.onnx"), |_| "weights.bin".to_owned());
    for file in ["unet/model.onnx", "unet/weights.bin", "vae_decoder/model.onnx", "vae_decoder/config.json"] {
        let original = std::fs::read(path.join(file)).unwrap();
        move_to_blobs(&path.join(file), &directory.path().join("blobs"), "blob");
        Bundle::open(&path).unwrap();
        std::fs::remove_file(directory.path().join("blobs/blob")).unwrap();
        let error = Bundle::open(&path).unwrap_err().to_string();
        assert!(
            error.starts_with(&path.join(file).display().to_string())
                && error.contains("a file that is missing; download the model again"),
            "{error}"
        );
        std::fs::remove_file(path.join(file)).unwrap();
        std::fs::write(path.join(file), original).unwrap();
    }
}

/// Removes the attributes of convolutions that have the default values.
fn strip_defaults(graph: &Path) -> usize {
    let mut removed = 0;
    edit_graph(graph, |graph| {
        for node in graph.node.iter_mut().filter(|node| node.op_type.as_deref() == Some("Conv")) {
            let before = node.attribute.len();
            node.attribute.retain(|attribute| match attribute.name.as_deref() {
                Some("kernel_shape") => false,
                Some("strides" | "dilations") => attribute.ints.iter().any(|&value| value != 1),
                Some("pads") => attribute.ints.iter().any(|&value| value != 0),
                Some("group") => attribute.i != Some(1),
                _ => true,
            });
            removed += before - node.attribute.len();
        }
    });
    removed
}

#[test]
fn convolutions_without_attributes_give_the_same_image_on_the_embedded_engine() {
    let (_directory, path) = copy_bundle(&bundle("sd"), "sd");
    for component in ["unet", "vae_decoder"] {
        assert!(strip_defaults(&path.join(component).join("model.onnx")) > 10);
    }
    let expected = sample_image_on("embedded", &bundle("sd"), &[]);
    assert!(sample_image_on("embedded", &path, &[]) == expected);
    externalize(&path.join("unet/model.onnx"), |_| "weights.bin".to_owned());
    assert!(sample_image_on("embedded", &path, &[]) == expected);
}

/// Checks that no sentence or clause occurs twice in an error.
fn assert_says_nothing_twice(error: &str) {
    let mut seen = BTreeSet::new();
    for clause in error.split([';', '.', '\n']).flat_map(|sentence| sentence.split(": ")) {
        let clause = clause.trim();
        assert!(clause.len() < 12 || seen.insert(clause), "{clause:?} is repeated in: {error}");
    }
}

/// The error of `inspect` for a Gaussian model with a changed graph.
fn inspect_error(engine: &str, change: impl FnOnce(&mut ModelProto)) -> String {
    let (_directory, path) = gaussian_bundle("broken");
    edit(&path.join("unet/model.onnx"), change);
    let mut command = denoised();
    command.env("ORT_DYLIB_PATH", onnxruntime()).env("DENOISED_ENGINE__PROVIDERS", "cpu");
    let error = fails(command.arg("inspect").arg(path).args(["--engine", engine]), 1);
    assert_says_nothing_twice(&error);
    error
}

/// Replaces the operator of the first node that is not a constant.
fn with_operator(model: &mut ModelProto, domain: &str, operator: &str) {
    let is_constant = |node: &NodeProto| node.op_type.as_deref() == Some("Constant");
    let node = model.graph.as_mut().unwrap().node.iter_mut().find(|node| !is_constant(node)).unwrap();
    node.op_type = Some(operator.to_owned());
    node.domain = Some(domain.to_owned());
    node.attribute.clear();
    if !domain.is_empty() {
        let set = OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(1) };
        model.opset_import.push(set);
    }
}

/// Adds an output that is computed in bfloat16.
fn add_bfloat16(model: &mut ModelProto) {
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(TensorProto {
        name: Some("weight".to_owned()),
        dims: vec![1],
        data_type: Some(DataType::BFLOAT16),
        raw_data: Some(std::cell::RefCell::new(vec![0; 2])),
        ..TensorProto::default()
    });
    let node = |operator: &str, input: &[&str], output: &str, to: Option<DataType>| NodeProto {
        op_type: Some(operator.to_owned()),
        input: input.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: to
            .map(|to| AttributeProto {
                name: Some("to".to_owned()),
                i: Some(to.0.into()),
                r#type: Some(AttributeType::INT),
                ..AttributeProto::default()
            })
            .into_iter()
            .collect(),
        ..NodeProto::default()
    };
    graph.node.push(node("Cast", &["sample"], "narrow", Some(DataType::BFLOAT16)));
    graph.node.push(node("Add", &["narrow", "weight"], "sum", None));
    graph.node.push(node("Cast", &["sum"], "wide", Some(DataType::FLOAT)));
    graph.output.push(ValueInfoProto { name: Some("wide".to_owned()), ..graph.output[0].clone() });
}

#[test]
fn each_failure_to_load_has_the_advice_for_its_own_cause() {
    type Change = fn(&mut ModelProto);
    let cases: [(Change, &[(&str, &str)]); 6] = [
        (
            |model| model.opset_import.iter_mut().for_each(|set| set.version = Some(99)),
            &[(
                "onnxruntime",
                "opset 99 of ai.onnx is newer than opset 23, the newest that this library reads. Use a newer ONNX Runtime than 1.23.2",
            )],
        ),
        (
            |model| model.ir_version = Some(99),
            &[(
                "onnxruntime",
                "IR version 99 is newer than IR version 11, the newest that this library reads. Use a newer ONNX Runtime than 1.23.2",
            )],
        ),
        (
            |model| with_operator(model, "", "Frobnicate"),
            &[
                ("onnxruntime", "ONNX Runtime 1.23.2 has no operator Frobnicate in opset"),
                ("embedded", "The embedded engine has no operator Frobnicate: install ONNX Runtime"),
            ],
        ),
        (
            |model| with_operator(model, "com.example", "Frobnicate"),
            &[
                ("onnxruntime", "has no operator com.example:Frobnicate, which another program"),
                ("embedded", "No engine here has the operator com.example:Frobnicate, which another program"),
            ],
        ),
        (
            |model| with_operator(model, "trt.plugins", "Frobnicate"),
            &[
                ("onnxruntime", "This operator is a plugin of TensorRT"),
                ("embedded", "This operator is a plugin of TensorRT"),
            ],
        ),
        (
            |model| with_operator(model, "com.microsoft", "EPContext"),
            &[
                ("onnxruntime", "The graph holds an engine that was compiled for one device"),
                ("embedded", "The graph holds an engine that was compiled for one device"),
            ],
        ),
    ];
    for (change, expected) in cases {
        for (engine, advice) in expected {
            let error = inspect_error(engine, change);
            assert!(error.contains(advice), "{engine}: {error}");
        }
    }
    for engine in ["onnxruntime", "embedded"] {
        let error = inspect_error(engine, add_bfloat16);
        assert!(
            error.contains("The graph computes with bfloat16, which few engines do"),
            "{engine}: {error}"
        );
    }
}

#[test]
fn an_evaluation_that_fails_says_so_once_and_blames_no_operator_set() {
    let (_directory, path) = copy_bundle(&bundle("sd"), "sd");
    // A convolution that takes more channels than its input has.
    edit_graph(&path.join("vae_decoder/model.onnx"), |graph| {
        let node = graph.node.iter().find(|node| node.op_type.as_deref() == Some("Conv")).unwrap();
        let weight = graph.initializer.iter_mut().find(|tensor| tensor.name.as_ref() == node.input.get(1));
        let weight = weight.unwrap();
        weight.dims[1] += 1;
        let len = weight.dims.iter().product::<i64>() as usize;
        weight.raw_data = Some(std::cell::RefCell::new(vec![0; 4 * len]));
    });
    for engine in ["onnxruntime", "embedded"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = sample(engine, &path, &folder.path().join("x.png"));
        let output = command.args(["--prompt", "x", "--steps", "1"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{stderr}");
        let error = stderr.as_str();
        assert_says_nothing_twice(error);
        assert!(error.contains("The shapes in the graph do not fit its inputs"), "{error}");
        assert!(!error.contains("opset") && !error.contains("lacks"), "{error}");
    }
}

#[test]
fn a_required_provider_that_does_not_work_gives_its_reason_once() {
    let mut command = denoised();
    command
        .env("ORT_DYLIB_PATH", onnxruntime())
        .env("DENOISED_ENGINE__PROVIDERS", "cuda")
        .env("DENOISED_ENGINE__POLICY", "required");
    let error = fails(command.arg("inspect").arg(crate::common::golden("gaussian")), 1);
    assert_says_nothing_twice(&error);
    assert!(error.contains("Install a library of ONNX Runtime that has it"), "{error}");
    if cfg!(target_arch = "x86_64") {
        let error = fails(command.env("ORT_DYLIB_PATH", library("DENOISED_TEST_GPU")), 1);
        assert_says_nothing_twice(&error);
        assert!(error.contains("Install the missing library"), "{error}");
    }
}

#[test]
fn missing_and_invalid_files_give_their_cause_once() {
    let with = |change: &dyn Fn(&Path)| -> (TempDir, PathBuf) {
        let (directory, path) = copy_bundle(&bundle("sd"), "sd");
        change(&path);
        (directory, path)
    };
    let write = |file: &'static str, text: &'static str| {
        move |path: &Path| std::fs::write(path.join(file), text).unwrap()
    };
    let changes: [&dyn Fn(&Path); 6] = [
        &write("scheduler/scheduler_config.json", "{"),
        &write("scheduler/scheduler_config.json", "{\"_class_name\": 3}"),
        &write("unet/config.json", "{\"sample_size\": \"x\"}"),
        &write("denoised.toml", "x = 1"),
        &write("tokenizer/vocab.json", "{"),
        &|path| std::fs::remove_file(path.join("scheduler/scheduler_config.json")).unwrap(),
    ];
    for change in changes {
        let (_directory, path) = with(change);
        let mut command = denoised();
        assert_says_nothing_twice(&fails(
            command.arg("inspect").arg(&path).args(["--engine", "embedded"]),
            1,
        ));
    }
    let mut command = denoised();
    assert_says_nothing_twice(&fails(command.arg("inspect").arg("/nonexistent"), 1));
}
