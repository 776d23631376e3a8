//! The time from the start of a process to an image on disk, and the cost of an idle daemon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use denoised::model::Batch;

use crate::clock::{median, median_seconds};
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::commands::{denoised, onnxruntime};
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;
use crate::engines::{BareSession, embedded, load, network};
use crate::table::Row;
use crate::timed_process::memory_mib;

const ROUNDS: usize = 7;

/// Returns a command that samples an image in ten steps.
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

/// Runs a command. Returns its peak resident memory in MiB, which the kernel reports until the process ends, and its
/// seconds.
fn run_measured(mut command: Command) -> (f64, f64) {
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak = 0.0_f64;
    loop {
        peak = peak.max(memory_mib(child.id(), "VmHWM:"));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return (peak, start.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Returns the seconds that the embedded engine takes to load a bundle and evaluate it ten times.
fn embedded_alone(bundle: &Path) -> f64 {
    let mut output = Vec::new();
    let mut load_and_evaluate = || {
        let mut model = load(bundle, &embedded());
        let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
        batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &model.bundle.manifest);
        (0..10).for_each(|_| model.predictor.evaluate(&batch, &mut output).unwrap());
    };
    median_seconds(ROUNDS, &mut [&mut load_and_evaluate])[0]
}

fn command_rows() -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let row = |name: &str, bundle: &Path, engine: &str, alone: f64| {
        let times = (0..ROUNDS).map(|_| run_measured(sample(bundle, engine, folder.path())).1);
        let whole = median(times.collect());
        Row::new(
            format!("start to image, ten steps, {name}, {engine}, minus the engine's time"),
            whole - alone,
            "s",
        )
        .at_most(0.1)
        .remark(format!("{whole:.3} s in total, {alone:.3} s of the engine alone"))
    };
    let digits = model("digits");
    let mut rows = vec![row("digits", &digits, "embedded", embedded_alone(&digits))];
    if let Some(tiny) = network("unet300k") {
        let alone = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            let mut bare = BareSession::open(&tiny, &[3, 32, 32]);
            bare.run(10);
            start.elapsed().as_secs_f64()
        });
        rows.push(row("unet300k", &tiny, "onnxruntime", median(alone.collect())));
        let (own, bare) = (run_measured(sample(&tiny, "onnxruntime", folder.path())).0, {
            let mut bare = BareSession::open(&tiny, &[3, 32, 32]);
            bare.run(10);
            bare.peak_memory()
        });
        rows.push(
            Row::new(
                "peak memory minus that of the engine and the model, unet300k, onnxruntime",
                own - bare,
                "MiB",
            )
            .at_most(40.0)
            .remark(format!("{own:.0} MiB in total, {bare:.0} MiB of a bare session")),
        );
    }
    rows
}

/// Compares with Python programs that draw such an image.
fn python_rows() -> Vec<Row> {
    let (Some(python), Some(tiny)) = (std::env::var_os("DENOISED_BENCH_PYTHON"), network("unet300k")) else {
        return Vec::new();
    };
    let folder = tempfile::tempdir().unwrap();
    let python_command = |kind: &str| {
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
            own.push(run_measured(sample(&tiny, "onnxruntime", folder.path())));
            other.push(run_measured(python_command(kind)));
        }
        let times = |runs: &[(f64, f64)]| median(runs.iter().map(|(_, seconds)| *seconds).collect());
        let peaks = |runs: &[(f64, f64)]| median(runs.iter().map(|(peak, _)| *peak).collect());
        Row::new(
            format!("a process of {name} beside `denoised sample`, ten steps, unet300k"),
            times(&other) / times(&own),
            "×",
        )
        .remark(format!(
            "{:.2} s and {:.0} MiB beside {:.2} s and {:.0} MiB",
            times(&other),
            peaks(&other),
            times(&own),
            peaks(&own)
        ))
    });
    rows.into()
}

/// Returns the CPU time of a process in seconds. The kernel counts in hundredths.
fn cpu_time(process: u32) -> f64 {
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
    let (start, before) = (Instant::now(), cpu_time(process));
    std::thread::sleep(Duration::from_secs(10));
    let share = (cpu_time(process) - before) / start.elapsed().as_secs_f64() * 100.0;
    vec![
        Row::new("an idle daemon with `digits`, embedded: CPU", share, "%").at_most(1.0),
        Row::new(
            "an idle daemon with `digits`, embedded: resident memory",
            memory_mib(process, "VmRSS:"),
            "MiB",
        )
        .at_most(30.0),
    ]
}

/// Measures the section about start-up and idle daemons.
pub fn rows() -> Vec<Row> {
    [command_rows(), python_rows(), idle()].concat()
}
