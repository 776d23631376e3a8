//! The commands `sample` and `check-config`, and the program's output streams.

use std::path::Path;

use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, onnxruntime, succeeds};
use crate::common::{golden, largest_difference};
use denoised::npy;

fn sample(bundle: &Path, more: &[&str], output: &Path) -> std::process::Command {
    let mut command = denoised();
    command.arg("sample").arg(bundle).args(more).arg("--output").arg(output);
    command
}

fn values(path: &Path) -> Vec<f32> {
    npy::read(path).unwrap().iter().copied().collect()
}

#[cfg(feature = "system-tests")]
#[test]
fn both_engines_make_the_same_sixteen_threes() {
    let directory = tempfile::tempdir().unwrap();
    let (embedded, runtime, grid) =
        (directory.path().join("e.npy"), directory.path().join("o.npy"), directory.path().join("grid.png"));
    let arguments = ["--class", "3", "--count", "16", "--seed", "1"];
    let output = succeeds(&mut sample(&model("digits"), &arguments, &embedded));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("on embedded rten"), "{stderr}");
    let mut with_runtime = sample(&model("digits"), &arguments, &runtime);
    let output = succeeds(with_runtime.env("ORT_DYLIB_PATH", onnxruntime()));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("on onnxruntime 1."), "{stderr}");
    assert_eq!(npy::read(&embedded).unwrap().shape(), [16, 1, 28, 28]);
    let difference = largest_difference(&values(&embedded), &values(&runtime));
    assert!(difference < 1e-3, "the engines differ by {difference}");

    succeeds(&mut sample(&model("digits"), &arguments, &grid));
    let picture = image::open(&grid).unwrap().to_luma8();
    assert_eq!(picture.dimensions(), (4 * 30 + 2, 4 * 30 + 2));
}

#[test]
fn a_directory_gets_one_file_per_image() {
    let directory = tempfile::tempdir().unwrap();
    let images = directory.path().join("images");
    let more = ["--count", "2", "--seed", "5", "--steps", "2", "--class", "1"];
    succeeds(&mut sample(&model("digits"), &more, &images));
    let mut names: Vec<_> = std::fs::read_dir(&images)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["0000-5.png", "0001-6.png"]);
    let picture = image::open(images.join("0000-5.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (28, 28));
}

#[test]
fn a_swiss_roll_becomes_a_scatter_plot() {
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("roll.png");
    succeeds(&mut sample(&model("swissroll"), &["--seed", "1", "--steps", "50"], &picture));
    let picture = image::open(&picture).unwrap().to_luma8();
    assert_eq!(picture.dimensions(), (256, 256));
    let dark = picture.pixels().filter(|pixel| pixel.0[0] < 128).count();
    assert!((500..20_000).contains(&dark), "{dark} dark pixels");
}

#[test]
fn equal_seeds_give_equal_samples_and_other_seeds_other_samples() {
    let directory = tempfile::tempdir().unwrap();
    let sampled = |name: &str, seed: &str| {
        let path = directory.path().join(name);
        let more = ["--seed", seed, "--count", "2", "--steps", "5", "--sampler", "ddpm"];
        succeeds(&mut sample(&golden("gaussian"), &more, &path));
        values(&path)
    };
    let (one, again, other) = (sampled("a.npy", "1"), sampled("b.npy", "1"), sampled("c.npy", "2"));
    assert_eq!(one, again);
    // Image 1 of seed 1 is image 0 of seed 2.
    assert_eq!(one[20..], other[..20]);
    assert_ne!(one[..20], other[..20]);
}

/// Compares with diffusers' loops over this graph, once from the same seed and once from the noise that they drew.
#[test]
fn a_seed_and_its_recorded_noise_give_the_samples_of_diffusers() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("x.npy");
    let folders = std::fs::read_dir(golden("seeds")).unwrap();
    let mut compared = Vec::new();
    for folder in folders.map(|entry| entry.unwrap().path()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let (_, steps) = name.split_once('-').unwrap();
        let expected = values(&folder.join("sample.npy"));
        let mut command = sample(&golden("gaussian"), &["--steps", steps, "--seed", "42"], &output);
        command.args(["--noise", "torch"]).arg("--scheduler").arg(folder.join("scheduler_config.json"));
        succeeds(&mut command);
        let by_seed = largest_difference(&values(&output), &expected);
        assert!(by_seed < 1e-4, "{name}: {by_seed} from its seed");
        let mut command = sample(&golden("gaussian"), &["--steps", steps], &output);
        command.arg("--scheduler").arg(folder.join("scheduler_config.json"));
        command.arg("--init-noise").arg(folder.join("initial.npy"));
        if folder.join("noise.npy").exists() {
            command.arg("--step-noise").arg(folder.join("noise.npy"));
        }
        succeeds(&mut command);
        let by_noise = largest_difference(&values(&output), &expected);
        let bound = if steps == "1000" { 1e-4 } else { 1e-5 };
        assert!(by_noise < bound, "{name}: {by_noise} from its noise");
        println!("{name}: {by_seed:.1e} from its seed, {by_noise:.1e} from its noise");
        compared.push(name);
    }
    assert_eq!(compared.len(), 5, "{compared:?}");
}

/// One timestep per sample, one scalar for the batch, and one int64 for a batch of exactly two.
#[cfg(feature = "system-tests")]
#[test]
fn graphs_with_other_inputs_give_the_same_samples_on_both_engines() {
    let directory = tempfile::tempdir().unwrap();
    for engine in ["embedded", "onnxruntime"] {
        let sampled = |bundle: &str| {
            let output = directory.path().join(format!("{engine}-{bundle}.npy"));
            let more =
                ["--seed", "3", "--count", "5", "--steps", "7", "--sampler", "ddpm", "--engine", engine];
            succeeds(sample(&golden(bundle), &more, &output).env("ORT_DYLIB_PATH", onnxruntime()));
            values(&output)
        };
        let expected = sampled("gaussian");
        for bundle in ["gaussian-scalar", "gaussian-fixed"] {
            let difference = largest_difference(&sampled(bundle), &expected);
            assert!(difference < 1e-5, "{engine}, {bundle}: {difference}");
        }
    }
    for (bundle, expected) in [
        ("gaussian-scalar", "timestep             timestep float32, one for the whole batch"),
        ("gaussian-fixed", "input                noisy float32[2, 1, 4, 5]"),
    ] {
        let output = succeeds(denoised().arg("inspect").arg(golden(bundle)));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn wrong_arguments_exit_2_and_name_the_flag() {
    let output = Path::new("unused.png");
    for (more, expected) in [
        (&["--steps", "0"][..], "--steps: steps is 0, but must lie between 1 and 100000"),
        (&["--steps", "1000000000"], "--steps: steps is 1000000000"),
        (
            &["--steps", "1001"],
            "--steps: steps is 1001, but dpmpp_2m_sde takes 1 to 1000 steps with this model",
        ),
        (&["--class", "10"], "--class: class is 10, but digits has classes 0 to 9"),
        (&["--class", "-1"], "--class: class is -1"),
        (
            &["--sampler", "magic"],
            "there is no sampler named \"magic\"; use one of: ddpm, ddim, ddim_inverse, pndm",
        ),
        (
            &["--sampler", "ddpm", "--eta", "0.5"],
            "--eta: eta is 0.5, but this sampler's noise can't be scaled; remove eta",
        ),
        (&["--eta", "1.5"], "--eta: eta is 1.5"),
        (&["--guidance", "3"], "--guidance: guidance needs a class"),
        (&["--noise", "dice"], "--noise: noise is \"dice\", but must be one of: torch, philox"),
        (&["--count", "0"], "--count: count is 0"),
        (&["--init-noise", "/nonexistent.npy"], "--init-noise: /nonexistent.npy"),
    ] {
        let mut command = denoised();
        command.arg("sample").arg(model("digits")).args(more);
        let stderr = fails(command.arg("--output").arg(output), 2);
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
    }
}

#[test]
fn noise_of_another_shape_or_too_few_draws_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let noise = directory.path().join("noise.npy");
    std::fs::write(&noise, npy::write(&[2, 1, 5, 4], &[0.5; 40]).unwrap()).unwrap();
    let output = directory.path().join("x.npy");
    let mut command = sample(&golden("gaussian"), &["--steps", "5"], &output);
    let stderr = fails(command.arg("--init-noise").arg(&noise), 2);
    assert!(stderr.contains("shape [2, 1, 5, 4], but [2, 1, 4, 5] is needed"), "{stderr}");

    // An array without the axis of images was taken for one with as many images as it has rows.
    std::fs::write(&noise, npy::write(&[4, 5], &[0.5; 20]).unwrap()).unwrap();
    for (more, shape) in [(&[][..], "[1, 1, 4, 5]"), (&["--count", "2"], "[2, 1, 4, 5]")] {
        let mut command = sample(&golden("gaussian"), &["--steps", "5"], &output);
        let stderr = fails(command.args(more).arg("--init-noise").arg(&noise), 2);
        assert!(stderr.contains(&format!("shape [4, 5], but {shape} is needed")), "{stderr}");
    }

    std::fs::write(&noise, npy::write(&[2, 1, 1, 4, 5], &[0.5; 40]).unwrap()).unwrap();
    let mut command = sample(&golden("gaussian"), &["--sampler", "ddpm", "--steps", "5"], &output);
    let stderr = fails(command.arg("--step-noise").arg(&noise), 2);
    assert!(stderr.contains("too few draws, 2; this sampler draws 4 times"), "{stderr}");
    assert!(!output.exists());
}

#[test]
fn a_closed_stdout_ends_the_program_by_sigpipe() {
    let bundle = golden("gaussian").display().to_string();
    for arguments in [&["inspect", &bundle[..]][..], &["doctor"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = denoised().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(13));
    }
}

#[test]
fn a_full_disk_under_stdout_is_an_error_that_names_it() {
    let bundle = golden("gaussian").display().to_string();
    for arguments in [&["inspect", &bundle[..]][..], &["check-config"], &["man"], &["demo"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = denoised().args(arguments).stdout(full).output().unwrap();
        let stderr = "denoised: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(1), stderr));
    }
}

#[test]
fn check_config_reports_all_errors_and_exits_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[mqtt]\nport = 1\nqos = 9\n").unwrap();
    let stderr = fails(denoised().arg("check-config").arg("--config").arg(file.path()), 2);
    let place = file.path().display();
    assert!(stderr.contains(&format!("{place}:2: mqtt.port: unknown field `port`")), "{stderr}");
    assert!(stderr.contains(&format!("{place}:3: mqtt.qos")), "{stderr}");
    std::fs::write(file.path(), "[mqtt]\nqos = 2\n").unwrap();
    succeeds(denoised().arg("check-config").arg("--config").arg(file.path()));
    let example = crate::common::repository().join("systemd/config.toml");
    succeeds(denoised().arg("check-config").arg("--config").arg(example));
}
