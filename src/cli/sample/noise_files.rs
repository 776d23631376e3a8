//! Noise from files instead of a seed.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, ensure};
use ndarray::{ArrayD, Axis};

use crate::job::Job;
use crate::npy;
use diffusion_samplers::rng::{Noise, Recorded};

/// The noise of `--init-noise` and `--step-noise`.
pub(super) struct NoiseFiles {
    initial: Option<Vec<Vec<f32>>>,
    /// The draws of each image, in order.
    steps: Option<Vec<Vec<Vec<f32>>>>,
    /// The number of draws that the sampler needs.
    needed: usize,
    /// For each image that has started, how many draws were missing.
    missing: Rc<RefCell<Vec<Rc<Cell<usize>>>>>,
}

impl NoiseFiles {
    /// Reads the files, and checks their shapes against the job's.
    pub(super) fn read(initial: Option<&Path>, steps: Option<&Path>, job: &Job) -> anyhow::Result<Self> {
        let shape = &job.sizes.latent;
        let initial = initial.map(|path| {
            let array = npy::read(path).context("--init-noise")?;
            check_shape(&array, &[&[job.count], &shape[..]].concat(), "--init-noise")?;
            Ok::<_, anyhow::Error>(split_first_axis(&array))
        });
        let steps = steps.map(|path| {
            let array = npy::read(path).context("--step-noise")?;
            let draws = array.shape().first().copied().unwrap_or(0);
            check_shape(&array, &[&[draws, job.count], &shape[..]].concat(), "--step-noise")?;
            let images = array.axis_iter(Axis(1));
            let per_image = images.map(|image| split_first_axis(&image.to_owned()));
            Ok::<_, anyhow::Error>(per_image.collect())
        });
        Ok(Self {
            initial: initial.transpose()?,
            steps: steps.transpose()?,
            needed: job.sampler.draws(),
            missing: Rc::default(),
        })
    }

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

    /// Fails if the sampler drew more often than the file has draws.
    pub(super) fn check_draws(&self) -> anyhow::Result<()> {
        let missing = self.missing.borrow().iter().map(|n| n.get()).max().unwrap_or(0);
        ensure!(
            missing == 0,
            "--step-noise: the file has too few draws; this sampler draws {} times",
            self.needed
        );
        Ok(())
    }
}

fn check_shape(array: &ArrayD<f32>, expected: &[usize], flag: &str) -> anyhow::Result<()> {
    ensure!(
        array.shape() == expected,
        "{flag}: the array has shape {:?}, but {expected:?} is needed",
        array.shape()
    );
    Ok(())
}

fn split_first_axis(array: &ArrayD<f32>) -> Vec<Vec<f32>> {
    array.axis_iter(Axis(0)).map(|part| part.iter().copied().collect()).collect()
}
