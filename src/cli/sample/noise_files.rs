//! Noise from files instead of a seed.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use ndarray::{ArrayD, Axis};

use super::requested_job::RequestedJob;
use crate::job::Job;
use crate::npy;
use crate::pipeline::unpack;
use crate::units;
use diffusion_samplers::rng::{Noise, Recorded};

/// The arrays of `--init-noise` and `--step-noise`, as the files have them.
pub(super) struct NoiseArrays {
    initial: Option<ArrayD<f32>>,
    steps: Option<ArrayD<f32>>,
}

/// The noise of `--init-noise` and `--step-noise` for a job.
pub(super) struct NoiseFiles {
    initial: Option<Vec<Vec<f32>>>,
    /// The draws of each image, in order.
    steps: Option<Vec<Vec<Vec<f32>>>>,
    /// The number of draws that the sampler needs.
    needed: usize,
    /// For each image that has started, how many draws were missing.
    missing: Rc<RefCell<Vec<Rc<Cell<usize>>>>>,
}

impl NoiseArrays {
    /// Reads the files.
    pub(super) fn read(initial: Option<&Path>, steps: Option<&Path>) -> anyhow::Result<Self> {
        let array = |path: Option<&Path>, flag: &'static str| {
            path.map(|path| {
                let array = npy::read(path).context(flag)?;
                ensure!(
                    array.iter().all(|value| value.is_finite()),
                    "{flag}: {} contains NaN or infinity; write standard normal noise",
                    path.display()
                );
                Ok(array)
            })
            .transpose()
        };
        Ok(Self { initial: array(initial, "--init-noise")?, steps: array(steps, "--step-noise")? })
    }

    /// Returns the number of images that each array has noise for, with its flag.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let count = |array: &Option<ArrayD<f32>>, axis: usize| array.as_ref()?.shape().get(axis).copied();
        let initial = count(&self.initial, 0).map(|images| ("--init-noise", images));
        let steps = count(&self.steps, 1).map(|images| ("--step-noise", images));
        initial.into_iter().chain(steps)
    }

    /// Checks the shapes against the job's.
    pub(super) fn for_job(self, job: &Job, requested: &RequestedJob) -> anyhow::Result<NoiseFiles> {
        let (sizes, images) = (&job.sizes, job.count);
        let latent = [&[images], &sizes.latent[..]].concat();
        let packed = [&[images], &sizes.sample[..]].concat();
        let initial = self.initial.map(|array| {
            // Flux: diffusers' `latents` are packed.
            if let Some(side) = job.packing().filter(|_| array.shape() == packed) {
                let unpacked = split_first_axis(&array).into_iter().map(|x| unpack(x, &sizes.latent, side));
                return Ok(unpacked.collect());
            }
            check_shape(&array, latent, 0, "--init-noise", requested)?;
            Ok::<_, anyhow::Error>(split_first_axis(&array))
        });
        let needed = job.sampler.draws();
        let steps = self.steps.map(|array| {
            let draws = array.shape().first().copied().unwrap_or(0);
            let expected = [&[draws, images], &sizes.latent[..]].concat();
            check_shape(&array, expected, 1, "--step-noise", requested)?;
            ensure!(
                needed > 0 || job.init_image.is_some(),
                "--step-noise: {} draws no noise with these options; remove --step-noise",
                job.sampler_name
            );
            ensure!(
                draws >= needed,
                "--step-noise: the file has too few draws, {draws}; this sampler draws {needed} times"
            );
            let images = array.axis_iter(Axis(1));
            let per_image = images.map(|image| split_first_axis(&image.to_owned()));
            Ok::<_, anyhow::Error>(per_image.collect())
        });
        let missing = Rc::default();
        Ok(NoiseFiles { initial: initial.transpose()?, steps: steps.transpose()?, needed, missing })
    }
}

impl NoiseFiles {
    /// Returns the noise of each image for the pipeline.
    pub(super) fn source(&self) -> crate::pipeline::GivenNoise {
        let (initial, steps) = (self.initial.clone(), self.steps.clone());
        let missing = Rc::clone(&self.missing);
        Box::new(move |index| {
            let initial = initial.as_ref().map(|images| images[index].clone());
            let recorded = steps.as_ref().map(|images| {
                let (noise, counter) = Recorded::new(images[index].clone());
                missing.borrow_mut().push(counter);
                Box::new(noise) as Noise
            });
            (initial, recorded)
        })
    }

    /// Fails if more was drawn than the file has: the autoencoder draws too, if the job starts from an image.
    pub(super) fn check_draws(&self) -> anyhow::Result<()> {
        let missing = self.missing.borrow().iter().map(|n| n.get()).max().unwrap_or(0);
        ensure!(
            missing == 0,
            "--step-noise: the file has too few draws; this sampler draws {} times, and the autoencoder draws before \
             it",
            self.needed
        );
        Ok(())
    }

    /// Returns the fields without effect if every random number comes from files.
    pub(super) fn ignored_fields(&self, job: &Job) -> &'static [&'static str] {
        let has_all = self.initial.is_some() && (self.steps.is_some() || self.needed == 0);
        if has_all && job.init_image.is_none() { &["seed", "noise"] } else { &[] }
    }

    /// Returns a line about draws in the file that nothing uses.
    pub(super) fn unused_draws(&self, job: &Job) -> Option<String> {
        let draws = self.steps.as_ref()?.first()?.len();
        (draws > self.needed && job.init_image.is_none()).then(|| {
            let needed = self.needed;
            format!("--step-noise has {draws} draws, but this sampler only takes the first {needed}")
        })
    }
}

/// Checks the shape of an array that has noise for one image at each index of this axis.
fn check_shape(
    array: &ArrayD<f32>,
    mut expected: Vec<usize>,
    axis: usize,
    flag: &str,
    requested: &RequestedJob,
) -> anyhow::Result<()> {
    let found = array.shape();
    if found == expected {
        return Ok(());
    }
    let images = found.get(axis).copied().unwrap_or(0);
    let count = std::mem::replace(&mut expected[axis], images);
    if found == expected {
        let counted = match requested.is_set("count") {
            true => {
                format!("{} is {count}; use the same number, or leave out count", requested.origin("count"))
            }
            false => format!("--init-noise has it for {count}; use the same number"),
        };
        bail!("{flag} has noise for {}, but {counted}", units::counted(images as u64, "image"));
    }
    // Without a count, this axis has set it, and an array with other axes has no such axis.
    let has_axes = found.len() == expected.len();
    expected[axis] = if has_axes || requested.is_set("count") { count } else { 1 };
    bail!("{flag}: the array has shape {found:?}, but {expected:?} is needed")
}

fn split_first_axis(array: &ArrayD<f32>) -> Vec<Vec<f32>> {
    array.axis_iter(Axis(0)).map(|part| part.iter().copied().collect()).collect()
}
