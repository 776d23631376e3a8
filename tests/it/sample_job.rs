//! `denoised sample`: jobs and noise from files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, packed, sample, values};
use crate::common::{golden, largest_difference};
use denoised::npy;
use serde_json::json;
use tempfile::TempDir;

fn gaussian(output: &Path) -> Command {
    sample("embedded", &golden("gaussian"), output)
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stderr).unwrap()
}

/// A directory with `job.json`, and the path of an output beside it.
fn job_file(job: &serde_json::Value) -> (TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("job.json");
    std::fs::write(&file, job.to_string()).unwrap();
    let output = directory.path().join("x.npy");
    (directory, file, output)
}

#[test]
fn a_job_file_draws_what_the_same_flags_draw_and_flags_override_it() {
    let job = json!({"id": "three", "sampler": "ddpm", "steps": 5, "seed": 7, "count": 2});
    let (directory, file, output) = job_file(&job);
    let by_flags = directory.path().join("flags.npy");
    let flags = ["--sampler", "ddpm", "--steps", "5", "--seed", "7", "--count", "2"];
    succeeds(gaussian(&by_flags).args(flags));
    let text = stderr(gaussian(&output).arg("--job").arg(&file));
    assert!(text.starts_with("three: 2 × gaussian by ddpm in 5 steps"), "{text}");
    assert_eq!(values(&output), values(&by_flags));

    succeeds(gaussian(&output).arg("--job").arg(&file).args(["--count", "1", "--seed", "8"]));
    let (shape, second) = values(&output);
    assert_eq!(shape, [1, 1, 4, 5]);
    assert!(largest_difference(&second, &values(&by_flags).1[20..]) < 1e-5);
}

#[test]
fn a_job_is_read_from_standard_input() {
    let (_directory, _, output) = job_file(&json!({}));
    let mut child =
        gaussian(&output).args(["--job", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"steps": 3, "count": 3}"#).unwrap();
    let result = child.wait_with_output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    assert_eq!(values(&output).0, [3, 1, 4, 5]);
}

#[test]
fn pictures_of_a_job_file_are_found_beside_it() {
    let job = json!({"sampler": "ddim", "steps": 20, "seed": 1, "strength": 0.5,
        "image": {"file": "pictures/image.npy"}, "mask": {"file": "pictures/mask.npy"}});
    let (directory, file, output) = job_file(&job);
    let pictures = directory.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let (image, mask) = (pictures.join("image.npy"), pictures.join("mask.npy"));
    std::fs::write(&image, npy::write(&[1, 4, 5], &[0.25; 20]).unwrap()).unwrap();
    std::fs::write(&mask, npy::write(&[1, 4, 5], &[[0.0; 10], [1.0; 10]].concat()).unwrap()).unwrap();
    succeeds(gaussian(&output).current_dir("/").arg("--job").arg(&file));
    let from_job = values(&output).1;
    assert_eq!(from_job[..10], [0.25; 10]);
    let mut by_flags = gaussian(&output);
    by_flags.args(["--sampler", "ddim", "--steps", "20", "--seed", "1", "--strength", "0.5"]);
    succeeds(by_flags.arg("--image").arg(&image).arg("--mask").arg(&mask));
    assert_eq!(values(&output).1, from_job);

    // A flag replaces a picture, which then need not exist.
    std::fs::remove_file(pictures.join("mask.npy")).unwrap();
    let text = fails(gaussian(&output).arg("--job").arg(&file), 2);
    let expected = format!("job.json: mask: cannot read {}: No such file", mask.display());
    assert!(text.contains(&expected), "{text}");
    succeeds(gaussian(&output).arg("--job").arg(&file).arg("--mask").arg(&image));
}

#[test]
fn an_error_in_a_job_file_names_the_file_and_the_field() {
    for (job, flags, expected) in [
        (json!({"stepz": 5}), &[][..], "stepz"),
        (json!({"steps": "ten"}), &[], "job.json: steps"),
        (json!({"steps": 0}), &[], "job.json: steps is 0, but must lie between 1 and 100000"),
        (json!({"steps": 0}), &["--steps=-1"], "'--steps <STEPS>': expected a whole number, 0 or more"),
        (json!({"steps": 5}), &["--steps", "0"], "--steps: steps is 0, but must lie between 1 and 100000"),
        (
            json!({"count": 3, "conditions": {"mood": 1}}),
            &[],
            "job.json: conditions.mood: gaussian has no condition",
        ),
        (json!({}), &["--conditions", "hue=2,mood=1"], "--conditions: gaussian has no condition \"hue\""),
        (
            json!({"image": {"topic": "camera/front"}}),
            &[],
            "job.json: image: only the daemon fetches a topic",
        ),
        (json!({"image": {"file": "job.json"}}), &[], "job.json: image: the file is not PNG, JPEG or WebP"),
    ] {
        let (_directory, file, output) = job_file(&job);
        let text = fails(gaussian(&output).arg("--job").arg(&file).args(flags), 2);
        assert!(text.contains(expected), "{job} {flags:?}: {text}");
        assert!(!output.exists());
    }
    let text = fails(gaussian(Path::new("x.npy")).args(["--job", "/nonexistent.json"]), 2);
    assert!(text.contains("--job: cannot read /nonexistent.json: No such file"), "{text}");
}

#[test]
fn fields_that_sample_does_not_use_are_reported() {
    let job = json!({"model": "sdxl", "format": "png", "preview_every": 2, "priority": 1, "steps": 2});
    let (_directory, file, output) = job_file(&job);
    let text = stderr(gaussian(&output).arg("--job").arg(&file));
    let name = file.display();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            format!("{name}: model is sdxl, but the job runs on gaussian"),
            format!("{name}: format is png, but the ending of --output selects npy"),
            format!("{name}: preview_every has no effect in `sample`: nothing receives previews"),
            format!("{name}: priority has no effect in `sample`: there is no other job"),
        ]
    );
    let text = fails(gaussian(&output).args(["--format", "png"]), 2);
    assert!(text.contains("--format is png, but the ending of --output selects npy"), "{text}");
}

#[test]
fn the_noise_of_a_file_sets_the_count() {
    let (directory, file, output) = job_file(&json!({"count": 4}));
    let noise = directory.path().join("noise.npy");
    std::fs::write(&noise, npy::write(&[3, 1, 4, 5], &[0.5; 60]).unwrap()).unwrap();
    let sampled = |more: &[&str]| {
        let mut command = gaussian(&output);
        command.args(["--sampler", "ddim", "--steps", "5", "--init-noise"]).arg(&noise).args(more);
        command
    };
    succeeds(&mut sampled(&[]));
    assert_eq!(values(&output).0, [3, 1, 4, 5]);
    succeeds(&mut sampled(&["--count", "3"]));
    let text = fails(&mut sampled(&["--count", "2"]), 2);
    assert!(
        text.contains("--init-noise has noise for 3 images, but --count is 2; use the same number"),
        "{text}"
    );
    let text = fails(sampled(&["--job"]).arg(&file), 2);
    assert!(text.contains("--init-noise has noise for 3 images, but "), "{text}");
    assert!(text.contains("job.json: count is 4"), "{text}");
    let text = stderr(&mut sampled(&["--seed", "5"]));
    assert!(text.starts_with("seed has no effect: all noise comes from files\n"), "{text}");
}

#[test]
fn a_file_that_holds_no_noise_is_described() {
    let directory = tempfile::tempdir().unwrap();
    let (noise, output) = (directory.path().join("noise.npy"), directory.path().join("x.npy"));
    let good = npy::write(&[1, 1, 4, 5], &[0.5; 20]).unwrap();
    let mut doubles = good.clone();
    let dtype = doubles.windows(3).position(|bytes| bytes == b"<f4").unwrap();
    doubles[dtype + 2] = b'8';
    for (bytes, expected) in [
        (b"not an array".to_vec(), "this is not a .npy file; write one with numpy.save"),
        (
            doubles,
            "the array has dtype float64, but float32 is needed; convert it with array.astype(\"float32\")",
        ),
        (good[..200].to_vec(), "shape [1, 1, 4, 5] needs 80 bytes of values, but the file has 72"),
        (
            npy::write(&[1, 4, 5], &[0.5; 20]).unwrap(),
            "the array has shape [1, 4, 5], but [1, 1, 4, 5] is needed",
        ),
        (npy::write(&[0, 1, 4, 5], &[]).unwrap(), "has noise for no image"),
        (npy::write(&[], &[0.5]).unwrap(), "the array has shape [], but [1, 1, 4, 5] is needed"),
        (npy::write(&[1, 1, 4, 5], &[f32::NAN; 20]).unwrap(), "contains NaN or infinity"),
    ] {
        std::fs::write(&noise, bytes).unwrap();
        let text = fails(gaussian(&output).args(["--steps", "5", "--init-noise"]).arg(&noise), 2);
        assert!(text.contains("--init-noise") && text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn noise_for_a_deterministic_sampler_and_unused_draws_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (noise, output) = (directory.path().join("noise.npy"), directory.path().join("x.npy"));
    std::fs::write(&noise, npy::write(&[6, 1, 1, 4, 5], &[0.5; 120]).unwrap()).unwrap();
    let mut command = gaussian(&output);
    let text = fails(command.args(["--sampler", "ddim", "--steps", "5", "--step-noise"]).arg(&noise), 2);
    assert!(
        text.contains("--step-noise: ddim draws no noise with these options; remove --step-noise"),
        "{text}"
    );
    let mut command = gaussian(&output);
    let text = stderr(command.args(["--sampler", "ddpm", "--steps", "5", "--step-noise"]).arg(&noise));
    assert!(
        text.starts_with("--step-noise has 6 draws, but this sampler only takes the first 4\n"),
        "{text}"
    );
}

#[test]
fn packed_noise_for_flux_is_the_same_as_planes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let planes: Vec<f32> = (0..4 * 4 * 6).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let rows = packed(&planes, [4, 4, 6]);
    let sampled = |name: &str, shape: &[usize], noise: &[f32]| {
        std::fs::write(path(name), npy::write(shape, noise).unwrap()).unwrap();
        let mut command = sample("embedded", &bundle("flux"), &path("x.npy"));
        command.args(["--prompt", PROMPT, "--steps", "2", "--height", "8", "--width", "12"]);
        succeeds(command.arg("--init-noise").arg(path(name)).arg("--latents").arg(path("latents.npy")));
        (values(&path("x.npy")).1, values(&path("latents.npy")))
    };
    let (image, (shape, latents)) = sampled("planes.npy", &[1, 4, 4, 6], &planes);
    assert_eq!(shape, [1, 6, 16]);
    let (same_image, same_latents) = sampled("rows.npy", &[1, 6, 16], &rows);
    assert_eq!((same_image, same_latents.1), (image, latents));
}
