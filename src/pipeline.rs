//! Runs jobs on a loaded model by continuous batching: each image is a trajectory, and the
//! trajectories of all jobs share the network's evaluations.

mod batcher;
mod codec_worker;
mod event;
mod guidance;
mod image_events;
mod latency;
mod packing;
mod prepared;
mod queue;
mod running_job;
mod warmup;

use std::sync::Arc;
use std::time::Instant;

use crate::inference::EngineError;
use crate::job::{ErrorCode, Job, JobError, ModelCard};
use crate::model::Model;
use diffusion_samplers::rng::Noise;

use batcher::{BatchFailure, Batcher};
use codec_worker::{CodecResult, CodecTask, CodecWorker};
use image_events::ImageEvents;
use latency::LatencyEstimator;
use queue::Queue;
use running_job::{JobState, RunningJob};
use warmup::Warmup;

pub use codec_worker::Wake;
pub use event::{JobEvent, Sample};
pub(crate) use packing::{pack, unpack};
pub use queue::OnEvent;
pub(crate) use warmup::warm_up as warm_up_model;

/// LimitsConfig the running images to this many full batches: more than one, so that a short job is not
/// stuck behind a long one.
const MAX_RUNNING_BATCHES: usize = 4;

/// Returns the initial noise and the step noise of the image with this index, where they replace the seed's.
pub type GivenNoise = Box<dyn FnMut(usize) -> (Option<Vec<f32>>, Option<Noise>)>;

/// A loaded model with the jobs that it runs.
pub struct Pipeline {
    model: Model,
    card: Arc<ModelCard>,
    batcher: Batcher,
    codec: CodecWorker,
    wake: Wake,
    latency: LatencyEstimator,
    jobs: Queue,
    is_paused: bool,
    warmup: Warmup,
    /// The same model on another provider, which takes over once no job is running.
    replacement: Option<Model>,
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
    /// A pipeline without jobs.
    pub fn new(model: Model) -> Self {
        Self::with_wake(model, Arc::new(|| {}))
    }

    /// A pipeline that calls `wake` from its codec thread when [`Self::has_work`] may have become true.
    pub fn with_wake(model: Model, wake: Wake) -> Self {
        Self {
            batcher: Batcher::default(),
            codec: CodecWorker::new(&model, &wake),
            wake,
            latency: latency_estimator(&model),
            card: ModelCard::new(&model),
            warmup: Warmup::default(),
            model,
            jobs: Queue::default(),
            is_paused: false,
            replacement: None,
            given_noise: None,
        }
    }

    /// A pipeline of a model that [`warm_up_model`] has evaluated.
    pub(crate) fn from_warm_model(model: Model, wake: Wake) -> Self {
        let mut pipeline = Self::with_wake(model, wake);
        pipeline.warmup = pipeline.new_warmup();
        pipeline.next_warmup_batch();
        pipeline
    }

    /// Replaces the noise of the jobs' seeds.
    pub fn with_given_noise(mut self, given: GivenNoise) -> Self {
        self.given_noise = Some(given);
        self
    }

    /// The loaded model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The description of the model against which requests are validated.
    pub fn card(&self) -> &Arc<ModelCard> {
        &self.card
    }

    /// Returns whether there are no jobs.
    pub fn is_idle(&self) -> bool {
        self.jobs.len() == 0
    }

    /// The number of jobs, running or waiting.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// The current duration of an evaluation of the latest batch size, once two of them were measured.
    pub fn ms_per_evaluation(&self) -> Option<f64> {
        self.latency.latest().map(|seconds| seconds * 1e3)
    }

    /// Returns whether a step would do something now. Jobs that only wait for the codec thread do not count.
    pub fn has_work(&self) -> bool {
        let (can_start, can_encode) = (!self.is_start_blocked(), self.encoding_capacity() > 0);
        let can_progress = |running: &RunningJob| match running.state {
            JobState::Queued => can_start && can_encode,
            JobState::Encoding => false,
            JobState::Ready(_) => can_start,
            JobState::Running { started, .. } => started < running.job.count,
        };
        self.batcher.running() > 0
            || self.codec.has_results()
            || self.jobs.first().any(can_progress)
            || self.jobs.may_have_late(Instant::now())
    }

    /// Returns whether there are jobs that must not start yet.
    pub fn has_blocked_jobs(&self) -> bool {
        self.is_start_blocked() && self.jobs.iter().any(|job| !job.is_running())
    }

    /// While the pipeline is paused or has a replacement, no further job starts.
    fn is_start_blocked(&self) -> bool {
        self.is_paused || self.replacement.is_some()
    }

    /// Starts no further job while `paused`; running jobs continue.
    pub fn set_paused(&mut self, paused: bool) {
        self.is_paused = paused;
    }

    /// Sets the same model on another provider as replacement.
    pub fn set_replacement(&mut self, model: Model) {
        self.replacement = Some(model);
    }

    /// Installs the replacement, if there is one and no job is running, and returns whether it did. All
    /// images of a job come from one provider.
    pub fn swap_model_if_idle(&mut self) -> bool {
        let is_running = self.jobs.iter().any(RunningJob::is_running);
        let Some(model) = self.replacement.take_if(|_| !is_running) else { return false };
        self.codec = CodecWorker::new(&model, &self.wake);
        self.latency = latency_estimator(&model);
        // Results that are ready stay valid; those still being encoded were lost with the codec worker.
        for job in self.jobs.iter_mut().filter(|job| matches!(job.state, JobState::Encoding)) {
            job.state = JobState::Queued;
        }
        self.card = ModelCard::new(&model);
        self.model = model;
        self.warmup = self.new_warmup();
        true
    }

    fn new_warmup(&self) -> Warmup {
        Warmup::of_network(&self.card, self.model.predictor.as_ref())
    }

    fn next_warmup_batch(&mut self) -> Option<usize> {
        self.warmup.next_batch_of(self.model.predictor.as_ref())
    }

    /// Evaluates the network in the batch that a default job takes. Its provider is known from then on.
    pub fn warm_up(&mut self) -> Result<(), EngineError> {
        self.warmup = self.new_warmup();
        if let Some(batch) = self.next_warmup_batch() {
            self.model.warm_up(batch)?;
        }
        self.card = ModelCard::new(&self.model);
        self.latency = latency_estimator(&self.model);
        Ok(())
    }

    /// Does one more warm-up evaluation, if that makes a later job faster: the network is in memory, and its provider
    /// prepares each batch size at its first evaluation. Returns `false` if nothing is left.
    pub fn warm_up_further(&mut self) -> bool {
        let predictor = &self.model.predictor;
        if !predictor.backend().prepares_shapes() || !predictor.is_open() {
            return false;
        }
        let Some(batch) = self.next_warmup_batch() else { return false };
        if let Err(error) = self.model.warm_up(batch) {
            log::warn!("{}: cannot warm up a batch of {batch}: {error}", self.model.bundle.name);
        }
        true
    }

    /// Queues a job.
    pub fn accept(&mut self, job: impl Into<Arc<Job>>) {
        self.jobs.accept(job.into());
    }

    /// Cancels the job with this id. Returns `false` if it is not here.
    pub fn cancel(&mut self, id: &str, on_event: &mut OnEvent<'_>) -> bool {
        let Some(number) = self.jobs.number_of(id) else {
            return false;
        };
        self.fail(number, JobError::cancelled(), on_event);
        true
    }

    /// Admits images, evaluates one batch, and reports the events. Blocks on the codec thread if nothing else
    /// can be done.
    pub fn step(&mut self, on_event: &mut OnEvent<'_>) {
        self.expire_deadlines(on_event);
        self.request_encodings();
        if !self.has_work() {
            self.codec.wait();
        }
        self.drain_results(on_event);
        self.admit_images();
        self.evaluate(on_event);
        self.drain_results(on_event);
    }

    fn expire_deadlines(&mut self, on_event: &mut OnEvent<'_>) {
        let late: Vec<_> = self
            .jobs
            .late(Instant::now())
            .into_iter()
            .map(|job| (job.number, job.deadline_error()))
            .collect();
        for (number, error) in late {
            self.fail(number, error, on_event);
        }
    }

    /// Submits the prompts and init images of the next jobs to the codec worker.
    fn request_encodings(&mut self) {
        if self.is_start_blocked() {
            return;
        }
        let capacity = self.encoding_capacity();
        let queued = self.jobs.first_mut().filter(|running| matches!(running.state, JobState::Queued));
        for running in queued.take(capacity) {
            running.state = JobState::Encoding;
            let job = Arc::clone(&running.job);
            self.codec.submit(CodecTask::Encode { job_number: running.number, job });
        }
    }

    /// How many more jobs to encode: as many as fill the next batch, but at least one. More would delay the
    /// evaluations.
    fn encoding_capacity(&self) -> usize {
        if self.model.latent.is_none() {
            return usize::MAX;
        }
        let batch = self.model.predictor.signature().largest_batch;
        let is_ahead =
            |running: &&RunningJob| matches!(running.state, JobState::Encoding | JobState::Ready(_));
        let ahead = self.jobs.first().filter(is_ahead).count();
        batch.saturating_sub(self.batcher.running()).max(1).saturating_sub(ahead)
    }

    /// Handles the results of the codec worker.
    fn drain_results(&mut self, on_event: &mut OnEvent<'_>) {
        while let Some(result) = self.codec.try_recv() {
            match result {
                CodecResult::Encoded { job_number, prepared: Ok(prepared) } => {
                    if let Some(running) = self.jobs.get_mut(job_number) {
                        running.state = JobState::Ready(Arc::new(prepared));
                    }
                }
                CodecResult::Encoded { job_number, prepared: Err(error) } => {
                    self.fail(job_number, error, on_event);
                }
                CodecResult::Decoded { image, picture: Ok(picture), latents, elapsed } => {
                    self.latency.record_decoding(latents.len(), elapsed);
                    let backend = self.model.predictor.backend();
                    let finished = self.jobs.finish_image(image, picture, Some(latents), backend, on_event);
                    if let Err(error) = finished {
                        self.fail(image.job, error, on_event);
                    }
                }
                CodecResult::Decoded { image, picture: Err(error), .. } => {
                    self.fail(image.job, error, on_event);
                }
            }
        }
    }

    /// Admits images in job order while the batch has capacity. Every job gets at least one running image so
    /// that a long job cannot starve the others.
    fn admit_images(&mut self) {
        let (predictor, manifest) = (&self.model.predictor, &self.model.bundle.manifest);
        let capacity = predictor.signature().largest_batch * MAX_RUNNING_BATCHES;
        let is_blocked = self.is_start_blocked();
        for running in self.jobs.first_mut().filter(|running| !is_blocked || running.is_running()) {
            let Some(prepared) = running.prepared().cloned() else { continue };
            if let Some(deadline) = running.deadline().filter(|_| !running.is_running()) {
                let load = self.batcher.load_of(&running.job, predictor.as_ref());
                let remaining = deadline.saturating_duration_since(Instant::now());
                running.reduce_steps_to(self.latency.evaluations_within(remaining, &load));
            }
            while let Some(index) = running.start_image(self.batcher.running() < capacity) {
                let noise = self.given_noise.as_mut().map_or((None, None), |given| given(index));
                self.batcher.admit(running.image(&prepared, index, manifest, noise));
            }
        }
    }

    /// Evaluates one batch.
    fn evaluate(&mut self, on_event: &mut OnEvent<'_>) {
        let Model { predictor, bundle, latent, .. } = &mut self.model;
        let mut images = ImageEvents {
            jobs: &mut self.jobs,
            codec: &mut self.codec,
            latent: latent.as_deref(),
            manifest: &bundle.manifest,
            on_event,
            failed: Vec::new(),
        };
        let evaluated = self.batcher.step(predictor.as_mut(), &bundle.manifest, |backend, id, event| {
            images.handle(backend, id, event);
        });
        images.failed.into_iter().for_each(|job| self.batcher.evict_job(job));
        let timing = self.batcher.latest_timing();
        self.latency.record(timing.sample_size, timing.slots, timing.elapsed);
        if let Err(BatchFailure { error, jobs }) = evaluated {
            let error = JobError::new(ErrorCode::Engine, &error);
            for job in jobs {
                self.fail(job, error.clone(), on_event);
            }
        }
    }

    fn fail(&mut self, number: u64, error: JobError, on_event: &mut OnEvent<'_>) {
        self.batcher.evict_job(number);
        self.jobs.fail(number, error, on_event);
    }
}

fn latency_estimator(model: &Model) -> LatencyEstimator {
    LatencyEstimator::new(model.first_evaluation, model.predictor.signature().sample_shape.iter().product())
}
