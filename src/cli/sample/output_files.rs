//! Writes the samples and the latents of a job.

use std::path::Path;

use anyhow::Context;

use crate::cli::output::{OutputTarget, save};
use crate::image::{self, Encoding, Format};
use crate::job::Job;
use crate::npy;
use crate::pipeline::pack;

/// Fails if the output can't hold the job's images.
pub(super) fn check_size(output: &OutputTarget, job: &Job) -> anyhow::Result<()> {
    let (OutputTarget::File(_, format), &[_, height, width]) = (output, job.sizes.image.as_slice()) else {
        return Ok(());
    };
    if *format == Format::Npy || job.count == 1 {
        return Ok(());
    }
    let pixels = |length| u32::try_from(length).unwrap_or(u32::MAX);
    let size = image::grid_size(job.count, [pixels(width), pixels(height)]);
    let fault = || format!("--output: a grid of {} images; write a directory instead", job.count);
    image::check_size(*format, size).with_context(fault)
}

/// Writes all samples of a job.
pub(super) fn write_samples(output: &OutputTarget, samples: &[Vec<f32>], job: &Job) -> anyhow::Result<()> {
    let shape = &job.sizes.image;
    let description = &job.model.bundle.manifest.sample;
    match output {
        OutputTarget::File(path, Format::Npy) => write_array(path, shape, samples),
        OutputTarget::File(path, format) => {
            let images = samples.iter().map(|sample| image::to_image(sample, shape, description));
            let image = match images.collect::<Result<Vec<_>, _>>()?.as_slice() {
                [single] => single.clone(),
                several => image::grid(several, 1)?,
            };
            save(path, &image::encode_image(Encoding { format: *format, ..job.encoding }, &image)?)
        }
        OutputTarget::Directory(path) => {
            std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
            for (index, sample) in samples.iter().enumerate() {
                let name = format!("{index:04}-{}.{}", job.image_seed(index), job.encoding.format.name());
                save(&path.join(name), &image::encode(job.encoding, sample, shape, description)?)?;
            }
            Ok(())
        }
    }
}

/// Writes latents in the layout of diffusers' `output_type="latent"`: Flux packs them. Those of FLUX.2 are packed and
/// normalised, as its network predicts them.
pub(super) fn write_latents(path: &Path, latents: &[Vec<f32>], job: &Job) -> anyhow::Result<()> {
    let sizes = &job.sizes;
    let Some(side) = job.packing() else {
        return write_array(path, &sizes.latent, latents);
    };
    let packed: Vec<_> = latents.iter().map(|latent| pack(latent, &sizes.latent, side)).collect();
    write_array(path, &sizes.sample, &packed)
}

/// Writes arrays of this shape as one .npy file, with a first axis for the images.
fn write_array(path: &Path, shape: &[usize], images: &[Vec<f32>]) -> anyhow::Result<()> {
    save(path, &npy::write(&[&[images.len()], shape].concat(), &images.concat())?)
}
