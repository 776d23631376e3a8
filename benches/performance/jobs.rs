//! Whole jobs beside the bare evaluations that they need, and what riding together costs.

use std::path::Path;
use std::time::Instant;

use denoised::inference::EngineOptions;
use denoised::job::{Job, JobLimits, ModelCard, Request};
use denoised::model::{Batch, Model, Predictor};
use denoised::pipeline::{JobEvent, Pipeline};
use diffusion_samplers::rng::Generator;
use serde_json::{Value, json};

use crate::clock::{in_turns, median};
use crate::common::bundles::model;
use crate::engines::{Bare, Shared, embedded, load, network, runtime};
use crate::table::Row;

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// A request as a job of a pipeline's model.
pub fn job(pipeline: &Pipeline, request: Value) -> Job {
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(&[ModelCard::new(pipeline.model())], LIMITS, || 1).unwrap()
}

/// Draw until nothing is left to do.
pub fn drain(pipeline: &mut Pipeline) {
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| assert!(!matches!(event, JobEvent::Failed(_))));
    }
}

/// Fifty steps beside fifty evaluations of the same session, and of one in a process without us.
fn whole_job(name: &str, most: f64) -> Vec<Row> {
    let Some(bundle) = network(name) else { return Vec::new() };
    let (model, mut session) = Shared::of(load(&bundle, &runtime()));
    let manifest = model.bundle.manifest.clone();
    let mut pipeline = Pipeline::new(model);
    let mut bare = Bare::open(&bundle, &[3, 32, 32]);
    let wish = job(&pipeline, json!({"sampler": "ddim", "steps": 50, "seed": 1}));
    let (mut shares, within) = (Vec::new(), session.clone());
    let mut whole = || {
        within.spent();
        let start = Instant::now();
        pipeline.accept(wish.clone());
        drain(&mut pipeline);
        shares.push(start.elapsed().as_secs_f64() / within.spent());
    };
    let mut evaluations = || bare.run(50);
    let mut batch = Batch { shape: vec![3, 32, 32], ..Batch::default() };
    let mut noise = vec![0.0; 3072];
    Generator::Torch.seeded(1).fill(&mut noise);
    batch.push(|x| x.extend(noise), 500.0, 0, &manifest);
    let mut output = Vec::new();
    let mut predictor = || (0..50).for_each(|_| session.evaluate(&batch, &mut output).unwrap());
    let times = in_turns(21, &mut [&mut whole, &mut evaluations, &mut predictor]);
    let [job, alone, network] = [times[0], times[1], times[2]].map(|seconds| seconds * 1e3);
    let row = |what: &str, other: f64| {
        Row::new(format!("a job of 50 steps beside 50 {what}, {name}"), job / other, "×")
            .at_most(most)
            .remark(format!("{job:.1} ms beside {other:.1} ms"))
    };
    vec![
        Row::new(
            format!("a job of 50 steps beside its own 50 runs of the session, {name}"),
            median(shares),
            "×",
        )
        .at_most(most)
        .remark("what the loop adds to them"),
        row("more runs of the session", network),
        row("runs of a bare session in a process of its own", alone),
    ]
}

/// Eight jobs of one image beside one job of eight.
fn company(name: &str, options: &EngineOptions) -> Row {
    let mut one = Pipeline::new(load(&model("digits"), options));
    let mut eight = Pipeline::new(load(&model("digits"), options));
    let request = |seed: u64, count: u64| json!({"id": seed.to_string(), "sampler": "ddim", "steps": 20, "seed": seed, "count": count, "class": 1, "guidance": 1});
    let single: Vec<Job> = (0..8).map(|seed| job(&one, request(seed, 1))).collect();
    let together = job(&eight, request(0, 8));
    let mut eight_jobs = || {
        single.iter().for_each(|single| one.accept(single.clone()));
        drain(&mut one);
    };
    let mut one_job = || {
        eight.accept(together.clone());
        drain(&mut eight);
    };
    let times = in_turns(9, &mut [&mut eight_jobs, &mut one_job]);
    Row::new(format!("eight requests of one image beside one of eight, {name}"), times[0] / times[1], "×")
        .at_most(1.1)
}

/// Ten steps that arrive beside a thousand, beside the same ten in a batch of two.
fn latecomer(name: &str, options: &EngineOptions) -> Row {
    let mut busy = Pipeline::new(load(&model("digits"), options));
    let mut idle = Pipeline::new(load(&model("digits"), options));
    let request = |id: &str, steps: u64, count: u64| json!({"id": id, "sampler": "ddim", "steps": steps, "seed": 1, "count": count, "class": 1, "guidance": 1});
    let (long, short) = (job(&busy, request("long", 1000, 1)), job(&busy, request("short", 10, 1)));
    let pair = job(&idle, request("pair", 10, 2));
    busy.accept(long.clone());
    let mut beside = || {
        busy.accept(short.clone());
        let mut finished = false;
        while !finished {
            busy.step(&mut |job, event| {
                finished |= matches!(event, JobEvent::Finished { .. }) && job.id == "short";
            });
        }
    };
    let mut alone = || {
        idle.accept(pair.clone());
        drain(&mut idle);
    };
    let times = in_turns(21, &mut [&mut beside, &mut alone]);
    Row::new(
        format!("10 steps beside a job of 1,000, beside 10 steps at batch two, {name}"),
        times[0] / times[1],
        "×",
    )
    .at_most(1.5)
}

/// What a batch of seven costs where the graph's batch is fixed at eight.
fn padding(options: &EngineOptions) -> Row {
    let mut digits = load(&model("digits"), options);
    let time = |model: &mut Model, samples: usize| {
        let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
        for _ in 0..samples {
            batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &model.bundle.manifest);
        }
        let mut output = Vec::new();
        in_turns(21, &mut [&mut || model.predictor.evaluate(&batch, &mut output).unwrap()])[0]
    };
    let (one, eight) = (time(&mut digits, 1), time(&mut digits, 8));
    Row::new(
        "an evaluation padded from one sample to eight, beside one of one, onnxruntime",
        eight / one,
        "×",
    )
    .remark("only where a graph's batch is fixed; `digits` is free and never padded")
}

/// Seconds of processor time that this process's threads have used.
fn processor_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let used = tasks.filter_map(|task| {
        // A thread that ends meanwhile has no file any more.
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    used.sum::<f64>() / 1e9
}

/// The embedded engine beside ONNX Runtime, a sample at a time: by the clock, and by the processor's time.
fn engines(bundle: &Path) -> Vec<Row> {
    const EACH: usize = 20;
    let (mut own, mut other) = (load(bundle, &embedded()), load(bundle, &runtime()));
    let manifest = own.bundle.manifest.clone();
    let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
    batch.push(|x| x.extend([0.1; 784]), 500.0, 1, &manifest);
    let mut output = Vec::new();
    let mut used = [Vec::new(), Vec::new()];
    let mut clock = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for ((model, used), clock) in [&mut own, &mut other].into_iter().zip(&mut used).zip(&mut clock) {
            let (start, before) = (Instant::now(), processor_time());
            (0..EACH).for_each(|_| model.predictor.evaluate(&batch, &mut output).unwrap());
            clock.push(start.elapsed().as_secs_f64() / EACH as f64);
            used.push((processor_time() - before) / EACH as f64);
        }
    }
    let row = |what: &str, times: [Vec<f64>; 2]| {
        let [own, other] = times.map(median);
        let remark = format!("{:.2} ms beside {:.2} ms", own * 1e3, other * 1e3);
        Row::new(format!("the embedded engine beside ONNX Runtime, `digits`, {what}"), own / other, "×")
            .at_most(1.5)
            .remark(remark)
    };
    vec![row("processor time", used), row("by the clock", clock)]
}

/// How many of eight images that are drawn together have other bytes than those drawn alone.
fn bytes_in_company(name: &str, options: &EngineOptions, exact: bool) -> Row {
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
    let others = together.iter().filter(|(index, bits)| draw(*index as u64, 1)[0].1 != *bits).count();
    let asked = if exact { "`exact`, " } else { "" };
    let row = Row::new(
        format!("of eight images drawn together, those with other bytes than alone, {asked}{name}"),
        others as f64,
        "",
    );
    if exact { row.at_most(0.0) } else { row.remark("as its arithmetic has it: `inspect` tells") }
}

/// The section about jobs.
pub fn rows() -> Vec<Row> {
    let digits = model("digits");
    let mut rows: Vec<Row> = [whole_job("unet7m", 1.01), whole_job("unet300k", 1.03)].concat();
    rows.push(company("onnxruntime", &runtime()));
    rows.push(company("embedded", &embedded()));
    rows.push(latecomer("onnxruntime", &runtime()));
    rows.push(latecomer("embedded", &embedded()));
    rows.push(padding(&runtime()));
    for (name, options) in [("onnxruntime", runtime()), ("embedded", embedded())] {
        rows.push(bytes_in_company(name, &options, false));
        rows.push(bytes_in_company(name, &options, true));
    }
    rows.extend(engines(&digits));
    rows
}
