//! What `inspect` prints, on the embedded engine.

use std::path::Path;

use super::snapshot::{check, stdout};
use crate::common::bundles::model;
use crate::common::commands::denoised;
use crate::common::golden;
use crate::common::pipelines::bundle;
use denoised::model::BatchDependence;

fn check_inspect(name: &str, bundle: &Path) {
    let mut command = denoised();
    command.arg("inspect").arg(bundle).args(["--engine", "embedded"]);
    check(&format!("inspect-{name}"), &stdout(&mut command));
}

#[test]
fn inspect_describes_the_bundled_models() {
    for name in ["digits", "digits-ncsn", "swissroll"] {
        check_inspect(name, &model(name));
    }
}

#[test]
fn inspect_describes_pixel_models() {
    for name in ["gaussian", "gaussian-fixed"] {
        check_inspect(name, &golden(name));
    }
}

#[test]
fn inspect_describes_latent_models() {
    for name in ["sd", "sd_inpaint", "lcm", "sdxl", "sd3", "flux"] {
        check_inspect(name, &bundle(name));
    }
}

/// The measured difference depends on the CPU, so the snapshots of `inspect` leave this line out.
#[test]
fn inspect_reports_how_predictions_depend_on_their_batch() {
    let lines = [0.0, 1.25e-7].map(|difference| BatchDependence { batch: 8, difference }.to_string());
    check("batch-dependence", &lines.join("\n"));
}
