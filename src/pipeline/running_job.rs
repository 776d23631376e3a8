//! A job that is being worked on: how far it is, and the riders that it sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Event;
use super::batcher::{ImageId, RunningImage};
use super::guidance::Guidance;
use super::prepared::Prepared;
use crate::bundle::Manifest;
use crate::job::{ErrorCode, Job, JobError};
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler;

/// Progress is told at most so often, its end aside.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// A job with the state of its images.
#[derive(Debug)]
pub(super) struct RunningJob {
    pub(super) number: u64,
    pub(super) job: Job,
    /// How many of its images are riding or have arrived.
    pub(super) boarded: usize,
    /// How many have arrived.
    pub(super) finished: usize,
    /// Evaluations of all images together.
    pub(super) evaluated: usize,
    /// Whether its words and picture are being encoded, or are.
    pub(super) ordered: bool,
    /// Both as the network takes them, once they are encoded.
    pub(super) prepared: Option<Arc<Prepared>>,
    accepted: Instant,
    told: Option<(Instant, usize)>,
}

impl RunningJob {
    pub(super) fn new(number: u64, job: Job) -> Self {
        Self {
            number,
            job,
            boarded: 0,
            finished: 0,
            evaluated: 0,
            ordered: false,
            prepared: None,
            accepted: Instant::now(),
            told: None,
        }
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.accepted.elapsed().as_millis() as u64
    }

    /// When its time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.job.deadline.and_then(|deadline| self.accepted.checked_add(deadline))
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now > deadline)
    }

    /// What it is told whose time is over.
    pub(super) fn too_late(&self) -> JobError {
        let (deadline, of) =
            (self.job.deadline.unwrap_or_default().as_millis(), self.job.sampler.evaluations());
        let message = format!(
            "the deadline of {deadline} ms passed after {} of {of} evaluations; give it more time",
            self.step()
        );
        JobError::new(ErrorCode::Deadline, message)
    }

    /// Take no more steps than so many evaluations of each image allow, but one at least.
    pub(super) fn fit(&mut self, evaluations: usize) {
        let (asked, needed) = (self.job.options.steps, self.job.sampler.evaluations());
        if needed <= evaluations {
            return;
        }
        // Some samplers take more than one evaluation a step, and some have no plan of so few steps.
        let most = (asked * evaluations / needed).max(1);
        let shorter = (1..=most).rev().find_map(|steps| {
            let job = self.job.in_steps(steps).ok()?;
            (job.sampler.evaluations() <= evaluations || steps == 1).then_some(job)
        });
        if let Some(job) = shorter {
            let (steps, deadline) = (job.options.steps, job.deadline.unwrap_or_default());
            log::info!("job {}: {steps} of {asked} steps fit into {} ms", job.id, deadline.as_millis());
            self.job = job;
        }
    }

    /// Evaluations done, averaged over the images.
    pub(super) fn step(&self) -> usize {
        self.evaluated / self.job.count
    }

    /// What to tell of the progress, if it is time to.
    pub(super) fn progress(&mut self) -> Option<Event<'_>> {
        let (step, of) = (self.step(), self.job.sampler.evaluations());
        let now = Instant::now();
        let due = match self.told {
            None => step > 0,
            Some((_, last)) if last == step => false,
            Some((when, _)) => step == of || now - when >= PROGRESS_EVERY,
        };
        if !due {
            return None;
        }
        self.told = Some((now, step));
        let left = (of * self.job.count).saturating_sub(self.evaluated) as u64;
        Some(Event::Progress {
            job: &self.job,
            step,
            of,
            eta_ms: self.elapsed_ms() * left / (self.evaluated as u64).max(1),
        })
    }

    /// The `index`-th image as a rider at its walk's start, with noise given from outside or
    /// from its own generator.
    pub(super) fn rider(
        &self,
        prepared: &Prepared,
        index: usize,
        manifest: &Manifest,
        (initial, steps): (Option<Vec<f32>>, Option<Noise>),
    ) -> RunningImage {
        let mut generator = self.job.noise.seeded(self.job.image_seed(index));
        let draw = |generator: &mut Noise| {
            initial.unwrap_or_else(|| {
                let mut z = vec![0.0; self.job.sizes.latent.iter().product()];
                generator.fill(&mut z);
                z
            })
        };
        let (beginning, beside) = prepared.begin(&self.job.sizes, &mut generator, draw);
        RunningImage::new(
            ImageId { job: self.number, index },
            sampler::start(self.job.sampler.clone(), beginning, steps.unwrap_or(generator)),
            Guidance::of(&self.job, manifest, Arc::clone(&prepared.conditions), beside),
            &self.job,
        )
    }
}
