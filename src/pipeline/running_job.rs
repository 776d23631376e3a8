//! A job in the pipeline: its state, its progress, and the start of its images.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batcher::{ImageId, RunningImage};
use super::event::{JobEvent, Sample};
use super::guidance::Guidance;
use super::prepared::Prepared;
use crate::bundle::Manifest;
use crate::inference::Backend;
use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, Job, JobError};
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler;

/// The shortest time between two progress events of a job, except for the last one.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) enum JobState {
    /// Its prompts and init image are not encoded yet.
    Queued,
    /// The codec worker encodes them.
    Encoding,
    /// Its first image can be admitted.
    Ready(Arc<Prepared>),
    /// At least one image was admitted.
    Running {
        prepared: Arc<Prepared>,
        /// Images admitted so far.
        started: usize,
        /// Images finished so far.
        finished: usize,
        /// Evaluations of all images together.
        evaluations: usize,
    },
}

#[derive(Debug)]
pub(super) struct RunningJob {
    /// Unique in the queue, in order of acceptance.
    pub(super) number: u64,
    pub(super) job: Arc<Job>,
    pub(super) state: JobState,
    accepted: Instant,
    /// When the time limit ends.
    deadline: Option<Instant>,
    /// The time and the step of the latest progress event.
    last_progress: Option<(Instant, usize)>,
}

impl RunningJob {
    pub(super) fn new(number: u64, job: Arc<Job>) -> Self {
        let accepted = Instant::now();
        let arrival = job.arrival.unwrap_or(accepted);
        let deadline = job.deadline.and_then(|limit| arrival.checked_add(limit));
        Self { number, job, state: JobState::Queued, accepted, deadline, last_progress: None }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, JobState::Running { .. })
    }

    pub(super) fn prepared(&self) -> Option<&Arc<Prepared>> {
        match &self.state {
            JobState::Queued | JobState::Encoding => None,
            JobState::Ready(prepared) | JobState::Running { prepared, .. } => Some(prepared),
        }
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.accepted.elapsed().as_millis() as u64
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now > deadline)
    }

    pub(super) fn deadline_error(&self) -> JobError {
        let deadline = self.job.deadline.unwrap_or_default().as_millis();
        let message = format!(
            "the deadline of {deadline} ms passed after {} of {} evaluations; give it more time",
            self.step(),
            self.job.sampler.evaluations()
        );
        JobError::of_field(ErrorCode::Deadline, "deadline_ms", message)
    }

    /// Reduces the steps to what this many evaluations of each image allow, but to no less than one.
    pub(super) fn reduce_steps_to(&mut self, evaluations: usize) {
        let (requested, needed) = (self.job.options.steps, self.job.sampler.evaluations());
        if needed <= evaluations {
            return;
        }
        // Some samplers take more than one evaluation a step, and some support no plan of so few steps.
        let max_steps = (requested * evaluations / needed).max(1);
        let shorter = (1..=max_steps).rev().find_map(|steps| {
            let job = self.job.with_steps(steps).ok()?;
            (job.sampler.evaluations() <= evaluations || steps == 1).then_some(job)
        });
        if let Some(job) = shorter {
            let (id, steps) = (&job.id, job.options.steps);
            let limit = job.deadline.unwrap_or_default().as_millis();
            if job.sampler.evaluations() <= evaluations {
                log::info!("job {id}: {steps} of {requested} steps fit into {limit} ms");
            } else {
                log::info!(
                    "job {id}: {requested} steps do not fit into {limit} ms, and {steps} may not either"
                );
            }
            self.job = Arc::new(job);
        }
    }

    /// Completed evaluations, averaged over the images.
    fn step(&self) -> usize {
        match self.state {
            JobState::Running { evaluations, .. } => evaluations / self.job.count,
            _ => 0,
        }
    }

    /// Starts the next image and returns its index. Without `batch_has_capacity`, an image is started only
    /// if the job has none in the batch.
    pub(super) fn start_image(&mut self, batch_has_capacity: bool) -> Option<usize> {
        if let JobState::Ready(prepared) = &self.state {
            let prepared = Arc::clone(prepared);
            self.state = JobState::Running { prepared, started: 0, finished: 0, evaluations: 0 };
        }
        let JobState::Running { started, finished, .. } = &mut self.state else { return None };
        if *started == self.job.count || !(batch_has_capacity || started == finished) {
            return None;
        }
        *started += 1;
        Some(*started - 1)
    }

    /// Builds the image with this index at the start of its trajectory. `initial` and `steps` replace the
    /// noise of the job's own generator.
    pub(super) fn image(
        &self,
        prepared: &Prepared,
        index: usize,
        manifest: &Manifest,
        (initial, steps): (Option<Vec<f32>>, Option<Noise>),
    ) -> RunningImage {
        let mut generator = self.job.noise.seeded(self.job.image_seed(index));
        let initial_noise = |generator: &mut Noise| {
            initial.unwrap_or_else(|| {
                let mut z = vec![0.0; self.job.sizes.latent.iter().product()];
                generator.fill(&mut z);
                z
            })
        };
        let (state, extra_channels) = prepared.initial_state(&self.job.sizes, &mut generator, initial_noise);
        RunningImage::new(
            ImageId { job: self.number, index },
            sampler::start(self.job.sampler.clone(), state, steps.unwrap_or(generator)),
            Guidance::new(
                &self.job,
                manifest,
                Arc::clone(&prepared.conditions),
                extra_channels,
                prepared.loras.as_ref().map(|loras| Arc::clone(&loras.network)),
                prepared.controls.clone(),
            ),
            &self.job,
        )
    }

    /// Counts an evaluation, and returns a progress event if one is due.
    pub(super) fn record_evaluation(&mut self) -> Option<JobEvent<Sample>> {
        let JobState::Running { evaluations, .. } = &mut self.state else { return None };
        *evaluations += 1;
        let evaluations = *evaluations;
        let (step, of) = (evaluations / self.job.count, self.job.sampler.evaluations());
        let now = Instant::now();
        let is_due = match self.last_progress {
            None => step > 0,
            Some((_, last)) if last == step => false,
            Some((when, _)) => step == of || now - when >= PROGRESS_INTERVAL,
        };
        if !is_due {
            return None;
        }
        self.last_progress = Some((now, step));
        let remaining = (of * self.job.count).saturating_sub(evaluations) as u64;
        let eta_ms = self.elapsed_ms() * remaining / evaluations as u64;
        Some(JobEvent::Progress { step, of, eta_ms })
    }

    /// Counts a finished image and returns its receipt, and whether it is the job's last one. An image that is finished
    /// after the deadline is an error.
    pub(super) fn finish_image(
        &mut self,
        index: usize,
        backend: &Backend,
    ) -> Result<(Box<Receipt>, bool), JobError> {
        if self.is_late(Instant::now()) {
            return Err(self.deadline_error());
        }
        let receipt = Receipt::new(&self.job, index, backend);
        let mut receipt = Box::new(receipt.map_err(|error| JobError::new(ErrorCode::Engine, &error))?);
        let JobState::Running { prepared, finished, .. } = &mut self.state else {
            return Ok((receipt, false));
        };
        receipt.image.truncated.clone_from(&prepared.conditions.truncated);
        if let Some(loras) = &prepared.loras {
            receipt.image.set_loras(&self.job.loras, &loras.sha256);
        }
        *finished += 1;
        Ok((receipt, *finished == self.job.count))
    }
}
