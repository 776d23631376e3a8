//! Text-to-image pipelines as optimum exports them, against the reference pipelines' results.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::daemon::{Broker, Daemon, Subscriber, configuration, onnxruntime, publish, succeeds};
use crate::common::pipelines::{PROMPT, bundle, drawn, refused, sample, values};
use crate::common::{golden, largest_difference, read_json};
use serde_json::{Value, json};

/// The flags of a case of `tests/golden/latent/make.py`.
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
        let words = case["scheduler"].to_string();
        std::fs::write(&file, words).unwrap();
        command.arg("--scheduler").arg(file);
    }
}

fn every_case(engine: &str) {
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
        let difference = |found: Vec<f32>, file: &str| {
            largest_difference(&found, &values(&bundle(case["files"][file].as_str().unwrap())).1)
        };
        let (shape, image) = values(&image);
        // [N, 3, H, W] in −1..1 is what the reference has as [N, H, W, 3] in 0..1.
        let plane = shape[2] * shape[3];
        let seen = (0..3 * plane).map(|i| (image[i % 3 * plane + i / 3] / 2.0 + 0.5).clamp(0.0, 1.0));
        let (image, latents) =
            (difference(seen.collect(), "image"), difference(values(&latents).1, "latents"));
        let bound = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
        if image > bound("image_max_abs") || latents > bound("latents_max_abs") {
            wrong.push(format!("{}: latents {latents}, image {image}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[cfg(feature = "system-tests")]
#[test]
fn every_pipeline_draws_the_reference_s_picture_by_its_seed_on_onnx_runtime() {
    every_case("onnxruntime");
}

#[test]
fn every_pipeline_draws_the_reference_s_picture_by_its_seed_on_the_embedded_engine() {
    every_case("embedded");
}

#[cfg(feature = "system-tests")]
#[test]
fn several_pictures_of_one_job_are_those_of_their_seeds() {
    let pair = drawn(&bundle("sd"), &["--count", "2"]);
    let (first, second) = pair.split_at(pair.len() / 2);
    assert!(largest_difference(first, &drawn(&bundle("sd"), &[])) < 1e-4);
    assert!(largest_difference(first, second) > 0.1);
}

#[cfg(feature = "system-tests")]
#[test]
fn wrong_words_and_pictures_are_refused_by_their_flag() {
    let path = |name: &str| bundle(name).display().to_string();
    let (init, mask, tall) = (path("init.png"), path("mask.png"), path("tall.png"));
    let long = "a".repeat(100_000);
    for (more, expected) in [
        (&["--prompt", &long][..], "--prompt: prompt has 100000 bytes"),
        (&[], "--prompt: sd needs a prompt; \"\" is allowed"),
        (
            &["--prompt", "", "--width", "33"],
            "--width: width is 33, but must be a multiple of 2; use 32 or 34",
        ),
        (&["--prompt", "", "--width", "0"], "--width: width is 0"),
        (&["--prompt", "", "--width", "100000", "--height", "100000"], "limits.pixels"),
        (&["--prompt", "", "--width", "4611686018427387904", "--height", "16"], "limits.pixels"),
        (&["--prompt", "", "--prompt-2", "x"], "--prompt-2: sd does not support prompt_2; remove it"),
        (&["--prompt", "", "--crop", "1,2"], "--crop: sd does not support crop; remove it"),
        (&["--prompt", "", "--max-sequence-length", "9"], "--max-sequence-length: "),
        (
            &["--prompt", "", "--image", &tall],
            "--image: image: the image has 32×48 pixels, but 32×32 are needed",
        ),
        (&["--prompt", "", "--image", &init, "--mask", &tall], "--mask: mask: the image has 32×48 pixels"),
        (&["--prompt", "", "--mask", &mask], "--mask: mask needs an image"),
        (&["--prompt", "", "--image", &init, "--strength", "1.5"], "--strength: strength is 1.5"),
        (&["--prompt", "", "--image", &init, "--strength", "0.1"], "leaves none of 4 steps"),
        (&["--prompt", "", "--strength", "0.5"], "--strength: strength needs an image"),
        (&["--prompt", "", "--guidance-rescale", "2"], "--guidance-rescale"),
        (
            &["--prompt", "", "--image", &path("cases.json")],
            "--image: image: the file is neither PNG nor JPEG",
        ),
    ] {
        let words = refused(&bundle("sd"), more);
        assert!(words.contains(expected), "{expected}: {words}");
    }
    assert!(refused(&bundle("lcm"), &["--prompt", "", "--negative-prompt", "x"]).contains("has no effect"));
    assert!(
        refused(&bundle("flux"), &["--prompt", "", "--clip-skip", "1"])
            .contains("flux does not support clip_skip; remove it")
    );
    assert!(refused(&golden("gaussian"), &["--guidance-rescale", "2"]).contains("between 0 and 1"));
    assert!(refused(&golden("gaussian"), &["--prompt", "x"]).contains("takes no text; remove prompt"));
}

#[cfg(feature = "system-tests")]
#[cfg(feature = "system-tests")]
#[test]
fn a_daemon_draws_what_it_is_told_in_words_and_goes_on_after_nonsense() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cpu\"]",
        onnxruntime().display().to_string()
    );
    let models = [bundle("sd"), bundle("sdxl")];
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    let _daemon = Daemon::start(&configuration(&broker, "test", &models, &engine));
    subscriber.phase("ready");
    let request = |id: &str, more: Value| {
        let mut job = json!({"id": id, "steps": 3, "seed": 5, "prompt": PROMPT});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        publish(&broker, "denoised/test/request", &job.to_string(), &[]);
    };
    use base64::Engine as _;
    let coded = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut bomb = std::fs::read(bundle("init.png")).unwrap();
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    for (id, field, more) in [
        ("long", "prompt", json!({"prompt": "x".repeat(100_000)})),
        ("bomb", "image", json!({"image": coded(&bomb)})),
        ("cut", "image", json!({"image": coded(&std::fs::read(bundle("init.png")).unwrap()[..60])})),
        ("text", "image", json!({"image": "?"})),
        ("odd", "height", json!({"height": 31})),
        ("skip", "clip_skip", json!({"clip_skip": 1})),
    ] {
        request(id, more);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["field"], field, "{error}");
    }
    request("words", json!({"prompt": "snow ".repeat(100), "negative_prompt": "dog", "count": 2}));
    request("wide", json!({"model": "sdxl", "width": 48, "preview_every": 1}));
    let picture = coded(&std::fs::read(bundle("init.png")).unwrap());
    request("from", json!({"image": picture, "strength": 0.7}));
    let mut receipts = std::collections::BTreeMap::new();
    while receipts.len() < 3 {
        let result = subscriber.next(|m| m.topic.contains("/result/"));
        let id = result.topic.rsplit('/').next().unwrap().to_owned();
        receipts.insert(id, result.json()["images"][0]["receipt"].clone());
    }
    assert_eq!(receipts["words"]["negative_prompt"], "dog");
    assert!(receipts["words"]["cut"][0].as_str().unwrap().starts_with("snow snow"), "{}", receipts["words"]);
    assert_eq!(receipts["wide"]["size"], json!([48, 32]));
    assert_eq!(receipts["from"]["strength"], 0.7);
    let previews = subscriber.seen.iter().filter(|m| m.topic == "denoised/test/preview/wide");
    assert!(previews.map(|m| assert!(m.payload.starts_with(b"\x89PNG"))).count() >= 2);
}

#[cfg(feature = "system-tests")]
#[cfg(feature = "system-tests")]
#[test]
fn graphs_make_way_for_one_another_within_the_memory_that_is_allowed() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // Room for the larger network and a little more.
    let engine = "[engine]\nkind = \"embedded\"\nmemory = \"2800 KiB\"";
    let models = [bundle("sd"), bundle("sdxl")];
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    let mut daemon = Daemon::start(&configuration(&broker, "test", &models, engine));
    subscriber.phase("ready");
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
    // What fits at no time is refused before it starts.
    let engine = "[engine]\nkind = \"embedded\"\nmemory = \"100 KiB\"";
    let _other = Daemon::start(&configuration(&broker, "small", &[&bundle("sd")], engine));
    let mut subscriber = Subscriber::start(&broker, "denoised/small/#");
    subscriber.phase("ready");
    publish(&broker, "denoised/small/request", r#"{"id": "large", "prompt": ""}"#, &[]);
    let error = subscriber.on("denoised/small/error/large").json();
    assert!(error["message"].as_str().unwrap().contains("[engine] memory allows"), "{error}");
}

#[cfg(feature = "system-tests")]
#[test]
fn large_pictures_are_tiled_as_the_reference_tiles_them() {
    use denoised::inference::{EngineKind, EngineOptions};
    use denoised::model::{LatentDistribution, Model};
    use denoised::tensor::Tensor;
    let options =
        EngineOptions { kind: EngineKind::Embedded, vae_tile: Some(32), ..EngineOptions::default() };
    let latent = Model::load(&bundle("sd"), &options).unwrap().latent.unwrap();
    let known = |name: &str| values(&bundle(&format!("tiles.{name}.npy")));
    let (shape, latents) = known("latents");
    let picture = latent.decode(&latents, &shape).unwrap();
    let (shape, expected) = known("picture");
    assert_eq!(picture.shape, shape);
    assert!(largest_difference(&picture.data, &expected) < 1e-5);
    let LatentDistribution::Normal { mean, deviation } =
        latent.encode(&Tensor::new(shape, expected)).unwrap()
    else {
        panic!("the encoder drew by itself");
    };
    assert!(largest_difference(&mean, &known("mean").1) < 1e-5);
    assert!(largest_difference(&deviation, &known("deviation").1) < 1e-5);
}
