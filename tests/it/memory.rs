//! `[engine] memory`: what fits runs, what does not is refused before it runs, and what was measured is kept.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, sample, values};
use crate::common::{largest_difference, read_json};

/// Draws a picture of `sd` on the embedded engine with a cache of its own.
fn draw(cache: &Path, output: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = sample("embedded", &bundle("sd"), output);
    command.args(["--prompt", PROMPT, "--steps", "2", "--seed", "3"]);
    command.env("DENOISED_ENGINE__CACHE", cache).envs(variables.iter().copied());
    command
}

/// Draws until the network was measured: an evaluation beside the opening of the decoder is not.
fn measure_network(cache: &Path, output: &Path) {
    let is_measured = |key: &String| key.starts_with("unet ");
    for _ in 0..20 {
        succeeds(&mut draw(cache, output, &[]));
        let file = cache.join("measurements.json");
        let sessions =
            || read_json(&file)["sessions"].as_object().is_some_and(|all| all.keys().any(is_measured));
        if file.exists() && sessions() {
            return;
        }
    }
    panic!("the network was never measured");
}

/// Replaces what was measured of a graph of `sd` by one evaluation of a sample of `values` values.
fn set_measurement(cache: &Path, component: &str, values: u64, bytes: u64) {
    let file = cache.join("measurements.json");
    let mut contents = read_json(&file);
    let sessions = contents["sessions"].as_object_mut().unwrap();
    let session = sessions.iter_mut().find(|(key, _)| key.starts_with(&format!("{component} ")));
    let (_, session) = session.unwrap_or_else(|| panic!("nothing was measured of {component}"));
    let measured = session["measurements"].as_array().unwrap();
    assert!(measured.iter().any(|measurement| measurement["values"] == values), "{measured:?}");
    session["measurements"] = json!([{"values": values, "batch": 1, "bytes": bytes, "held": 0}]);
    (session["open"], session["opening"]) = (json!(0), json!(0));
    std::fs::write(file, contents.to_string()).unwrap();
}

/// The root of a machine with this much free memory, on which nothing is measured.
fn machine(free: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("proc")).unwrap();
    std::fs::write(root.path().join("proc/meminfo"), format!("MemAvailable: {free} kB\n")).unwrap();
    root
}

#[test]
fn a_network_larger_than_the_machine_is_refused_before_it_is_opened() {
    let root = machine("2048");
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.npy");
    let root = root.path().to_str().unwrap();
    let variables = [("DENOISED_BOARD__ROOT", root)];
    let error = fails(&mut draw(folder.path(), &output, &variables), 1);
    let expected = "sd: its network needs 2 MiB of memory, but there are 2 MiB available on this machine; raise that limit, \
                    close other programs, or use a smaller model. [engine] memory = \"none\" turns this check off";
    assert!(error.contains(expected), "{error}");
    let unlimited = [("DENOISED_BOARD__ROOT", root), ("DENOISED_ENGINE__MEMORY", "none")];
    succeeds(&mut draw(folder.path(), &output, &unlimited));
}

#[test]
fn a_limit_of_the_address_space_is_the_reason_that_is_named() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("proc/self");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(
        own.join("limits"),
        "Max address space         2097152              unlimited            bytes\n",
    )
    .unwrap();
    std::fs::write(own.join("status"), "VmSize:\t    1024 kB\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let variables = [("DENOISED_BOARD__ROOT", root.path().to_str().unwrap())];
    let error = fails(&mut draw(folder.path(), &folder.path().join("x.npy"), &variables), 1);
    let expected = "needs 2 MiB of memory, but there are 1 MiB left by the address space limit (ulimit -v)";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_was_measured_survives_a_restart_and_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, output) = (folder.path().join("cache"), folder.path().join("x.npy"));
    measure_network(&cache, &output);
    // The network's samples have 4×16×16 values. 100 MiB for 32×32 pixels are 400 MiB for twice the height and width, and
    // attention of one head is 4 MiB more.
    set_measurement(&cache, "unet", 4 * 16 * 16, 100 << 20);
    let root = machine("8000000");
    let limited = |memory: &str, width: &str, height: &str| {
        let variables =
            [("DENOISED_BOARD__ROOT", root.path().to_str().unwrap()), ("DENOISED_ENGINE__MEMORY", memory)];
        let mut command = draw(&cache, &output, &variables);
        command.args(["--width", width, "--height", height]);
        command
    };
    succeeds(&mut limited("300 MiB", "32", "32"));
    let error = fails(&mut limited("300 MiB", "64", "64"), 2);
    let expected = "height is 64, but with width 64 an evaluation of sd needs 405 MiB at batch 1 with its weights, and \
                    [engine] memory allows 300 MiB; use 44 or less with this width";
    assert!(error.contains(expected), "{error}");
    succeeds(&mut limited("300 MiB", "64", "44"));
    let error = fails(&mut limited("20 MiB", "256", "128"), 2);
    assert!(error.contains("; reduce height too, or raise [engine] memory"), "{error}");
}

#[test]
fn the_decoder_tiles_by_itself_as_vae_tile_does() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, root) = (folder.path().join("cache"), machine("8000000"));
    let picture = |name: &str, variables: &[(&str, &str)]| {
        let output = folder.path().join(name);
        let mut command = draw(&cache, &output, variables);
        command.args(["--width", "128", "--height", "96"]).env("RUST_LOG", "info");
        let stderr = succeeds(&mut command).stderr;
        (values(&output).1, String::from_utf8(stderr).unwrap())
    };
    // The first picture with a limit that is not ample measures 16×16 latents.
    let (_, log) = picture("measured.npy", &[("DENOISED_ENGINE__MEMORY", "300 MiB")]);
    assert!(!log.contains("in tiles of"), "{log}");
    // With 4 MiB for those and the attention of one head, 32×32 latents take 19 MiB, and 40×40 take 34 MiB.
    set_measurement(&cache, "vae_decoder", 4 * 16 * 16, 4 << 20);
    set_measurement(&cache, "unet", 4 * 48 * 64, 1 << 20);
    let unmeasured = ("DENOISED_BOARD__ROOT", root.path().to_str().unwrap());
    let limited = |memory: &'static str| [unmeasured, ("DENOISED_ENGINE__MEMORY", memory)];
    let (tiled, log) = picture("tiled.npy", &limited("30 MiB"));
    let expected = "vae_decoder: 128×96 pixels are processed in tiles of 64 pixels ([engine] memory)";
    assert!(log.contains(expected), "{log}");
    let fixed = [unmeasured, ("DENOISED_ENGINE__MEMORY", "none"), ("DENOISED_ENGINE__VAE_TILE", "64")];
    let (configured, log) = picture("configured.npy", &fixed);
    assert!(!log.contains("in tiles of"), "{log}");
    let (whole, _) = picture("whole.npy", &limited("none"));
    assert!(tiled == configured, "{}", largest_difference(&tiled, &configured));
    assert!(tiled != whole);
}

#[test]
fn an_automatic_batch_measures_its_throughput_and_draws_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let pictures = |name: &str, batch: &str| {
        let output = folder.path().join(name);
        let mut command = draw(&cache, &output, &[("DENOISED_ENGINE__BATCH", batch)]);
        succeeds(command.args(["--count", "4"]));
        values(&output)
    };
    let automatic = pictures("automatic.npy", "auto");
    assert_eq!(automatic.0, pictures("pairs.npy", "2").0);
    let contents = read_json(&cache.join("measurements.json"));
    let sessions = contents["sessions"].as_object().unwrap();
    let timed =
        sessions.values().filter(|session| session["timings"].as_array().is_some_and(|all| !all.is_empty()));
    assert!(timed.count() > 0, "{contents}");
}
