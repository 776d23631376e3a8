//! Noise from files in place of a seed's.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, ensure};
use ndarray::{ArrayD, Axis};

use crate::job::Job;
use crate::npy;
use diffusion_samplers::rng::{Noise, Recorded};

/// The noise that the command line names.
pub(super) struct GivenNoise {
    initial: Option<Vec<Vec<f32>>>,
    /// For each image, its draws in order.
    steps: Option<Vec<Vec<Vec<f32>>>>,
    needed: usize,
    missing: Rc<RefCell<Vec<Rc<Cell<usize>>>>>,
}

impl GivenNoise {
    /// Read the files and check their shapes against the job's.
    pub(super) fn read(initial: Option<&Path>, steps: Option<&Path>, job: &Job) -> anyhow::Result<Self> {
        let shape = &job.sizes.latent;
        let initial = initial.map(|path| {
            let array = npy::read(path).context("--init-noise")?;
            check(&array, &[&[job.count], &shape[..]].concat(), "--init-noise")?;
            Ok::<_, anyhow::Error>(parts(&array, 0))
        });
        let steps = steps.map(|path| {
            let array = npy::read(path).context("--step-noise")?;
            let draws = array.shape().first().copied().unwrap_or(0);
            check(&array, &[&[draws, job.count], &shape[..]].concat(), "--step-noise")?;
            let images = array.axis_iter(Axis(1));
            let per_image = images.map(|image| parts(&image.to_owned(), 0));
            Ok::<_, anyhow::Error>(per_image.collect())
        });
        Ok(Self {
            initial: initial.transpose()?,
            steps: steps.transpose()?,
            needed: job.sampler.draws(),
            missing: Rc::default(),
        })
    }

    /// What a pipeline asks for each image.
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

    /// An error where the sampler drew more often than the file allows.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let missing = self.missing.borrow().iter().map(|n| n.get()).max().unwrap_or(0);
        ensure!(
            missing == 0,
            "--step-noise: the file holds too few draws; this sampler draws {} times on its way",
            self.needed
        );
        Ok(())
    }
}

fn check(array: &ArrayD<f32>, expected: &[usize], flag: &str) -> anyhow::Result<()> {
    ensure!(
        array.shape() == expected,
        "{flag}: the array has shape {:?}, but {expected:?} is needed",
        array.shape()
    );
    Ok(())
}

fn parts(array: &ArrayD<f32>, axis: usize) -> Vec<Vec<f32>> {
    array.axis_iter(Axis(axis)).map(|part| part.iter().copied().collect()).collect()
}
