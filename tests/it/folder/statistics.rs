//! Keys of an autoencoder by which latents are converted, where the pipeline uses them.

use std::path::Path;

use super::{edit, folder, inspect, sampled};
use crate::common::largest_difference;
use crate::common::pipelines::bundle;
use denoised::inference::{EngineKind, EngineOptions};
use denoised::model::Model;
use serde_json::json;

const MEAN: [f32; 4] = [-1.5, 2.0, -1.25, 2.5];
const DEVIATION: [f32; 4] = [8.0, 6.0, 6.5, 5.0];

fn set_statistics(folder: &Path) {
    for part in ["vae_decoder", "vae_encoder"] {
        edit(folder, &format!("{part}/config.json"), |config| {
            config["latents_mean"] = json!(MEAN);
            config["latents_std"] = json!(DEVIATION);
        });
    }
}

#[test]
fn latents_mean_and_latents_std_of_an_sdxl_folder_are_used() {
    let (_directory, with) = folder("sdxl");
    set_statistics(&with);
    let (latents, image, _) = sampled(&with, &[]);
    let (same_latents, other_image, _) = sampled(&bundle("sdxl"), &[]);
    assert_eq!(latents, same_latents);
    assert!(largest_difference(&image, &other_image) > 0.1);
    // The decoder gets z·std / scaling + mean; without the keys it gets z / scaling.
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let plain = Model::load(&bundle("sdxl"), &options).unwrap().latent.unwrap();
    let scaling = plain.components.vae.scaling;
    let plane = latents.len() / 4;
    let converted = |i: usize| latents[i] * DEVIATION[i / plane] + MEAN[i / plane] * scaling;
    let converted: Vec<f32> = (0..latents.len()).map(converted).collect();
    let expected = plain.decode(&converted, &[4, 16, 16]).unwrap();
    let difference = largest_difference(&image, &expected.data);
    assert!(difference < 1e-5, "{difference}");
    assert!(inspect(&with, &[]).contains("with the mean and the deviation of each channel"));
}

#[test]
fn an_init_image_is_encoded_by_the_statistics_except_for_inpainting() {
    let (_directory, with) = folder("sdxl");
    set_statistics(&with);
    let init = bundle("init.png").display().to_string();
    let picture = ["--image", init.as_str(), "--strength", "0.5"];
    let (latents, ..) = sampled(&with, &picture);
    let (other, ..) = sampled(&bundle("sdxl"), &picture);
    assert!(largest_difference(&latents, &other) > 0.1);
    // diffusers' SDXL inpainting pipeline encodes by the scaling factor alone.
    let mask = bundle("mask.png").display().to_string();
    let inpainting = [&picture[..], &["--mask", &mask]].concat();
    let (latents, ..) = sampled(&with, &inpainting);
    let (other, ..) = sampled(&bundle("sdxl"), &inpainting);
    assert_eq!(latents, other);
}

#[test]
fn keys_that_a_pipeline_of_diffusers_does_not_use_have_no_effect_and_are_reported() {
    let (_directory, with) = folder("sd");
    set_statistics(&with);
    for part in ["vae_decoder", "vae_encoder"] {
        edit(&with, &format!("{part}/config.json"), |config| config["shift_factor"] = json!(0.5));
    }
    assert_eq!(sampled(&with, &[]).1, sampled(&bundle("sd"), &[]).1);
    let report = inspect(&with, &[]);
    for expected in [
        "    not used           latents_mean: only SDXL's pipelines use it\n",
        "    not used           latents_std: only SDXL's pipelines use it\n",
        "    not used           shift_factor: only the pipelines of SD3, Flux and Z-Image use it\n",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}
