//! Jobs become images: each image is a trajectory, and the trajectories of one model share its
//! network's evaluations.

mod active;
pub mod batcher;
pub mod guidance;
mod prepared;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::diffusion::noise::Noise;
use crate::job::{ErrorCode, Job, JobError};
use crate::model::{Model, Tensor};
use crate::receipt::Receipt;

use active::Active;
use batcher::{Arrival, Batcher, Ticket};
use prepared::{Prepared, of_latents};

/// How many images of one model are on their way at once, in batches: more than one, so that a
/// short job is not stuck behind a long one.
const BATCHES_ON_THE_WAY: usize = 4;

/// What happened to a job between two evaluations.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many of the job's evaluations are done, averaged over its images.
    Progress {
        /// The job.
        job: &'a Job,
        /// Evaluations done.
        step: usize,
        /// Evaluations in all.
        of: usize,
        /// The milliseconds that the rest will take at the present pace.
        eta_ms: u64,
    },
    /// The present x̂_0 of an image.
    Preview {
        /// The job.
        job: &'a Job,
        /// The image.
        index: usize,
        /// The sample, or the picture [3, H, W] in −1..1 that latents look like.
        x0: &'a [f32],
        /// Its axes.
        shape: &'a [usize],
    },
    /// An image is finished.
    Image {
        /// The job.
        job: &'a Job,
        /// How it was made.
        receipt: Box<Receipt>,
        /// The sample, or the picture that was decoded from it.
        sample: Vec<f32>,
        /// The sample before it was decoded, where it was.
        latents: Option<Vec<f32>>,
    },
    /// All of a job's images are finished.
    Finished {
        /// The job.
        job: &'a Job,
        /// The time from its acceptance to now.
        elapsed_ms: u64,
    },
    /// The job ended without all of its images.
    Failed {
        /// The job.
        job: &'a Job,
        /// Why.
        error: JobError,
    },
}

/// Noise given from outside instead of a seed's, for one image.
pub type GivenNoise = Box<dyn FnMut(usize) -> (Option<Vec<f32>>, Option<Noise>)>;

/// A model with the jobs that it works on.
pub struct Pipeline {
    model: Model,
    batcher: Batcher,
    /// In the order in which they ride: by priority, then by arrival.
    jobs: VecDeque<Active>,
    accepted: u64,
    /// Whether jobs that were not begun must wait.
    held: bool,
    /// The same model on another provider, for when no job is under way.
    successor: Option<Model>,
    given_noise: Option<GivenNoise>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("model", &self.model)
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// With a loaded model.
    pub fn new(model: Model) -> Self {
        let (batcher, jobs) = (Batcher::default(), VecDeque::new());
        Self { batcher, model, jobs, accepted: 0, held: false, successor: None, given_noise: None }
    }

    /// Take each image's initial or step noise from here instead of its seed.
    pub fn with_given_noise(mut self, given: GivenNoise) -> Self {
        self.given_noise = Some(given);
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether an evaluation can be made now.
    pub fn has_work(&self) -> bool {
        if self.waits() { self.jobs.iter().any(|active| active.boarded > 0) } else { !self.jobs.is_empty() }
    }

    /// Whether jobs that were not begun must wait.
    fn waits(&self) -> bool {
        self.held || self.successor.is_some()
    }

    /// Begin no job from now on, and go on only with those that were begun; or begin them again.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Let the same model on another provider take over as soon as no job is under way.
    pub fn succeed(&mut self, model: Model) {
        self.successor = Some(model);
    }

    /// Let a successor take over, if there is one and no job is under way; tells whether it did. A
    /// job is drawn by one provider from its beginning to its end.
    pub fn change_over(&mut self) -> bool {
        let under_way = self.jobs.iter().any(|active| active.boarded > 0);
        match self.successor.take_if(|_| !under_way) {
            Some(model) => {
                self.model = model;
                true
            }
            None => false,
        }
    }

    /// Take a job on; its first evaluation is the next one that has room.
    pub fn accept(&mut self, job: Job) {
        self.accepted += 1;
        let place =
            self.jobs.iter().position(|other| other.job.priority < job.priority).unwrap_or(self.jobs.len());
        self.jobs.insert(place, Active::new(self.accepted, job));
    }

    /// Drop a job; tells whether it was here.
    pub fn cancel(&mut self, id: &str, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let Some(job) = self.jobs.iter().find(|active| active.job.id == id) else {
            return false;
        };
        let error = JobError::new(ErrorCode::Cancelled, "the job was cancelled");
        self.fail(job.number, &error, on);
        true
    }

    /// Evaluate one batch and tell what came of it.
    pub fn turn(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        self.drop_late(on);
        self.prepare(on);
        self.board();
        let mut arrivals = std::mem::take(&mut self.batcher.arrivals);
        let evaluated =
            self.batcher.turn(self.model.predictor.as_mut(), &self.model.bundle.manifest, &mut arrivals);
        for (ticket, arrival) in arrivals.drain(..) {
            self.tell(ticket, arrival, on);
        }
        self.batcher.arrivals = arrivals;
        if let Err(failure) = evaluated {
            let error = JobError::new(ErrorCode::Engine, &failure.error);
            for job in failure.jobs {
                self.fail(job, &error, on);
            }
        }
    }

    /// Encode the words and pictures of the jobs that can begin now: as many as fill the next batch,
    /// and at least one, so that a long queue of prompts holds up no evaluation for long.
    fn prepare(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        let waits = self.waits();
        let signature = self.model.predictor.signature();
        let many = match &self.model.latent {
            Some(_) => signature.largest_batch.saturating_sub(self.batcher.riding()).max(1),
            None => usize::MAX,
        };
        let mut failed = Vec::new();
        let new = self.jobs.iter_mut().filter(|active| active.prepared.is_none() && !waits);
        for active in new.take(many) {
            match Prepared::of(&active.job, self.model.latent.as_mut(), signature) {
                Ok(prepared) => active.prepared = Some(Arc::new(prepared)),
                Err(error) => failed.push((active.number, error)),
            }
        }
        for (number, error) in failed {
            self.fail(number, &error, on);
        }
    }

    /// Let images ride while there is room, the first jobs' first; one image of every job rides
    /// even so, lest a long job keep all others out.
    fn board(&mut self) {
        let signature = self.model.predictor.signature();
        let room = signature.largest_batch * BATCHES_ON_THE_WAY;
        let waits = self.waits();
        for active in self.jobs.iter_mut().filter(|active| !waits || active.boarded > 0) {
            let Some(prepared) = active.prepared.clone() else { continue };
            while active.boarded < active.job.count
                && (self.batcher.riding() < room || active.boarded == active.finished)
            {
                let index = active.boarded;
                active.boarded += 1;
                let given = self.given_noise.as_mut();
                let (initial, steps) = given.map_or((None, None), |given| given(index));
                self.batcher.board(active.rider(
                    &prepared,
                    index,
                    &self.model.bundle.manifest,
                    self.model.outputs_per_value,
                    (initial, steps),
                ));
            }
        }
    }

    fn drop_late(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        let now = Instant::now();
        while let Some(late) = self.jobs.iter().find(|active| active.is_late(now)) {
            let error = JobError::new(
                ErrorCode::Deadline,
                format!(
                    "the deadline of {} ms passed after {} of {} evaluations; ask for fewer steps",
                    late.job.deadline.unwrap_or_default().as_millis(),
                    late.step(),
                    late.job.sampler.evaluations()
                ),
            );
            self.fail(late.number, &error, on);
        }
    }

    fn tell(&mut self, ticket: Ticket, arrival: Arrival, on: &mut dyn FnMut(Event<'_>)) {
        // A job of which one image failed is no longer here when its other images arrive.
        let Some(place) = self.jobs.iter().position(|a| a.number == ticket.job) else {
            return;
        };
        let active = &mut self.jobs[place];
        match arrival {
            Arrival::Evaluated => {
                active.evaluated += 1;
                if let Some(progress) = active.progress() {
                    on(progress);
                }
            }
            Arrival::Preview(x0) => {
                let (job, index) = (&active.job, ticket.index);
                match (&self.model.latent, active.prepared.clone()) {
                    (Some(latent), Some(prepared)) => {
                        let x0 = prepared.unpacked(x0, &job.sizes);
                        let shown = latent.shown(&x0, &job.sizes.latent, &self.model.bundle.manifest);
                        if let Some(Tensor { data, shape }) = shown {
                            on(Event::Preview { job, index, x0: &data, shape: &shape });
                        }
                    }
                    _ => on(Event::Preview { job, index, x0: &x0, shape: &job.sizes.picture }),
                }
            }
            Arrival::Finished(sample) => {
                let Some(prepared) = active.prepared.clone() else { return };
                let sample = prepared.unpacked(sample, &active.job.sizes);
                let latent = self.model.latent.as_ref();
                let decoded = latent.map(|latent| latent.decode(&sample, &active.job.sizes.latent));
                let (sample, latents) = match decoded.transpose() {
                    Ok(None) => (sample, None),
                    Ok(Some(picture)) => (picture.data, Some(sample)),
                    Err(error) => return self.fail(ticket.job, &of_latents(&error), on),
                };
                active.finished += 1;
                let mut receipt = Receipt::of(&active.job, ticket.index, self.model.predictor.origin());
                receipt.cut.clone_from(&prepared.conditions.cut);
                on(Event::Image { job: &active.job, receipt: Box::new(receipt), sample, latents });
                if active.finished == active.job.count {
                    on(Event::Finished { job: &active.job, elapsed_ms: active.elapsed_ms() });
                    self.jobs.remove(place);
                }
            }
            Arrival::NonFinite { evaluation, t } => {
                let error = JobError::new(
                    ErrorCode::NonFinite,
                    format!(
                        "the network gave NaN or infinity at evaluation {evaluation} of {} (time \
                         step {t}) of image {}; a model in float16 may need float32",
                        active.job.sampler.evaluations(),
                        ticket.index
                    ),
                );
                self.fail(ticket.job, &error, on);
            }
        }
    }

    fn fail(&mut self, number: u64, error: &JobError, on: &mut dyn FnMut(Event<'_>)) {
        self.batcher.leave(number);
        let Some(place) = self.jobs.iter().position(|a| a.number == number) else {
            return;
        };
        if let Some(active) = self.jobs.remove(place) {
            on(Event::Failed { job: &active.job, error: error.clone() });
        }
    }
}
