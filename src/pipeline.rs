//! Jobs become images: each image is a trajectory, and the trajectories of one model share its
//! network's evaluations.

pub mod batcher;
mod codec_worker;
mod event;
pub mod guidance;
mod latency;
mod prepared;
mod queue;
mod running_job;

use std::sync::Arc;
use std::time::Instant;

use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, Job, JobError};
use crate::model::Model;
use crate::tensor::Tensor;
use diffusion_samplers::rng::Noise;

use batcher::{Batcher, ImageEvent, ImageId};
use codec_worker::{CodecWorker, Done, Order};
use guidance::places_of;
use latency::{BatchLoad, LatencyEstimator};
use queue::Queue;
use running_job::RunningJob;

pub use codec_worker::Wake;
pub use event::Event;

/// How many images of one model are on their way at once, in batches: more than one, so that a
/// short job is not stuck behind a long one.
const BATCHES_ON_THE_WAY: usize = 4;

/// Noise given from outside instead of a seed's, for one image.
pub type GivenNoise = Box<dyn FnMut(usize) -> (Option<Vec<f32>>, Option<Noise>)>;

/// A model with the jobs that it works on.
pub struct Pipeline {
    model: Model,
    batcher: Batcher,
    around: CodecWorker,
    wake: Wake,
    pace: LatencyEstimator,
    jobs: Queue,
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
        Self::waking(model, Arc::new(|| {}))
    }

    /// With a loaded model, calling this from another thread whenever there is work again.
    pub fn waking(model: Model, wake: Wake) -> Self {
        Self {
            batcher: Batcher::default(),
            around: CodecWorker::of(&model, &wake),
            wake,
            pace: LatencyEstimator::of_first(model.first_evaluation),
            model,
            jobs: Queue::default(),
            held: false,
            successor: None,
            given_noise: None,
        }
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
        self.jobs.len() == 0
    }

    /// How many jobs are here.
    pub fn in_hand(&self) -> usize {
        self.jobs.len()
    }

    /// The milliseconds that turns like the last one take at present, once there were two.
    pub fn ms_per_evaluation(&self) -> Option<f64> {
        self.pace.latest().map(|seconds| seconds * 1e3)
    }

    /// Whether a turn would do something now; what is encoded or decoded elsewhere is waited for.
    pub fn has_work(&self) -> bool {
        let (room, waits) = (self.room_to_prepare() > 0, self.waits());
        let goes_on = |active: &RunningJob| match active.prepared {
            Some(_) => active.boarded < active.job.count && (!waits || active.boarded > 0),
            None => !active.ordered && !waits && room,
        };
        self.batcher.riding() > 0 || self.around.has_news() || self.jobs.first().any(goes_on)
    }

    /// Whether jobs are here that must wait until they are let go on.
    pub fn is_held(&self) -> bool {
        self.waits() && self.jobs.is_waiting()
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
        let under_way = self.jobs.is_under_way();
        match self.successor.take_if(|_| !under_way) {
            Some(model) => {
                self.around = CodecWorker::of(&model, &self.wake);
                self.pace = LatencyEstimator::of_first(model.first_evaluation);
                // What was prepared for the model before holds for this one; what was only ordered is lost.
                self.jobs.all_mut().for_each(|active| active.ordered = active.prepared.is_some());
                self.model = model;
                true
            }
            None => false,
        }
    }

    /// Take a job on; its first evaluation is the next one that has room.
    pub fn accept(&mut self, job: Job) {
        self.jobs.accept(job);
    }

    /// Drop a job; tells whether it was here.
    pub fn cancel(&mut self, id: &str, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let Some(number) = self.jobs.number_of(id) else {
            return false;
        };
        let error = JobError::new(ErrorCode::Cancelled, "the job was cancelled");
        self.fail(number, &error, on);
        true
    }

    /// Evaluate one batch and tell what came of it; where all wait for what is encoded or decoded
    /// elsewhere, wait as well.
    pub fn turn(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        self.drop_late(on);
        self.prepare();
        if !self.has_work() {
            self.around.wait();
        }
        self.hear(on);
        self.board();
        let mut arrivals = std::mem::take(&mut self.batcher.arrivals);
        let start = Instant::now();
        let evaluated =
            self.batcher.turn(self.model.predictor.as_mut(), &self.model.bundle.manifest, &mut arrivals);
        self.pace.turned(self.batcher.places(), start.elapsed());
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
        self.hear(on);
    }

    /// Have words and pictures of the jobs encoded that can begin now.
    fn prepare(&mut self) {
        let (room, waits) = (self.room_to_prepare(), self.waits());
        for active in self.jobs.first_mut().filter(|active| !active.ordered && !waits).take(room) {
            active.ordered = true;
            self.around.order(Order::Prepare(active.number, Box::new(active.job.clone())));
        }
    }

    /// Of how many jobs more the words are to be encoded: as many as fill the next batch, and at least one,
    /// so that a long queue of prompts holds up no evaluation for long.
    fn room_to_prepare(&self) -> usize {
        if self.model.latent.is_none() {
            return usize::MAX;
        }
        let batch = self.model.predictor.signature().largest_batch;
        let ahead = self.jobs.first().filter(|active| active.ordered && active.boarded == 0).count();
        batch.saturating_sub(self.batcher.riding()).max(1).saturating_sub(ahead)
    }

    /// Take what was encoded and decoded.
    fn hear(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        while let Some(done) = self.around.news() {
            match done {
                Done::Prepared(number, Ok(prepared)) => {
                    if let Some(active) = self.jobs.get_mut(number) {
                        active.prepared = Some(Arc::new(prepared));
                    }
                }
                Done::Prepared(number, Err(error)) => self.fail(number, &error, on),
                Done::Decoded { ticket, picture: Ok(picture), latents, took } => {
                    self.pace.decoded(took);
                    self.finish(ticket, picture, Some(latents), on);
                }
                Done::Decoded { ticket, picture: Err(error), .. } => self.fail(ticket.job, &error, on),
            }
        }
    }

    /// Let images ride while there is room, the first jobs' first; one image of every job rides
    /// even so, lest a long job keep all others out.
    fn board(&mut self) {
        let signature = self.model.predictor.signature();
        let room = signature.largest_batch * BATCHES_ON_THE_WAY;
        let waits = self.waits();
        for active in self.jobs.first_mut().filter(|active| !waits || active.boarded > 0) {
            let Some(prepared) = active.prepared.clone() else { continue };
            if let Some(deadline) = active.deadline().filter(|_| active.boarded == 0) {
                let load = BatchLoad {
                    images: active.job.count,
                    places: places_of(&active.job),
                    others: self.batcher.company_of(active.job.priority),
                    batch: if active.job.exact { places_of(&active.job) } else { signature.largest_batch },
                };
                let left = deadline.saturating_duration_since(Instant::now());
                active.fit(self.pace.evaluations_within(left, load));
            }
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
                    (initial, steps),
                ));
            }
        }
    }

    fn drop_late(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        let late: Vec<_> =
            self.jobs.late(Instant::now()).into_iter().map(|late| (late.number, late.too_late())).collect();
        for (number, error) in late {
            self.fail(number, &error, on);
        }
    }

    fn tell(&mut self, ticket: ImageId, arrival: ImageEvent, on: &mut dyn FnMut(Event<'_>)) {
        // A job of which one image failed is no longer here when its other images arrive.
        let Some(active) = self.jobs.get_mut(ticket.job) else { return };
        match arrival {
            ImageEvent::Evaluated => {
                active.evaluated += 1;
                if let Some(progress) = active.progress() {
                    on(progress);
                }
            }
            ImageEvent::Preview(x0) => {
                let (job, index) = (&active.job, ticket.index);
                match (&self.model.latent, active.prepared.clone()) {
                    (Some(latent), Some(prepared)) => {
                        let x0 = prepared.unpacked(x0, &job.sizes);
                        let shown = latent.preview(&x0, &job.sizes.latent, &self.model.bundle.manifest);
                        if let Some(Tensor { data, shape }) = shown {
                            on(Event::Preview { job, index, x0: &data, shape: &shape });
                        }
                    }
                    _ => on(Event::Preview { job, index, x0: &x0, shape: &job.sizes.picture }),
                }
            }
            ImageEvent::Finished(sample) => {
                let sizes = &active.job.sizes;
                if self.model.latent.is_none() {
                    return self.finish(ticket, sample, None, on);
                }
                let unpacked = active.prepared.as_ref().map(|prepared| prepared.unpacked(sample, sizes));
                let (latents, shape) = (unpacked.unwrap_or_default(), sizes.latent.clone());
                self.around.order(Order::Decode { ticket, latents, shape });
            }
            ImageEvent::NonFinite { evaluation, t } => {
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

    /// Tell that an image is finished, and with the last one its job.
    fn finish(
        &mut self,
        ticket: ImageId,
        sample: Vec<f32>,
        latents: Option<Vec<f32>>,
        on: &mut dyn FnMut(Event<'_>),
    ) {
        let Some(active) = self.jobs.get_mut(ticket.job) else { return };
        active.finished += 1;
        let mut receipt = Receipt::of(&active.job, ticket.index, self.model.predictor.backend());
        receipt.cut =
            active.prepared.as_ref().map_or_else(Vec::new, |prepared| prepared.conditions.truncated.clone());
        on(Event::Image { job: &active.job, receipt: Box::new(receipt), sample, latents });
        if active.finished == active.job.count {
            on(Event::Finished { job: &active.job, elapsed_ms: active.elapsed_ms() });
            self.jobs.remove(ticket.job);
        }
    }

    fn fail(&mut self, number: u64, error: &JobError, on: &mut dyn FnMut(Event<'_>)) {
        self.batcher.leave(number);
        if let Some(active) = self.jobs.remove(number) {
            on(Event::Failed { job: &active.job, error: error.clone() });
        }
    }
}
