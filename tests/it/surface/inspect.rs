//! What `inspect` prints, on the embedded engine.

use std::path::Path;

use super::snapshot::{check, stdout};
use crate::common::bundles::model;
use crate::common::commands::denoised;
use crate::common::golden;
use crate::common::pipelines::bundle;
use denoised::model::BatchDependence;

fn inspect(name: &str, bundle: &Path) {
    let mut command = denoised();
    command.arg("inspect").arg(bundle).args(["--engine", "embedded"]);
    check(&format!("inspect-{name}"), &stdout(&mut command));
}

#[test]
fn the_bundled_models() {
    for name in ["digits", "digits-ncsn", "swissroll"] {
        inspect(name, &model(name));
    }
}

#[test]
fn models_of_pixels() {
    for name in ["gaussian", "gaussian-fixed"] {
        inspect(name, &golden(name));
    }
}

#[test]
fn models_of_latents() {
    for name in ["sd", "sd_inpaint", "lcm", "sdxl", "sd3", "flux"] {
        inspect(name, &bundle(name));
    }
}

/// The line of `inspect` that depends on the processor.
#[test]
fn how_a_prediction_depends_on_its_batch() {
    let lines = [0.0, 1.25e-7].map(|difference| BatchDependence { batch: 8, difference }.to_string());
    check("batch-dependence", &lines.join("\n"));
}
