//! Load a bundle, sample an image and write it as PNG, without MQTT:
//! `cargo run --release --example sample_to_png [BUNDLE [OUTPUT]]`.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use denoised::image::{png, to_image};
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{JobLimits, ModelCard, Request};
use denoised::model::Model;
use denoised::pipeline::{JobEvent, Pipeline};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let bundle = arguments.next().unwrap_or_else(|| PathBuf::from("models/digits"));
    let output = arguments.next().unwrap_or_else(|| std::env::temp_dir().join("denoised-sample.png"));

    // The embedded engine needs no library. `EngineKind::Auto` uses ONNX Runtime if it is installed.
    let engine = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let model = Model::load(&bundle, &engine).with_context(|| bundle.display().to_string())?;

    // A request is what the daemon receives as JSON: every field that is missing has its default.
    let request: Request = serde_json::from_str(r#"{"seed": 7, "sampler": "ddim", "steps": 20}"#)?;
    let limits = JobLimits { steps: 1000, count: 1, pixels: 1 << 24, memory: None };
    let job =
        request.check(&[ModelCard::new(&model)], limits, || 0).map_err(|error| anyhow!(error.message))?;

    let mut outcome = None;
    let mut pipeline = Pipeline::new(model);
    pipeline.accept(job.clone());
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Image { image, .. } => outcome = Some(Ok(image.picture.data)),
            JobEvent::Failed(error) => outcome = Some(Err(anyhow!(error.message))),
            _ => {}
        });
    }
    let sample = outcome.context("the job ended without an image")??;

    let picture = to_image(&sample, &job.sizes.image, &job.model.bundle.manifest.sample)?;
    std::fs::write(&output, png(&picture)?).with_context(|| output.display().to_string())?;
    println!(
        "{} by {} in {} steps -> {}",
        bundle.display(),
        job.sampler_name,
        job.options.steps,
        output.display()
    );
    Ok(())
}
