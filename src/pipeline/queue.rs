//! The jobs of a pipeline, by priority, then in order of acceptance.
//!
//! Only the first ones run; the cost of a step does not depend on how many wait behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::batcher::ImageId;
use super::event::{JobEvent, Sample};
use super::running_job::RunningJob;
use crate::inference::Backend;
use crate::job::{Job, JobError};
use crate::tensor::Tensor;

/// Receives the events of a pipeline's jobs.
pub type OnEvent<'a> = dyn FnMut(&Arc<Job>, JobEvent<Sample>) + 'a;

/// The most jobs that run at once.
const MAX_RUNNING_JOBS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: VecDeque<RunningJob>,
    accepted: u64,
    earliest_deadline: Option<Instant>,
}

impl Queue {
    pub(super) fn accept(&mut self, job: Arc<Job>) {
        self.accepted += 1;
        let position = self.jobs.partition_point(|other| other.job.priority >= job.priority);
        let job = RunningJob::new(self.accepted, job);
        self.earliest_deadline = self.earliest_deadline.into_iter().chain(job.deadline()).min();
        self.jobs.insert(position, job);
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs that may run.
    pub(super) fn first(&self) -> impl Iterator<Item = &RunningJob> {
        self.jobs.iter().take(MAX_RUNNING_JOBS)
    }

    /// The jobs that may run, mutable.
    pub(super) fn first_mut(&mut self) -> impl Iterator<Item = &mut RunningJob> {
        self.jobs.iter_mut().take(MAX_RUNNING_JOBS)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RunningJob> {
        self.jobs.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut RunningJob> {
        self.jobs.iter_mut()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut RunningJob> {
        self.jobs.iter_mut().find(|job| job.number == number)
    }

    /// Returns the number of the job with this id.
    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        self.jobs.iter().find(|job| job.job.id == id).map(|job| job.number)
    }

    /// Whether the deadline of a job may have passed, so that [`Self::late`] is to be called.
    pub(super) fn may_have_late(&self, now: Instant) -> bool {
        self.earliest_deadline.is_some_and(|earliest| now > earliest)
    }

    /// Returns the jobs whose deadline has passed.
    pub(super) fn late(&mut self, now: Instant) -> Vec<&RunningJob> {
        if !self.may_have_late(now) {
            return Vec::new();
        }
        let (late, others): (Vec<_>, Vec<_>) = self.jobs.iter().partition(|job| job.is_late(now));
        self.earliest_deadline = others.into_iter().filter_map(RunningJob::deadline).min();
        late
    }

    /// Reports a finished image. The last image finishes and removes its job. An image without a receipt is an error.
    pub(super) fn finish_image(
        &mut self,
        image: ImageId,
        data: Vec<f32>,
        latents: Option<Vec<f32>>,
        backend: &Backend,
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), JobError> {
        let Some(running) = self.get_mut(image.job) else { return Ok(()) };
        let (receipt, is_last) = running.finish_image(image.index, backend)?;
        let picture = Tensor::new(running.job.sizes.image.clone(), data);
        on_event(&running.job, JobEvent::Image { receipt, image: Sample { picture, latents } });
        if is_last {
            on_event(&running.job, JobEvent::Finished { elapsed_ms: running.elapsed_ms() });
            self.remove(image.job);
        }
        Ok(())
    }

    /// Removes a job and reports its failure.
    pub(super) fn fail(&mut self, number: u64, error: JobError, on_event: &mut OnEvent<'_>) {
        if let Some(running) = self.remove(number) {
            on_event(&running.job, JobEvent::Failed(error));
        }
    }

    fn remove(&mut self, number: u64) -> Option<RunningJob> {
        let position = self.jobs.iter().position(|job| job.number == number)?;
        self.jobs.remove(position)
    }
}
