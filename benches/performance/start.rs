//! From a process's start to a picture on disk, and an idle daemon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use denoised::model::Batch;

use crate::clock::{in_turns, median};
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::commands::{denoised, onnxruntime};
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;
use crate::engines::{Bare, embedded, load, network};
use crate::mqtt_peer::figure;
use crate::table::Row;

const ROUNDS: usize = 7;

/// Ten steps of a bundle by the command, on an engine.
fn sample(bundle: &Path, engine: &str, folder: &Path) -> Command {
    let mut command = denoised();
    command
        .env("ORT_DYLIB_PATH", onnxruntime())
        .env("DENOISED_ENGINE__PROVIDERS", "cpu")
        .args(["sample", "--engine", engine, "--sampler", "ddim", "--steps", "10", "--seed", "1"])
        .arg(bundle)
        .arg("--output")
        .arg(folder.join("x.png"))
        .stderr(Stdio::null());
    command
}

/// The most that a process was resident with, in MiB, and its seconds; the kernel keeps the highest mark, which
/// is read until the process ends.
fn watched(mut command: Command) -> (f64, f64) {
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut most = 0.0_f64;
    loop {
        most = most.max(figure(child.id(), "VmHWM:"));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return (most, start.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// The seconds that the embedded engine takes by itself for loading and ten evaluations.
fn embedded_alone(bundle: &Path) -> f64 {
    let mut output = Vec::new();
    let mut all = || {
        let mut model = load(bundle, &embedded());
        let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
        batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &model.bundle.manifest);
        (0..10).for_each(|_| model.predictor.evaluate(&batch, &mut output).unwrap());
    };
    in_turns(ROUNDS, &mut [&mut all])[0]
}

fn command_rows() -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let row = |name: &str, bundle: &Path, engine: &str, alone: f64| {
        let times = (0..ROUNDS).map(|_| watched(sample(bundle, engine, folder.path())).1);
        let whole = median(times.collect());
        Row::new(
            format!("start to picture, ten steps, {name}, {engine}, beyond the engine's own time"),
            whole - alone,
            "s",
        )
        .at_most(0.1)
        .remark(format!("{whole:.3} s in all, the engine alone {alone:.3} s"))
    };
    let digits = model("digits");
    let mut rows = vec![row("digits", &digits, "embedded", embedded_alone(&digits))];
    if let Some(tiny) = network("unet300k") {
        let alone = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            let mut bare = Bare::open(&tiny, &[3, 32, 32]);
            bare.run(10);
            start.elapsed().as_secs_f64()
        });
        rows.push(row("unet300k", &tiny, "onnxruntime", median(alone.collect())));
        let (own, bare) = (watched(sample(&tiny, "onnxruntime", folder.path())).0, {
            let mut bare = Bare::open(&tiny, &[3, 32, 32]);
            bare.run(10);
            bare.resident()
        });
        rows.push(
            Row::new(
                "resident beside the engine's and model's own, unet300k, onnxruntime",
                own - bare,
                "MiB",
            )
            .at_most(40.0)
            .remark(format!("{own:.0} MiB in all, the bare engine {bare:.0} MiB")),
        );
    }
    rows
}

/// Whole processes of Python that draw such an image, beside ours.
fn python_rows() -> Vec<Row> {
    let (Some(python), Some(tiny)) = (std::env::var_os("DENOISED_BENCH_PYTHON"), network("unet300k")) else {
        return Vec::new();
    };
    let folder = tempfile::tempdir().unwrap();
    let of_python = |kind: &str| {
        let mut command = Command::new(&python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/whole.py"))
            .args([kind.as_ref(), tiny.join("unet/model.onnx").as_os_str()])
            .arg(tiny.join("scheduler/scheduler_config.json"))
            .arg(folder.path().join("python.png"))
            .stderr(Stdio::null());
        command
    };
    let kinds = [
        ("diffusers", "diffusers and ONNX Runtime in Python"),
        ("plain", "numpy and ONNX Runtime in Python"),
    ];
    let rows = kinds.map(|(kind, name)| {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            own.push(watched(sample(&tiny, "onnxruntime", folder.path())));
            other.push(watched(of_python(kind)));
        }
        let times = |runs: &[(f64, f64)]| median(runs.iter().map(|(_, seconds)| *seconds).collect());
        let most = |runs: &[(f64, f64)]| median(runs.iter().map(|(most, _)| *most).collect());
        Row::new(
            format!("a whole process of {name} beside ours, ten steps, unet300k"),
            times(&other) / times(&own),
            "×",
        )
        .remark(format!(
            "{:.2} s and {:.0} MiB beside {:.2} s and {:.0} MiB",
            times(&other),
            most(&other),
            times(&own),
            most(&own)
        ))
    });
    rows.into()
}

/// Seconds of processor time that a process has used; the kernel counts in hundredths.
fn processor(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn idle() -> Vec<Row> {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let daemon =
        Daemon::start(&configuration(&broker, "test", &[&model("digits")], "[engine]\nkind = \"embedded\""));
    subscriber.wait_for_phase("ready");
    let process = daemon.process.child.id();
    let (start, before) = (Instant::now(), processor(process));
    std::thread::sleep(Duration::from_secs(10));
    let share = (processor(process) - before) / start.elapsed().as_secs_f64() * 100.0;
    vec![
        Row::new("an idle daemon with `digits`, embedded: processor", share, "%").at_most(1.0),
        Row::new("an idle daemon with `digits`, embedded: resident", figure(process, "VmRSS:"), "MiB")
            .at_most(30.0),
    ]
}

/// The section about starting.
pub fn rows() -> Vec<Row> {
    [command_rows(), python_rows(), idle()].concat()
}
