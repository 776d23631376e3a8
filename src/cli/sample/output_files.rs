//! Writes the samples and the latents of a job.

use std::path::Path;

use anyhow::Context;

use crate::cli::output::{OutputTarget, save};
use crate::cli::run_job::{DrawnImage, encode_picture, picture_receipt};
use crate::image::{self, Format};
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

/// Writes all images of a job. Pictures contain their receipts if `embeds_receipts`.
pub(super) fn write_images(
    output: &OutputTarget,
    images: &[DrawnImage],
    job: &Job,
    embeds_receipts: bool,
) -> anyhow::Result<()> {
    let shape = &job.sizes.image;
    match output {
        OutputTarget::File(path, Format::Npy) => {
            write_array(path, shape, images.iter().map(|image| image.picture.as_slice()))
        }
        OutputTarget::File(path, format) => {
            let receipt = picture_receipt(images).filter(|_| embeds_receipts);
            let text = receipt.map(|receipt| receipt.to_text(&job.sizes));
            save(path, &encode_picture(images, job, *format, text.as_ref())?)
        }
        OutputTarget::Directory(path) => {
            std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
            let description = &job.model.bundle.manifest.sample;
            for (index, DrawnImage { receipt, picture, .. }) in images.iter().enumerate() {
                let name = format!("{index:04}-{}.{}", receipt.image.seed, job.encoding.format.name());
                let text = embeds_receipts.then(|| receipt.image.to_text(&job.sizes));
                let file = image::encode(job.encoding, picture, shape, description, text.as_ref())?;
                save(&path.join(name), &file)?;
            }
            Ok(())
        }
    }
}

/// Writes latents in the layout of diffusers' `output_type="latent"`: Flux packs them. Those of FLUX.2 are packed and
/// normalised, as its network predicts them.
pub(super) fn write_latents(path: &Path, images: &[DrawnImage], job: &Job) -> anyhow::Result<()> {
    let sizes = &job.sizes;
    let latents = images.iter().map(|image| image.latents.as_slice());
    let Some(side) = job.packing() else {
        return write_array(path, &sizes.latent, latents);
    };
    let packed: Vec<_> = latents.map(|latent| pack(latent, &sizes.latent, side)).collect();
    write_array(path, &sizes.sample, packed.iter().map(Vec::as_slice))
}

/// Writes arrays of this shape as one .npy file, with a first axis for the images.
fn write_array<'a>(
    path: &Path,
    shape: &[usize],
    images: impl Iterator<Item = &'a [f32]>,
) -> anyhow::Result<()> {
    let images: Vec<_> = images.collect();
    save(path, &npy::write(&[&[images.len()], shape].concat(), &images.concat())?)
}
