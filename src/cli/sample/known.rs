//! The part of a sample that inpainting keeps.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, ensure};

use crate::diffusion::sampler::Known;
use crate::image;
use crate::job::ModelCard;
use crate::npy;

/// Read the flags `--image` and `--mask`, of which the mask's white is drawn anew.
pub(super) fn read(
    picture: Option<&Path>,
    mask: Option<&Path>,
    card: &ModelCard,
) -> anyhow::Result<Option<Arc<Known>>> {
    let (picture, mask) = match (picture, mask) {
        (None, None) => return Ok(None),
        (Some(picture), Some(mask)) => (picture, mask),
        (Some(_), None) => return Err(anyhow!("--image needs a --mask that says which part is drawn anew")),
        (None, Some(_)) => return Err(anyhow!("--mask needs an --image of which it says a part")),
    };
    let (shape, manifest) = (&card.signature.sample_shape, &card.bundle.manifest);
    let sample = image::read(picture, shape, manifest).map_err(|error| anyhow!("--image: {error}"))?;
    let anew: Vec<f32> = if mask.extension().is_some_and(|ending| ending == "npy") {
        npy::read(mask).map_err(|error| anyhow!("--mask: {error}"))?.iter().copied().collect()
    } else {
        // One channel serves all.
        let plane = [&[1], &shape[1..]].concat();
        let [low, high] = manifest.sample.range;
        let values = image::read(mask, &plane, manifest).map_err(|error| anyhow!("--mask: {error}"))?;
        let values: Vec<f32> = values.iter().map(|x| (x - low) / (high - low)).collect();
        values.repeat(shape[0])
    };
    ensure!(
        anew.len() == sample.len(),
        "--mask: {} holds {} values, but {} are needed",
        mask.display(),
        anew.len(),
        sample.len()
    );
    Ok(Some(Arc::new(Known { sample, mask: anew.iter().map(|x| 1.0 - x).collect() })))
}
