//! A pipeline's jobs in the order in which they ride: by priority, then by arrival.
//!
//! The first ones are on their way; however many wait behind them, a turn costs the same.

use std::collections::VecDeque;
use std::time::Instant;

use super::running_job::RunningJob;
use crate::job::Job;

/// How many jobs are on their way at once, each with one image at least, whatever the others want.
const ON_THE_WAY: usize = 64;

/// The jobs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: VecDeque<RunningJob>,
    accepted: u64,
    /// When the first of their deadlines passes.
    earliest: Option<Instant>,
}

impl Queue {
    /// Take a job in.
    pub(super) fn accept(&mut self, job: Job) {
        self.accepted += 1;
        let place = self.jobs.partition_point(|other| other.job.priority >= job.priority);
        let active = RunningJob::new(self.accepted, job);
        self.earliest = self.earliest.into_iter().chain(active.deadline()).min();
        self.jobs.insert(place, active);
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs that may be on their way.
    pub(super) fn first(&self) -> impl Iterator<Item = &RunningJob> {
        self.jobs.iter().take(ON_THE_WAY)
    }

    /// The same, to be changed.
    pub(super) fn first_mut(&mut self) -> impl Iterator<Item = &mut RunningJob> {
        self.jobs.iter_mut().take(ON_THE_WAY)
    }

    /// All of them, to be changed.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut RunningJob> {
        self.jobs.iter_mut()
    }

    /// Whether any was begun.
    pub(super) fn is_under_way(&self) -> bool {
        self.jobs.iter().any(|active| active.boarded > 0)
    }

    /// Whether any was not.
    pub(super) fn is_waiting(&self) -> bool {
        self.jobs.iter().any(|active| active.boarded == 0)
    }

    /// The job with this number, if it is still here.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut RunningJob> {
        self.jobs.iter_mut().find(|active| active.number == number)
    }

    /// The number of the job with this id.
    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        self.jobs.iter().find(|active| active.job.id == id).map(|active| active.number)
    }

    /// Let a job go.
    pub(super) fn remove(&mut self, number: u64) -> Option<RunningJob> {
        let place = self.jobs.iter().position(|active| active.number == number)?;
        self.jobs.remove(place)
    }

    /// The jobs whose time is over.
    pub(super) fn late(&mut self, now: Instant) -> Vec<&RunningJob> {
        if self.earliest.is_none_or(|earliest| now <= earliest) {
            return Vec::new();
        }
        let (late, others): (Vec<_>, Vec<_>) = self.jobs.iter().partition(|active| active.is_late(now));
        self.earliest = others.into_iter().filter_map(RunningJob::deadline).min();
        late
    }
}
