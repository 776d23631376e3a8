//! Jobs compared with their evaluations alone, and the cost of continuous batching.

use std::path::Path;
use std::time::Instant;

use denoised::inference::EngineOptions;
use denoised::job::{Job, JobLimits, ModelCard, Request};
use denoised::model::{Batch, Model, Predictor};
use denoised::pipeline::{JobEvent, Pipeline};
use diffusion_samplers::rng::Generator;
use serde_json::{Value, json};

use crate::clock::{median, median_seconds};
use crate::common::bundles::model;
use crate::engines::{BareSession, Shared, embedded, load, network, runtime};
use crate::table::Row;

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// Checks a request against the model of a pipeline.
pub fn job(pipeline: &Pipeline, request: Value) -> Job {
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(&[ModelCard::new(pipeline.model())], LIMITS, || 1).unwrap()
}

/// Runs the pipeline until it is idle. No job may fail.
pub fn drain(pipeline: &mut Pipeline) {
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| assert!(!matches!(event, JobEvent::Failed(_))));
    }
}

/// Compares 50 steps with 50 evaluations of the same session, and of a bare session in another process.
fn job_overhead(name: &str, max: f64) -> Vec<Row> {
    let Some(bundle) = network(name) else { return Vec::new() };
    let (model, mut session) = Shared::from_model(load(&bundle, &runtime()));
    let manifest = model.bundle.manifest.clone();
    let mut pipeline = Pipeline::new(model);
    let mut bare = BareSession::open(&bundle, &[3, 32, 32]);
    let request = job(&pipeline, json!({"sampler": "ddim", "steps": 50, "seed": 1}));
    let (mut ratios, shared) = (Vec::new(), session.clone());
    let mut whole_job = || {
        shared.take_seconds();
        let start = Instant::now();
        pipeline.accept(request.clone());
        drain(&mut pipeline);
        ratios.push(start.elapsed().as_secs_f64() / shared.take_seconds());
    };
    let mut evaluations = || bare.run(50);
    let mut batch = Batch { shape: vec![3, 32, 32], ..Batch::default() };
    let mut noise = vec![0.0; 3072];
    Generator::Torch.seeded(1).fill(&mut noise);
    batch.push(|x| x.extend(noise), 500.0, 0, &manifest);
    let mut output = Vec::new();
    let mut predictor = || (0..50).for_each(|_| session.evaluate(&batch, &mut output).unwrap());
    let times = median_seconds(21, &mut [&mut whole_job, &mut evaluations, &mut predictor]);
    let [job, bare, session] = [times[0], times[1], times[2]].map(|seconds| seconds * 1e3);
    let row = |label: &str, other: f64| {
        Row::new(format!("a job of 50 steps beside 50 {label}, {name}"), job / other, "×")
            .at_most(max)
            .remark(format!("{job:.1} ms beside {other:.1} ms"))
    };
    vec![
        Row::new(format!("a job of 50 steps beside its own 50 session runs, {name}"), median(ratios), "×")
            .at_most(max)
            .remark("the overhead of the sampling loop"),
        row("further session runs", session),
        row("runs of a bare session in another process", bare),
    ]
}

/// Compares eight jobs of one image with one job of eight images.
fn eight_jobs_beside_one(name: &str, options: &EngineOptions) -> Row {
    let mut one = Pipeline::new(load(&model("digits"), options));
    let mut eight = Pipeline::new(load(&model("digits"), options));
    let request = |seed: u64, count: u64| json!({"id": seed.to_string(), "sampler": "ddim", "steps": 20, "seed": seed, "count": count, "class": 1, "guidance": 1});
    let single: Vec<Job> = (0..8).map(|seed| job(&one, request(seed, 1))).collect();
    let joint = job(&eight, request(0, 8));
    let mut eight_jobs = || {
        single.iter().for_each(|single| one.accept(single.clone()));
        drain(&mut one);
    };
    let mut one_job = || {
        eight.accept(joint.clone());
        drain(&mut eight);
    };
    let times = median_seconds(9, &mut [&mut eight_jobs, &mut one_job]);
    Row::new(
        format!("eight requests of one image beside one request of eight, {name}"),
        times[0] / times[1],
        "×",
    )
    .at_most(1.1)
}

/// Compares a short job that runs while a long job runs with the same job at batch size two.
fn short_job_beside_long(name: &str, options: &EngineOptions) -> Row {
    let mut busy = Pipeline::new(load(&model("digits"), options));
    let mut idle = Pipeline::new(load(&model("digits"), options));
    let request = |id: &str, steps: u64, count: u64| json!({"id": id, "sampler": "ddim", "steps": steps, "seed": 1, "count": count, "class": 1, "guidance": 1});
    let (long, short) = (job(&busy, request("long", 1000, 1)), job(&busy, request("short", 10, 1)));
    let pair = job(&idle, request("pair", 10, 2));
    busy.accept(long.clone());
    let mut while_busy = || {
        busy.accept(short.clone());
        let mut finished = false;
        while !finished {
            busy.step(&mut |job, event| {
                finished |= matches!(event, JobEvent::Finished { .. }) && job.id == "short";
            });
        }
    };
    let mut at_batch_two = || {
        idle.accept(pair.clone());
        drain(&mut idle);
    };
    let times = median_seconds(21, &mut [&mut while_busy, &mut at_batch_two]);
    Row::new(
        format!("10 steps while a job of 1,000 steps runs, beside 10 steps at batch size two, {name}"),
        times[0] / times[1],
        "×",
    )
    .at_most(1.5)
}

/// The cost of padding one sample to a fixed batch size of eight.
fn padding(options: &EngineOptions) -> Row {
    let mut digits = load(&model("digits"), options);
    let time = |model: &mut Model, samples: usize| {
        let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
        for _ in 0..samples {
            batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &model.bundle.manifest);
        }
        let mut output = Vec::new();
        median_seconds(21, &mut [&mut || model.predictor.evaluate(&batch, &mut output).unwrap()])[0]
    };
    let (one, eight) = (time(&mut digits, 1), time(&mut digits, 8));
    Row::new(
        "an evaluation padded from one sample to eight, beside one of a single sample, onnxruntime",
        eight / one,
        "×",
    )
    .remark("only graphs with a fixed batch size are padded; that of `digits` is dynamic")
}

/// Returns the CPU time of all threads of this process in seconds.
fn cpu_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let used = tasks.filter_map(|task| {
        // The file is missing if the thread has ended.
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    used.sum::<f64>() / 1e9
}

/// Compares the embedded engine with ONNX Runtime at batch size one, in wall-clock time and in CPU time.
fn engines(bundle: &Path) -> Vec<Row> {
    const EVALUATIONS: usize = 20;
    let (mut own, mut other) = (load(bundle, &embedded()), load(bundle, &runtime()));
    let manifest = own.bundle.manifest.clone();
    let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
    batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &manifest);
    let mut output = Vec::new();
    let mut cpu = [Vec::new(), Vec::new()];
    let mut wall = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for ((model, cpu), wall) in [&mut own, &mut other].into_iter().zip(&mut cpu).zip(&mut wall) {
            let (start, before) = (Instant::now(), cpu_time());
            (0..EVALUATIONS).for_each(|_| model.predictor.evaluate(&batch, &mut output).unwrap());
            wall.push(start.elapsed().as_secs_f64() / EVALUATIONS as f64);
            cpu.push((cpu_time() - before) / EVALUATIONS as f64);
        }
    }
    let row = |label: &str, times: [Vec<f64>; 2]| {
        let [own, other] = times.map(median);
        let remark = format!("{:.2} ms beside {:.2} ms", own * 1e3, other * 1e3);
        Row::new(format!("the embedded engine beside ONNX Runtime, `digits`, {label}"), own / other, "×")
            .at_most(1.5)
            .remark(remark)
    };
    vec![row("CPU time", cpu), row("wall clock", wall)]
}

/// Counts the images of a batch of eight whose bytes differ from those drawn alone.
fn batch_dependence(name: &str, options: &EngineOptions, exact: bool) -> Row {
    let mut pipeline = Pipeline::new(load(&model("digits"), options));
    let request = |seed: u64, count: u64| json!({"id": seed.to_string(), "sampler": "ddim", "steps": 20, "seed": seed, "count": count, "class": 1, "exact": exact});
    let mut draw = |seed: u64, count: u64| {
        pipeline.accept(job(&pipeline, request(seed, count)));
        let mut samples = Vec::new();
        while !pipeline.is_idle() {
            pipeline.step(&mut |_, event| {
                if let JobEvent::Image { receipt, image } = event {
                    let bits: Vec<u32> = image.picture.data.iter().map(|value| value.to_bits()).collect();
                    samples.push((receipt.index, bits));
                }
            });
        }
        samples.sort();
        samples
    };
    let together = draw(0, 8);
    let differing = together.iter().filter(|(index, bits)| draw(*index as u64, 1)[0].1 != *bits).count();
    let option = if exact { "`exact`, " } else { "" };
    let row = Row::new(
        format!("images of a batch of eight whose bytes differ from those drawn alone, {option}{name}"),
        differing as f64,
        "",
    );
    if exact {
        row.at_most(0.0)
    } else {
        row.remark("depends on the engine and the CPU; `denoised inspect` reports it")
    }
}

/// Measures the section about jobs.
pub fn rows() -> Vec<Row> {
    let digits = model("digits");
    let mut rows: Vec<Row> = [job_overhead("unet7m", 1.01), job_overhead("unet300k", 1.03)].concat();
    rows.push(eight_jobs_beside_one("onnxruntime", &runtime()));
    rows.push(eight_jobs_beside_one("embedded", &embedded()));
    rows.push(short_job_beside_long("onnxruntime", &runtime()));
    rows.push(short_job_beside_long("embedded", &embedded()));
    rows.push(padding(&runtime()));
    for (name, options) in [("onnxruntime", runtime()), ("embedded", embedded())] {
        rows.push(batch_dependence(name, &options, false));
        rows.push(batch_dependence(name, &options, true));
    }
    rows.extend(engines(&digits));
    rows
}
