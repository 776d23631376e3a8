//! `denoised visualize`, and inpainting.

use crate::common::bundles::{copy_bundle, model};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::{golden, largest_difference};
use denoised::npy;

#[test]
fn visualize_draws_three_rows_for_a_swiss_roll() {
    let directory = tempfile::tempdir().unwrap();
    let figure = directory.path().join("figure.png");
    let mut command = denoised();
    command.arg("visualize").arg(model("swissroll")).args(["--seed", "3"]).arg("--output").arg(&figure);
    let output = succeeds(&mut command);
    assert!(String::from_utf8(output.stderr).unwrap().contains("t = 0, 149, 999"));
    let picture = image::open(&figure).unwrap().to_luma8();
    assert_eq!(picture.dimensions(), (3 * 258 + 2, 3 * 258 + 2));
    let ink = |column: u32, row: u32| {
        let tile =
            (0..256 * 256).map(|i| picture.get_pixel(2 + column * 258 + i % 256, 2 + row * 258 + i / 256));
        tile.filter(|pixel| pixel.0[0] < 128).count()
    };
    for column in 0..3 {
        for row in 0..3 {
            assert!((300..20_000).contains(&ink(column, row)), "{column}, {row}: {}", ink(column, row));
        }
    }
    // At t = 0 both rows show samples of the model.
    assert!(ink(0, 0).abs_diff(ink(0, 1)) < 200);
}

#[test]
fn an_image_is_noised_at_the_requested_time_steps() {
    let directory = tempfile::tempdir().unwrap();
    let (picture, strip) = (directory.path().join("x.npy"), directory.path().join("strip.png"));
    let half = [[1.0; 392], [-1.0; 392]].concat();
    std::fs::write(&picture, npy::write(&[1, 28, 28], &half).unwrap()).unwrap();
    let mut command = denoised();
    command.arg("visualize").arg(model("digits")).args(["--at", "0,999"]).arg("--image").arg(&picture);
    succeeds(command.arg("--output").arg(&strip));
    let strip = image::open(&strip).unwrap().to_luma8();
    assert_eq!(strip.dimensions(), (2 * 114 + 2, 116));
    let mean = |x: u32, y: u32| {
        let pixels = (0..112 * 56).map(|i| f64::from(strip.get_pixel(x + i % 112, y + i / 112).0[0]));
        pixels.sum::<f64>() / f64::from(112 * 56)
    };
    assert!(mean(2, 2) > 250.0 && mean(2, 58) < 5.0, "t = 0 shows another picture");
    assert!((mean(116, 2) - mean(116, 58)).abs() < 30.0, "t = 999 is not pure noise");

    let figure = directory.path().join("unused.png");
    let mut command = denoised();
    command.arg("visualize").arg(model("digits")).args(["--at", "5,1000"]).arg("--output").arg(&figure);
    let stderr = fails(&mut command, 2);
    assert!(stderr.contains("--at: time step 1000 is beyond the schedule's last, 999"), "{stderr}");
    let mut command = denoised();
    command.arg("visualize").arg(model("swissroll")).args(["--class", "3"]).arg("--output").arg(&figure);
    let stderr = fails(&mut command, 2);
    assert!(stderr.contains("swissroll has no classes"), "{stderr}");
    let mut command = denoised();
    command.arg("visualize").arg(model("digits-ncsn")).arg("--output").arg(&figure);
    let stderr = fails(&mut command, 2);
    assert!(stderr.contains("AnnealedLangevinDynamics has no noise schedule"), "{stderr}");
}

#[test]
fn a_class_was_demanded_and_ignored_for_a_picture_that_is_given() {
    let (directory, digits) = copy_bundle(&model("digits"), "digits");
    let picture = directory.path().join("x.npy");
    std::fs::write(&picture, npy::write(&[1, 28, 28], &[0.5; 784]).unwrap()).unwrap();
    let draw = |more: &[&str]| {
        let mut command = denoised();
        command.arg("visualize").arg(&digits).arg("--image").arg(&picture).args(more).arg("--output");
        String::from_utf8(succeeds(command.arg(directory.path().join("strip.png"))).stderr).unwrap()
    };
    assert!(
        draw(&["--class", "5"])
            .starts_with("--class has no effect with --image, because no picture is drawn\n")
    );
    let manifest = digits.join("denoised.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let (before, classes) = text.split_once("[classes]").unwrap();
    let after = classes.find("\n[").map_or("", |start| &classes[start..]);
    std::fs::write(&manifest, [before, after].concat()).unwrap();
    assert!(!draw(&[]).contains("--class"));
}

#[test]
fn a_wrong_default_of_the_model_was_reported_as_a_flag_that_visualize_lacks() {
    let (_directory, bundle) = copy_bundle(&model("digits"), "digits");
    let manifest = bundle.join("denoised.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"dpmpp_2m_sde\"", "\"magic\"")).unwrap();
    let mut command = denoised();
    let stderr = fails(command.arg("visualize").arg(&bundle).args(["--output", "unused.png"]), 1);
    let expected =
        format!("denoised: {}: default.sampler: there is no sampler named \"magic\"", manifest.display());
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn inpainting_keeps_the_unmasked_region_and_repaints_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let known: Vec<f32> = (0..20).map(|i| i as f32 / 20.0).collect();
    let repainted: Vec<f32> = (0..20).map(|i| if i < 10 { 0.0 } else { 1.0 }).collect();
    std::fs::write(path("image.npy"), npy::write(&[1, 4, 5], &known).unwrap()).unwrap();
    std::fs::write(path("mask.npy"), npy::write(&[1, 4, 5], &repainted).unwrap()).unwrap();
    let sample = |sampler: &str| {
        let mut command = denoised();
        command.arg("sample").arg(golden("gaussian")).args([
            "--sampler",
            sampler,
            "--steps",
            "20",
            "--seed",
            "1",
        ]);
        command.arg("--image").arg(path("image.npy")).arg("--output").arg(path("x.npy"));
        command
    };
    for sampler in ["repaint", "ddim", "dpmpp_2m", "euler_a"] {
        succeeds(sample(sampler).arg("--mask").arg(path("mask.npy")));
        let found: Vec<f32> = npy::read(&path("x.npy")).unwrap().iter().copied().collect();
        assert!(largest_difference(&found[..10], &known[..10]) < 1e-6, "{sampler}: {found:?}");
        assert!(largest_difference(&found[10..], &known[10..]) > 0.1, "{sampler}: {found:?}");
    }
    let stderr = fails(&mut sample("repaint"), 2);
    assert!(stderr.contains("--mask: repaint needs a mask"), "{stderr}");
    let stderr = fails(&mut sample("dpm_single"), 2);
    assert!(stderr.contains("--image: dpm_single can't start from an image"), "{stderr}");
}
