//! Weights outside the ONNX file, under any name, in any folder of the bundle and behind links.

use std::path::Path;
use std::sync::Arc;

use denoised::bundle::Bundle;
use tempfile::TempDir;

use crate::common::bundles::copy_bundle;
use crate::common::commands::{denoised, fails, library, succeeds};
use crate::common::onnx_files::{edit_graph, externalize, move_to_blobs, point_to};
use crate::common::pipelines::{PROMPT, bundle, sample, sample_image_on, values};

/// A copy of the pipeline `sd`.
fn sd() -> (TempDir, std::path::PathBuf) {
    copy_bundle(&bundle("sd"), "sd")
}

fn error(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap_err().to_string()
}

#[test]
fn weights_in_several_files_of_any_name_give_the_same_image_on_both_engines() {
    let (_directory, path) = sd();
    externalize(&path.join("unet/model.onnx"), |index| match index % 4 {
        0 => "model.onnx_data_1".to_owned(),
        1 => format!("./weights/{index}.bin"),
        2 => "weights/../100%20.weights".to_owned(),
        _ => format!("onnx__MatMul_{index}"),
    });
    externalize(&path.join("text_encoder/model.onnx"), |_| "model.bin".to_owned());
    for engine in ["onnxruntime", "embedded"] {
        assert!(
            sample_image_on(engine, &path, &[]) == sample_image_on(engine, &bundle("sd"), &[]),
            "{engine}"
        );
    }
}

#[test]
fn the_digest_covers_the_files_that_the_graph_names_and_no_others() {
    let (_directory, path) = sd();
    externalize(&path.join("unet/model.onnx"), |index| format!("{}.bin", index % 2));
    let of = |path: &Path| Bundle::open(path).unwrap().digests().unwrap();
    let unet = |path: &Path| of(path).by_name["unet"].clone();
    let (whole, first) = (of(&path).total.clone(), unet(&path));
    // Neither another file beside the graph nor another place of the bundle changes it.
    std::fs::write(path.join("unet/model_fp16.onnx_data"), [1; 100]).unwrap();
    let (_other, moved) = copy_bundle(&path, "moved");
    assert_eq!((&of(&path).total, &of(&moved).total), (&whole, &whole));
    // Exchanged files and changed values do.
    let data = |index: usize| moved.join(format!("unet/{index}.bin"));
    let contents = [0, 1].map(|index| std::fs::read(data(index)).unwrap());
    let mut longer = contents.clone();
    let len = longer.iter().map(Vec::len).max().unwrap();
    longer.iter_mut().for_each(|contents| contents.resize(len, 0));
    let write = |order: [usize; 2]| {
        (0..2).for_each(|index| std::fs::write(data(index), &longer[order[index]]).unwrap());
        unet(&moved)
    };
    let (padded, exchanged) = (write([0, 1]), write([1, 0]));
    assert!(first != padded && padded != exchanged && first != exchanged);
    // The digest is that of the list that `sha256sum` prints.
    let list = std::process::Command::new("sha256sum")
        .current_dir(path.join("unet"))
        .args(["model.onnx", "0.bin", "1.bin"])
        .output()
        .unwrap();
    std::fs::write(path.join("list"), list.stdout).unwrap();
    let listed = succeeds(std::process::Command::new("sha256sum").arg(path.join("list"))).stdout;
    assert!(String::from_utf8(listed).unwrap().starts_with(&first), "{first}");
}

#[test]
fn every_graph_of_a_pipeline_has_a_digest_and_changes_that_of_the_pipeline() {
    let (_directory, path) = sd();
    let before = Bundle::open(&path).unwrap().digests().unwrap();
    let names: Vec<_> = before.by_name.keys().map(String::as_str).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae_decoder", "vae_encoder"]);
    for component in names {
        let (_directory, other) = copy_bundle(&path, "other");
        edit_graph(&other.join(component).join("model.onnx"), |graph| {
            graph.initializer[0].name.as_mut().unwrap().push('x');
        });
        let after = Bundle::open(&other).unwrap().digests().unwrap();
        assert_ne!(after.total, before.total, "{component}");
        for (name, digest) in &before.by_name {
            assert_eq!(after.by_name[name] == *digest, name != component, "{name}");
        }
    }
}

#[test]
fn a_graph_without_external_data_is_digested_as_sha256sum_does() {
    let gaussian = crate::common::golden("gaussian");
    let file = gaussian.join("unet/model.onnx");
    let sum = succeeds(std::process::Command::new("sha256sum").arg(&file)).stdout;
    let sha256 = &Bundle::open(&gaussian).unwrap().digests().unwrap().total;
    assert!(String::from_utf8(sum).unwrap().starts_with(sha256), "{sha256}");
}

#[test]
fn copies_of_an_open_folder_read_their_weights_once() {
    let (_directory, path) = sd();
    let first = Bundle::open(&path).unwrap();
    let second = first.clone();
    std::fs::remove_dir_all(path.join("vae_encoder")).unwrap();
    // Whatever is missing is named as soon as it is needed.
    let missing = first.digests().unwrap_err().to_string();
    assert!(missing.starts_with(&path.join("vae_encoder/model.onnx").display().to_string()), "{missing}");
    let (_other, other) = sd();
    std::fs::rename(other.join("vae_encoder"), path.join("vae_encoder")).unwrap();
    let digests = first.digests().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert!(Arc::ptr_eq(&digests, &second.digests().unwrap()));
}

#[test]
fn memory_counts_external_data_of_any_name() {
    let (_directory, path) = sd();
    let graph = path.join("unet/model.onnx");
    externalize(&graph, |_| "weights/all.bin".to_owned());
    // Values that a graph may name and does not need take memory as well.
    let data = std::fs::OpenOptions::new().write(true).open(path.join("unet/weights/all.bin")).unwrap();
    data.set_len(6 << 20).unwrap();
    std::fs::write(path.join("unet/model_fp16.onnx_data"), vec![0; 3 << 20]).unwrap();
    let bytes = 2 * graph.metadata().unwrap().len() + (6 << 20);
    let mut inspect = denoised();
    let report = succeeds(inspect.arg("inspect").arg(&path).args(["--engine", "embedded"])).stdout;
    let expected = format!("  {:<20} {:.1} MiB\n", "sd", bytes as f64 / f64::from(1 << 20));
    assert!(String::from_utf8_lossy(&report).contains(&expected), "{expected}");
    let mut command = sample("embedded", &path, &path.join("x.npy"));
    command.args(["--prompt", PROMPT]).env("DENOISED_ENGINE__MEMORY", "2 MiB");
    let error = fails(&mut command, 2);
    assert!(
        error.contains("sd has a graph of 6 MiB, more than the 2 MiB that [engine] memory allows"),
        "{error}"
    );
}

#[test]
fn weights_outside_the_folder_missing_or_short_are_refused_when_the_folder_is_opened() {
    let broken = |location: &str, offset: u64| {
        let (directory, path) = sd();
        edit_graph(&path.join("vae_decoder/model.onnx"), |graph| {
            let tensor = &mut graph.initializer[0];
            tensor.raw_data = None;
            point_to(tensor, location, offset, 64);
        });
        (directory, path)
    };
    for location in ["../weights.bin", "a/../../weights.bin", "/etc/hostname"] {
        let (_directory, path) = broken(location, 0);
        let error = error(&path);
        assert!(
            error.contains("vae_decoder/model.onnx") && error.contains("outside the folder of the graph"),
            "{error}"
        );
    }
    let (_directory, path) = broken("weights.bin", 16);
    let missing = error(&path);
    assert!(
        missing.contains("vae_decoder/weights.bin: model.onnx has weights in this file, which is missing"),
        "{missing}"
    );
    std::fs::write(path.join("vae_decoder/weights.bin"), [0; 79]).unwrap();
    let short = error(&path);
    assert!(short.contains("it has 79 bytes, but model.onnx has the values of"), "{short}");
    assert!(short.contains("in 80 bytes of it"), "{short}");
    std::fs::write(path.join("vae_decoder/weights.bin"), [0; 80]).unwrap();
    Bundle::open(&path).unwrap();
    // A command reports the same, once.
    std::fs::remove_file(path.join("vae_decoder/weights.bin")).unwrap();
    let stderr = fails(denoised().arg("inspect").arg(&path).args(["--engine", "embedded"]), 1);
    assert_eq!(stderr.trim_end(), format!("denoised: {missing}"));
}

#[test]
fn links_to_the_blobs_of_a_hub_are_followed_on_both_engines() {
    let (directory, path) = sd();
    let blobs = directory.path().join("blobs");
    for component in ["unet", "vae_decoder"] {
        let file = |name: &str| path.join(component).join(name);
        externalize(&file("model.onnx"), |_| "model.onnx_data".to_owned());
        move_to_blobs(&file("model.onnx_data"), &blobs, &format!("{component}-data"));
        move_to_blobs(&file("model.onnx"), &blobs, &format!("{component}-graph"));
    }
    let (_directory, elsewhere) = sd();
    externalize(&elsewhere.join("unet/model.onnx"), |index| format!("{}.bin", index % 2));
    move_to_blobs(&elsewhere.join("unet/0.bin"), &directory.path().join("elsewhere"), "weights");
    let expected = sample_image_on("embedded", &bundle("sd"), &[]);
    for path in [&path, &elsewhere] {
        assert!(sample_image_on("embedded", path, &[]) == expected);
        assert!(
            sample_image_on("onnxruntime", path, &[]) == sample_image_on("onnxruntime", &bundle("sd"), &[])
        );
    }
    if cfg!(target_arch = "x86_64") {
        // ONNX Runtime 1.24.1 does not follow links out of the folder.
        let image = |path: &Path| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("x.npy");
            let mut command = sample("onnxruntime", path, &file);
            command.env("ORT_DYLIB_PATH", library("DENOISED_TEST_OPENVINO"));
            succeeds(command.args(["--prompt", PROMPT, "--steps", "5", "--seed", "3"]));
            values(&file).1
        };
        let expected = image(&bundle("sd"));
        assert!(image(&path) == expected && image(&elsewhere) == expected);
    }
}
