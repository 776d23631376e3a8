//! Graphs that are prepared for the CPU once and kept in the engine cache, with ONNX Runtime.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rten_onnx::onnx::DataType;
use tempfile::TempDir;

use crate::common::commands::{onnxruntime, succeeds};
use crate::common::large_network::write_bundle;
use crate::common::largest_difference;
use crate::common::onnx_files::{externalize, move_to_blobs};
use crate::common::pipelines::{sample, values};
use crate::common::small_disk::SmallDisk;

/// A bundle that is prepared, and an empty cache.
struct Fixture {
    directory: TempDir,
    cache: PathBuf,
}

impl Fixture {
    fn new(element: DataType) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { cache: directory.path().join("cache"), directory };
        write_bundle(&fixture.bundle(), element);
        fixture
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("large")
    }

    fn command(&self) -> Command {
        let mut command = sample("onnxruntime", &self.bundle(), &self.directory.path().join("x.npy"));
        command.env("DENOISED_ENGINE__CACHE", &self.cache).env("RUST_LOG", "info");
        command.args(["--steps", "2", "--seed", "3"]);
        command
    }

    /// Runs a command that samples, and returns the sample and the log.
    fn sample_with(&self, command: &mut Command) -> (Vec<f32>, String) {
        let output = succeeds(command);
        let sample = values(&self.directory.path().join("x.npy")).1;
        (sample, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn sample(&self) -> (Vec<f32>, String) {
        self.sample_with(&mut self.command())
    }

    /// The sample of the exported graph.
    fn exported(&self) -> Vec<f32> {
        let (sample, log) = self.sample_with(self.command().env("DENOISED_ENGINE__CACHE", "/proc/none"));
        assert!(log.contains("cannot keep the prepared graph of large"), "{log}");
        sample
    }

    /// The directories in the cache.
    fn entries(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.cache).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    /// The directory of the only entry.
    fn entry(&self) -> PathBuf {
        let [entry] = &self.entries()[..] else { panic!("{:?}", self.entries()) };
        assert!(entry.extension().is_none(), "{}", entry.display());
        entry.clone()
    }
}

fn is_prepared(log: &str) -> bool {
    log.contains("prepared the graph of large in")
}

#[test]
fn a_float16_graph_is_prepared_once_and_later_starts_give_the_same_bits() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let (first, log) = fixture.sample();
    assert!(is_prepared(&log), "{log}");
    let weights = fixture.entry().join("weights.bin").metadata().unwrap().len();
    // Two tensors of 75,497,440 bytes, the second at the next page.
    assert_eq!(weights, 150_994_912);
    let (second, log) = fixture.sample();
    assert!(!log.contains("prepar"), "{log}");
    assert!(first == second);
    let exported = fixture.exported();
    let difference = largest_difference(&first, &exported);
    assert!(difference > 0.0 && difference < 0.02, "{difference}");
}

#[test]
fn a_float32_graph_refers_to_the_weights_of_the_export_also_behind_links() {
    let fixture = Fixture::new(DataType::FLOAT);
    externalize(&fixture.bundle().join("unet/model.onnx"), |_| "model.onnx_data".to_owned());
    let (first, log) = fixture.sample();
    assert!(is_prepared(&log), "{log}");
    let files = std::fs::read_dir(fixture.entry()).unwrap();
    assert!(files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() < 1 << 16);
    assert!(largest_difference(&first, &fixture.exported()) < 1e-4);
    // The same contents in the cache of a hub are the same graph.
    let blobs = fixture.directory.path().join("blobs");
    for (name, blob) in [("model.onnx", "a1"), ("model.onnx_data", "b2")] {
        move_to_blobs(&fixture.bundle().join("unet").join(name), &blobs, blob);
    }
    let (second, log) = fixture.sample();
    assert!(!log.contains("prepar"), "{log}");
    assert!(first == second);
}

#[test]
fn a_damaged_entry_is_reported_and_prepared_again() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let (first, _) = fixture.sample();
    let entry = fixture.entry();
    let weights = entry.join("weights.bin");
    let damage: [(&str, &dyn Fn()); 8] = [
        ("weights.bin has other contents from byte 8388608 on", &|| {
            let file = File::options().read(true).write(true).open(&weights).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 9_000_000).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 9_000_000).unwrap();
        }),
        ("weights.bin has 1000000 bytes instead of", &|| {
            File::options().write(true).open(&weights).unwrap().set_len(1_000_000).unwrap();
        }),
        ("other.onnx is not its file", &|| std::fs::write(entry.join("other.onnx"), "x").unwrap()),
        ("model.onnx has other contents from byte 0 on", &|| {
            let file = File::options().write(true).open(entry.join("model.onnx")).unwrap();
            file.write_all_at(b"\xff", 0).unwrap();
        }),
        ("manifest.json: No such file", &|| std::fs::remove_file(entry.join("manifest.json")).unwrap()),
        ("manifest.json: ", &|| std::fs::write(entry.join("manifest.json"), "{").unwrap()),
        ("it is not complete", &|| std::fs::remove_file(entry.join("key.json")).unwrap()),
        ("it is of another graph", &|| std::fs::write(entry.join("key.json"), "{\"graph\": \"x\"}").unwrap()),
    ];
    for (fault, apply) in damage {
        apply();
        let (again, log) = fixture.sample();
        assert!(log.contains(fault) && is_prepared(&log), "{fault}: {log}");
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(again == first, "{fault}");
        let (later, log) = fixture.sample();
        assert!(!log.contains("prepar") && later == first, "{fault}: {log}");
    }
    // A link to a file elsewhere is no file of the entry, whatever it contains.
    let elsewhere = fixture.directory.path().join("elsewhere.bin");
    std::fs::rename(&weights, &elsewhere).unwrap();
    symlink(&elsewhere, &weights).unwrap();
    let (again, log) = fixture.sample();
    assert!(log.contains("weights.bin is not a file") && again == first, "{log}");
}

#[test]
fn what_a_killed_writer_left_is_removed() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let mut child = fixture.command().stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    log.find(|line| line.as_ref().unwrap().contains("preparing the graph of large")).unwrap().unwrap();
    let is_writing = || {
        let weights = fixture.entries().into_iter().map(|entry| entry.join("weights.bin").metadata());
        weights.flatten().any(|metadata| metadata.len() > 1 << 20)
    };
    while !is_writing() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let [half] = &fixture.entries()[..] else { panic!("{:?}", fixture.entries()) };
    assert_eq!(half.extension().unwrap(), "tmp");
    // An older one, of another graph.
    let other = fixture.cache.join("other-cpu-graph-0123456789abcdef.tmp");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("weights.bin"), "half").unwrap();
    let (first, log) = fixture.sample();
    assert!(is_prepared(&log), "{log}");
    assert!(fixture.entry().join("weights.bin").is_file());
    assert!(fixture.sample().0 == first);
}

#[test]
fn two_starts_at_the_same_time_prepare_the_graph_once() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let mut children: Vec<_> = (0..2)
        .map(|index| {
            let file = fixture.directory.path().join(format!("{index}.npy"));
            (sample_to(&fixture, &file).stderr(Stdio::piped()).spawn().unwrap(), file)
        })
        .collect();
    let logs: Vec<_> = children
        .drain(..)
        .map(|(child, file)| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            (String::from_utf8_lossy(&output.stderr).into_owned(), values(&file).1)
        })
        .collect();
    assert_eq!(logs.iter().filter(|(log, _)| is_prepared(log)).count(), 1, "{:?}", logs[0].0);
    assert!(logs[0].1 == logs[1].1);
    fixture.entry();
}

/// A command that samples to another file.
fn sample_to(fixture: &Fixture, file: &Path) -> Command {
    let mut command = sample("onnxruntime", &fixture.bundle(), file);
    command.env("DENOISED_ENGINE__CACHE", &fixture.cache).env("RUST_LOG", "info");
    command.args(["--steps", "2", "--seed", "3"]);
    command
}

#[test]
fn a_full_disk_costs_one_warning_and_the_exported_graph_serves() {
    let disk = SmallDisk::new(32);
    let fixture = Fixture::new(DataType::FLOAT16);
    let full = || {
        let mut command = fixture.command();
        command.env("DENOISED_ENGINE__CACHE", disk.path());
        fixture.sample_with(&mut command)
    };
    let (sample, log) = full();
    assert!(sample == fixture.exported());
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("No space left on device"), "{}", warnings[0]);
    assert!(warnings[0].contains("Make room, or set [engine] cache"), "{}", warnings[0]);
    let entries = std::fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.collect();
    names.retain(|name| name != "lock" && name != "digests.json" && name != "measurements.json");
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn an_entry_in_a_cache_that_cannot_be_written_is_used() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let (first, _) = fixture.sample();
    // A read-only bind mount holds for root too.
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,ro,bind {0} && exec \"$@\"",
        fixture.cache.display()
    );
    let original = fixture.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(original.get_program()).args(original.get_args());
    for (name, value) in original.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let (second, log) = fixture.sample_with(&mut command);
    assert!(!log.contains("WARN") && !log.contains("prepar"), "{log}");
    assert!(first == second);
    // Without an entry the exported graph serves.
    std::fs::remove_dir_all(fixture.entry()).unwrap();
    let (sample, log) = fixture.sample_with(&mut command);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("Read-only file system") && warnings[0].contains("[engine] cache"), "{log}");
    assert!(sample == fixture.exported());
}

#[test]
fn the_cache_keeps_within_its_size() {
    let fixture = Fixture::new(DataType::FLOAT16);
    fixture.sample();
    let first = fixture.entry();
    // Another model is prepared, for which the first has to go.
    let other = fixture.directory.path().join("other");
    std::fs::rename(fixture.bundle(), &other).unwrap();
    let sample_other = |size: &str| {
        let mut command = sample("onnxruntime", &other, &fixture.directory.path().join("x.npy"));
        command.env("DENOISED_ENGINE__CACHE", &fixture.cache).env("DENOISED_ENGINE__CACHE_SIZE", size);
        command.env("RUST_LOG", "info").args(["--steps", "2", "--seed", "3"]);
        fixture.sample_with(&mut command)
    };
    let (_, log) = sample_other("100 MiB");
    assert!(log.contains("do not fit in [engine] cache_size (100 MiB)"), "{log}");
    assert!(first.exists());
    let (_, log) = sample_other("200 MiB");
    assert!(log.contains("prepared the graph of other"), "{log}");
    assert!(!first.exists());
    let entry = fixture.entry();
    assert!(entry.file_name().unwrap().to_string_lossy().starts_with("other-cpu-graph-"));
}

#[test]
fn inspect_shows_what_is_prepared() {
    let fixture = Fixture::new(DataType::FLOAT16);
    let mut command = crate::common::commands::denoised();
    command.env("ORT_DYLIB_PATH", onnxruntime()).env("DENOISED_ENGINE__PROVIDERS", "cpu");
    command.env("DENOISED_ENGINE__CACHE", &fixture.cache).arg("inspect").arg(fixture.bundle());
    let stdout = String::from_utf8(succeeds(&mut command).stdout).unwrap();
    let line = "  unet                 prepared, 144.0 MiB in the engine cache; 0 attention blocks rewritten, 0 left\n";
    assert!(stdout.contains(&format!("\nPreparation\n{line}")), "{stdout}");
}
