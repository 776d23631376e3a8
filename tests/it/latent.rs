//! Compares text-to-image pipelines that optimum exported with the reference pipelines.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::broker::{Broker, publish};
use crate::common::commands::{onnxruntime, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::pipelines::{PROMPT, bundle, packed, rejection, sample, sample_image, values};
use crate::common::subscriber::Subscriber;
use crate::common::{golden, largest_difference, read_json};
use serde_json::{Value, json};

/// Adds the flags of a case of `tests/golden/latent/make.py`.
fn flags(case: &Value, folder: &Path, command: &mut Command) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (flag, key) in
        [("--prompt", "prompt"), ("--steps", "steps"), ("--guidance", "guidance"), ("--seed", "seed")]
    {
        command.args([flag, &text(&case[key])]);
    }
    if let Some(negative) = case["negative_prompt"].as_str() {
        command.args(["--negative-prompt", negative]);
    }
    for (flag, key) in [("--image", "init_image"), ("--mask", "mask_image")] {
        if let Some(file) = case[key].as_str() {
            command.arg(flag).arg(bundle(file));
        }
    }
    for (key, value) in case["options"].as_object().unwrap() {
        let flag = match key.as_str() {
            "crops_coords_top_left" => "--crop".to_owned(),
            other => format!("--{}", other.replace('_', "-")),
        };
        let value = match value {
            Value::Array(pair) => pair.iter().map(text).collect::<Vec<_>>().join(","),
            other => text(other),
        };
        command.args([flag, value]);
    }
    if case["scheduler_is_folder_default"] == false {
        let file = folder.join("scheduler.json");
        std::fs::write(&file, case["scheduler"].to_string()).unwrap();
        command.arg("--scheduler").arg(file);
    }
}

fn check_all_cases(engine: &str) {
    let cases = read_json(&bundle("cases.json"));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 25);
    let mut wrong = Vec::new();
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let (image, latents) = (folder.path().join("image.npy"), folder.path().join("latents.npy"));
        let mut command = sample(engine, &bundle(case["folder"].as_str().unwrap()), &image);
        command.arg("--latents").arg(&latents);
        flags(case, folder.path(), &mut command);
        succeeds(&mut command);
        let expected = |file: &str| values(&bundle(case["files"][file].as_str().unwrap()));
        let (shape, image) = values(&image);
        // The reference stores images as [N, H, W, 3] in 0..1, not as [N, 3, H, W] in −1..1.
        let plane = shape[2] * shape[3];
        let converted = (0..3 * plane).map(|i| (image[i % 3 * plane + i / 3] / 2.0 + 0.5).clamp(0.0, 1.0));
        let image = largest_difference(&converted.collect::<Vec<_>>(), &expected("image").1);
        let ((shape, latents), (planes, mut reference)) = (values(&latents), expected("latents"));
        if case["folder"] == "flux" {
            // The reference was unpacked, with `_unpack_latents`.
            let [n, channels, height, width] = planes[..] else { panic!("{planes:?}") };
            assert_eq!(shape, [n, height * width / 4, 4 * channels]);
            reference = packed(&reference, [channels, height, width]);
        } else {
            assert_eq!(shape, planes);
        }
        let latents = largest_difference(&latents, &reference);
        let bound = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
        if image > bound("image_max_abs") || latents > bound("latents_max_abs") {
            wrong.push(format!("{}: latents {latents}, image {image}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[cfg(feature = "system-tests")]
#[test]
fn every_pipeline_reproduces_its_reference_on_onnx_runtime() {
    check_all_cases("onnxruntime");
}

#[test]
fn every_pipeline_reproduces_its_reference_on_the_embedded_engine() {
    check_all_cases("embedded");
}

#[cfg(feature = "system-tests")]
#[test]
fn each_image_of_a_job_has_its_own_seed() {
    let pair = sample_image(&bundle("sd"), &["--count", "2"]);
    let (first, second) = pair.split_at(pair.len() / 2);
    assert!(largest_difference(first, &sample_image(&bundle("sd"), &[])) < 1e-4);
    assert!(largest_difference(first, second) > 0.1);
}

#[cfg(feature = "system-tests")]
#[test]
fn invalid_prompts_and_images_are_rejected_with_the_name_of_their_flag() {
    let path = |name: &str| bundle(name).display().to_string();
    let (init, mask, tall) = (path("init.png"), path("mask.png"), path("tall.png"));
    let long = "a".repeat(100_000);
    for (more, expected) in [
        (&["--prompt", &long][..], "--prompt: prompt has 100000 bytes"),
        (&[], "--prompt: sd needs a prompt; \"\" is allowed"),
        (
            &["--prompt", "", "--width", "33"],
            "--width: width is 33, but this model needs a multiple of 4; use 32 or 36",
        ),
        (&["--prompt", "", "--width", "0"], "--width: width is 0"),
        (&["--prompt", "", "--width", "100000", "--height", "100000"], "limits.pixels"),
        (&["--prompt", "", "--width", "4611686018427387904", "--height", "16"], "limits.pixels"),
        (&["--prompt", "", "--prompt-2", "x"], "--prompt-2: sd does not support prompt_2; remove it"),
        (&["--prompt", "", "--crop", "1,2"], "--crop: sd does not support crop; remove it"),
        (&["--prompt", "", "--max-sequence-length", "9"], "--max-sequence-length: "),
        (&["--prompt", "", "--image", &tall], "--image: the picture has 32×48 pixels, but 32×32 are needed"),
        (&["--prompt", "", "--image", &init, "--mask", &tall], "--mask: the picture has 32×48 pixels"),
        (&["--prompt", "", "--mask", &mask], "--mask: mask needs an image"),
        (&["--prompt", "", "--image", &init, "--strength", "1.5"], "--strength: strength is 1.5"),
        (&["--prompt", "", "--image", &init, "--strength", "0.1"], "leaves none of 4 steps"),
        (&["--prompt", "", "--strength", "0.5"], "--strength: strength needs an image"),
        (&["--prompt", "", "--guidance-rescale", "2"], "--guidance-rescale"),
        (&["--prompt", "", "--image", &path("cases.json")], "--image: the file is not PNG, JPEG or WebP"),
    ] {
        let stderr = rejection(&bundle("sd"), more);
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    assert!(
        rejection(&bundle("flux"), &["--prompt", "", "--clip-skip", "1"])
            .contains("flux does not support clip_skip; remove it")
    );
    assert!(rejection(&golden("gaussian"), &["--guidance-rescale", "2"]).contains("between 0 and 1"));
    assert!(rejection(&golden("gaussian"), &["--prompt", "x"]).contains("takes no text; remove prompt"));
}

#[cfg(feature = "system-tests")]
#[test]
fn a_daemon_samples_prompts_and_continues_after_invalid_requests() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cpu\"]",
        onnxruntime().display().to_string()
    );
    let models = [bundle("sd"), bundle("sdxl")];
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    let _daemon = Daemon::start(&configuration(&broker, "test", &models, &engine));
    subscriber.wait_for_phase("ready");
    let request = |id: &str, more: Value| {
        let mut job = json!({"id": id, "steps": 3, "seed": 5, "prompt": PROMPT});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        publish(&broker, "denoised/test/request", &job.to_string(), &[]);
    };
    use base64::Engine as _;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut bomb = std::fs::read(bundle("init.png")).unwrap();
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    for (id, field, more) in [
        ("long", "prompt", json!({"prompt": "x".repeat(100_000)})),
        ("bomb", "image", json!({"image": base64(&bomb)})),
        ("cut", "image", json!({"image": base64(&std::fs::read(bundle("init.png")).unwrap()[..60])})),
        ("text", "image", json!({"image": "?"})),
        ("odd", "height", json!({"height": 31})),
        ("skip", "clip_skip", json!({"clip_skip": 1})),
    ] {
        request(id, more);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["field"], field, "{error}");
    }
    request("prompts", json!({"prompt": "snow ".repeat(100), "negative_prompt": "dog", "count": 2}));
    request("wide", json!({"model": "sdxl", "width": 48, "preview_every": 1}));
    let picture = base64(&std::fs::read(bundle("init.png")).unwrap());
    request("img2img", json!({"image": picture, "strength": 0.7}));
    let mut receipts = std::collections::BTreeMap::new();
    while receipts.len() < 3 {
        let result = subscriber.next(|m| m.topic.contains("/result/"));
        let id = result.topic.rsplit('/').next().unwrap().to_owned();
        receipts.insert(id, result.json()["images"][0]["receipt"].clone());
    }
    assert_eq!(receipts["prompts"]["negative_prompt"], "dog");
    assert!(
        receipts["prompts"]["cut"][0].as_str().unwrap().starts_with("snow snow"),
        "{}",
        receipts["prompts"]
    );
    assert_eq!(receipts["wide"]["size"], json!([48, 32]));
    assert_eq!(receipts["img2img"]["strength"], 0.7);
    let previews = subscriber.seen.iter().filter(|m| m.topic == "denoised/test/preview/wide");
    assert!(previews.map(|m| assert!(m.payload.starts_with(b"\x89PNG"))).count() >= 2);
}

#[cfg(feature = "system-tests")]
#[test]
fn sessions_are_evicted_to_stay_within_the_memory_limit() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // The limit fits the larger network, but not both. Nothing is measured on a machine without files in /proc.
    let machine = tempfile::tempdir().unwrap();
    let engine = |memory: &str| {
        let root = machine.path();
        format!(
            "[board]\nroot = {root:?}\n[engine]\nkind = \"embedded\"\nmemory = \"{memory}\"\ncache = {root:?}"
        )
    };
    let models = [bundle("sd"), bundle("sdxl")];
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    let mut daemon = Daemon::start(&configuration(&broker, "test", &models, &engine("2800 KiB")));
    subscriber.wait_for_phase("ready");
    let mut images = Vec::new();
    for round in 0..4 {
        for model in ["sd", "sdxl"] {
            let id = format!("{model}{round}");
            let job =
                json!({"id": id, "model": model, "steps": 2, "seed": 5, "prompt": PROMPT, "format": "npy"});
            publish(&broker, "denoised/test/request", &job.to_string(), &[]);
            images.push(subscriber.on("denoised/test/image").payload);
            subscriber.on(&format!("denoised/test/result/{id}"));
        }
    }
    assert!(images.chunks(2).all(|pair| pair == &images[..2]));
    for graph in ["sd", "sdxl"] {
        daemon.wait_for(&format!("evicted session {graph} (memory limit)"));
    }
    // A job whose largest session exceeds the limit is rejected before it starts.
    let mut other = Daemon::start(&configuration(&broker, "small", &[&bundle("sd")], &engine("100 KiB")));
    // Nothing said so before the first job failed.
    other.wait_for(
        "engine.memory allows 100 KiB, but sd alone needs 2 MiB, so that every job of sd will be refused",
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/small/#");
    subscriber.wait_for_phase("ready");
    publish(&broker, "denoised/small/request", r#"{"id": "large", "prompt": ""}"#, &[]);
    let error = subscriber.on("denoised/small/error/large").json();
    assert!(error["message"].as_str().unwrap().contains("[engine] memory allows"), "{error}");
}

#[cfg(feature = "system-tests")]
#[test]
fn vae_tiling_matches_the_reference() {
    use denoised::inference::{EngineKind, EngineOptions};
    use denoised::model::{LatentDistribution, Model};
    use denoised::tensor::Tensor;
    let options =
        EngineOptions { kind: EngineKind::Embedded, vae_tile: Some(32), ..EngineOptions::default() };
    let latent = Model::load(&bundle("sd"), &options).unwrap().latent.unwrap();
    let expected = |name: &str| values(&bundle(&format!("tiles.{name}.npy")));
    let (shape, latents) = expected("latents");
    let picture = latent.decode(&latents, &shape).unwrap();
    let (shape, pixels) = expected("picture");
    assert_eq!(picture.shape, shape);
    assert!(largest_difference(&picture.data, &pixels) < 1e-5);
    let LatentDistribution::Normal { mean, deviation } = latent.encode(&Tensor::new(shape, pixels)).unwrap()
    else {
        panic!("the encoder returned a sample");
    };
    assert!(largest_difference(&mean, &expected("mean").1) < 1e-5);
    assert!(largest_difference(&deviation, &expected("deviation").1) < 1e-5);
}
