//! Continuous batching: gathers the pending evaluations of all running images into one batch,
//! scatters the outputs, and resumes the trajectories.
//!
//! Images may differ in sampler, step count, seed, class and guidance, and join at any step. A step
//! allocates nothing once the buffers have grown to the batch's size.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::guidance::{Guidance, Moment, slots_per_image};
use super::latency::BatchLoad;
use crate::bundle::Manifest;
use crate::inference::{Backend, EvaluationError};
use crate::job::Job;
use crate::model::{Batch, Predictor};
use diffusion_samplers::simd::all_finite;
use diffusion_samplers::trajectory::{Output, Trajectory};

/// Identifies an image of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageId {
    /// The job's number in the queue.
    pub(super) job: u64,
    /// The image's index in the job.
    pub(super) index: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum ImageEvent {
    /// An evaluation was completed.
    Evaluated,
    /// The current x̂_0, as often as the job asked for it.
    Preview(Vec<f32>),
    /// The finished sample.
    Finished(Vec<f32>),
    /// The network's output contains NaN or infinity.
    NonFinite {
        /// The evaluation, counted from 1.
        evaluation: usize,
        /// Its time step.
        t: f64,
    },
}

/// A batch evaluation that failed.
#[derive(Debug)]
pub(super) struct BatchFailure {
    pub(super) error: EvaluationError,
    /// For each image of the batch, the number of its job.
    pub(super) jobs: Vec<u64>,
}

/// The order of evaluation: new images first, then the least recently evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ImageState {
    /// Its trajectory was not polled yet.
    New,
    /// It waits for an evaluation. `last_step` is the step of its latest one.
    Waiting { last_step: Option<u64> },
    /// It is finished or failed, and leaves at the end of the step.
    Done,
}

/// The trajectory of one image, with its conditioning.
#[derive(Debug)]
pub(super) struct RunningImage {
    id: ImageId,
    trajectory: Trajectory,
    guidance: Guidance,
    shape: Vec<usize>,
    priority: i32,
    exact: bool,
    has_deadline: bool,
    preview_every: Option<usize>,
    evaluations: usize,
    state: ImageState,
}

impl RunningImage {
    pub(super) fn new(id: ImageId, trajectory: Trajectory, guidance: Guidance, job: &Job) -> Self {
        Self {
            id,
            trajectory,
            guidance,
            shape: job.sizes.sample.clone(),
            priority: job.priority,
            exact: job.exact,
            has_deadline: job.deadline.is_some(),
            preview_every: job.preview_every,
            evaluations: 0,
            state: ImageState::New,
        }
    }

    /// Batch slots that its next evaluation takes.
    fn slots(&self) -> usize {
        self.guidance.slots_at(self.trajectory.time())
    }

    /// Resumes the trajectory with the output of its evaluation.
    fn resume(&mut self, output: Output, step: u64, on_event: &mut impl FnMut(ImageId, ImageEvent)) {
        self.state = ImageState::Done;
        self.evaluations += 1;
        if !all_finite(&output) {
            let (evaluation, t) = (self.evaluations, self.trajectory.time());
            return on_event(self.id, ImageEvent::NonFinite { evaluation, t });
        }
        self.trajectory.resume(output);
        let has_preview = self.preview_every.is_some_and(|every| self.evaluations.is_multiple_of(every));
        self.trajectory.set_preview(has_preview);
        let polled = self.trajectory.poll();
        on_event(self.id, ImageEvent::Evaluated);
        if let Some(x0) = self.trajectory.take_preview() {
            on_event(self.id, ImageEvent::Preview(x0));
        }
        match polled {
            Poll::Pending => self.state = ImageState::Waiting { last_step: Some(step) },
            Poll::Ready(sample) => on_event(self.id, ImageEvent::Finished(sample)),
        }
    }
}

/// The size of a batch and the duration of its evaluation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchTiming {
    /// The number of values of a sample.
    pub(super) sample_size: usize,
    pub(super) slots: usize,
    pub(super) elapsed: Duration,
}

fn sample_size(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The running images of one model.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    images: Vec<RunningImage>,
    step: u64,
    /// Indices of the images in the current batch.
    selected: Vec<usize>,
    batch: Batch,
    latest: BatchTiming,
    /// The output of one evaluation, in a step that needs several.
    partial_output: Vec<f32>,
    /// The outputs of a step, shared with the trajectories until their next evaluation.
    outputs: Rc<Vec<f32>>,
}

impl Batcher {
    /// The number of running images.
    pub(super) fn running(&self) -> usize {
        self.images.len()
    }

    /// Returns what a job with a deadline needs, and what the images need whose turn comes no later.
    pub(super) fn load_of(&self, job: &Job, predictor: &dyn Predictor) -> BatchLoad {
        let mut slots_ahead = BTreeMap::new();
        for image in
            self.images.iter().filter(|image| (image.priority, image.has_deadline) >= (job.priority, true))
        {
            *slots_ahead.entry(sample_size(&image.shape)).or_default() += image.slots();
        }
        let slots_per_image = slots_per_image(job);
        let largest = || predictor.largest_batch(&job.sizes.sample);
        BatchLoad {
            sample_size: sample_size(&job.sizes.sample),
            images: job.count,
            slots_per_image,
            slots_ahead,
            batch_slots: if job.exact { slots_per_image } else { largest() },
        }
    }

    /// The latest step's batch; it has no slots if the step evaluated nothing.
    pub(super) fn latest_timing(&self) -> BatchTiming {
        self.latest
    }

    /// Adds an image to the next step.
    pub(super) fn admit(&mut self, image: RunningImage) {
        self.images.push(image);
    }

    /// Removes all images of a job.
    pub(super) fn evict_job(&mut self, job: u64) {
        self.images.retain(|image| image.id.job != job);
    }

    /// Evaluates one batch. Events come with the backend of the network. Of the images with the highest priority, those with a deadline come first, then
    /// those evaluated longest ago.
    pub(super) fn step(
        &mut self,
        predictor: &mut dyn Predictor,
        manifest: &Manifest,
        mut on_event: impl FnMut(&Backend, ImageId, ImageEvent),
    ) -> Result<(), BatchFailure> {
        self.step += 1;
        self.latest = BatchTiming::default();
        self.start_new(&mut |id, event| on_event(predictor.backend(), id, event));
        if self.images.is_empty() {
            return Ok(());
        }
        // The sizes of batches are known once the network is open.
        if let Err(error) = predictor.open() {
            return Err(BatchFailure { error, jobs: self.images.iter().map(|image| image.id.job).collect() });
        }
        self.select(predictor);
        let start = Instant::now();
        let evaluated = self.evaluate(predictor, manifest);
        let slots = self.selected.iter().map(|&i| self.images[i].slots()).sum();
        let sample_size = self.selected.first().map_or(0, |&i| sample_size(&self.images[i].shape));
        self.latest = BatchTiming { sample_size, slots, elapsed: start.elapsed() };
        if let Err(error) = evaluated {
            let jobs = self.selected.iter().map(|&i| self.images[i].id.job).collect();
            return Err(BatchFailure { error, jobs });
        }
        self.scatter_outputs(&mut |id, event| on_event(predictor.backend(), id, event));
        self.images.retain(|image| image.state != ImageState::Done);
        Ok(())
    }

    /// Runs each new image up to its first evaluation.
    fn start_new(&mut self, on_event: &mut impl FnMut(ImageId, ImageEvent)) {
        self.images.retain_mut(|image| {
            if image.state != ImageState::New {
                return true;
            }
            match image.trajectory.poll() {
                Poll::Pending => {
                    image.state = ImageState::Waiting { last_step: None };
                    true
                }
                Poll::Ready(sample) => {
                    on_event(image.id, ImageEvent::Finished(sample));
                    false
                }
            }
        });
    }

    fn select(&mut self, predictor: &dyn Predictor) {
        let signature = predictor.signature();
        let images = &self.images;
        self.selected.clear();
        self.selected.extend(0..images.len());
        self.selected.sort_unstable_by_key(|&i| {
            let image = &images[i];
            let rank = std::cmp::Reverse((image.priority, image.has_deadline));
            (rank, image.state, image.id.job, image.id.index)
        });
        let Some(&first) = self.selected.first() else {
            return;
        };
        let first = &images[first];
        let time = first.trajectory.time();
        let largest_batch = predictor.largest_batch(&first.shape);
        let mut slots = 0;
        self.selected.retain(|&i| {
            let image = &images[i];
            let fits = slots + image.slots() <= largest_batch
                && !first.exact
                && !image.exact
                && (signature.mixes_time_steps() || image.trajectory.time() == time)
                && image.shape == first.shape
                && image.guidance.is_batchable_with(&first.guidance);
            // The first one is selected even if guidance takes more slots than a batch has.
            let is_selected = slots == 0 || fits;
            slots += if is_selected { image.slots() } else { 0 };
            is_selected
        });
    }

    /// Writes one output per slot of the selected images to `outputs`, in order.
    fn evaluate(
        &mut self,
        predictor: &mut dyn Predictor,
        manifest: &Manifest,
    ) -> Result<(), EvaluationError> {
        self.batch.clear();
        let outputs = Rc::make_mut(&mut self.outputs);
        outputs.clear();
        let Some(&first) = self.selected.first() else { return Ok(()) };
        let sample = &self.images[first].shape;
        let largest_batch = predictor.largest_batch(sample);
        predictor.signature().write_input_shape(sample, &mut self.batch.shape);
        for &i in &self.selected {
            let image = &self.images[i];
            let moment = Moment { time: image.trajectory.time(), evaluation: image.evaluations };
            for slot in 0..image.slots() {
                if self.batch.size() == largest_batch || !image.guidance.fits_into(&self.batch, slot) {
                    evaluate_batch(predictor, sample, &mut self.batch, &mut self.partial_output, outputs)?;
                }
                let append_sample = |input: &mut Vec<f32>| image.trajectory.append_input(input);
                let tensors = &predictor.signature().tensors;
                image.guidance.append_to_batch(
                    slot,
                    &mut self.batch,
                    append_sample,
                    moment,
                    manifest,
                    tensors,
                );
            }
        }
        evaluate_batch(predictor, sample, &mut self.batch, &mut self.partial_output, outputs)
    }

    /// Combines the outputs of each image's slots, and resumes the images.
    fn scatter_outputs(&mut self, on_event: &mut impl FnMut(ImageId, ImageEvent)) {
        let len = self.outputs.len() / self.latest.slots;
        let mut rest = &mut Rc::make_mut(&mut self.outputs)[..];
        for &i in &self.selected {
            let image = &self.images[i];
            let (outputs, others) = rest.split_at_mut(image.slots() * len);
            image.guidance.combine(outputs, len, image.shape.iter().product());
            rest = others;
        }
        let mut start = 0;
        for &i in &self.selected {
            let image = &mut self.images[i];
            let output = Output::from_batch(Rc::clone(&self.outputs), start..start + len);
            start += image.slots() * len;
            image.resume(output, self.step, on_event);
        }
    }
}

/// Evaluates a batch of samples of this shape, appends its outputs, and clears it. Copies of the first sample are the padding
/// of a network that takes only some batch sizes.
fn evaluate_batch(
    predictor: &mut dyn Predictor,
    sample: &[usize],
    batch: &mut Batch,
    partial_output: &mut Vec<f32>,
    outputs: &mut Vec<f32>,
) -> Result<(), EvaluationError> {
    let signature = predictor.signature();
    let (samples, len) = (batch.size(), signature.own_len(&batch.shape));
    let padded = predictor.padded_batch(samples, sample);
    while batch.size() < padded {
        batch.repeat_first(&signature.tensors);
    }
    // The first evaluation of a step writes to `outputs` directly, which saves a copy.
    let is_first = outputs.is_empty();
    let output = if is_first { &mut *outputs } else { &mut *partial_output };
    predictor.evaluate(batch, output)?;
    let each = output.len() / batch.size();
    if each * batch.size() != output.len() || (each != len && each != 2 * len) {
        return Err(EvaluationError::OutputLength { expected: batch.size() * len, found: output.len() });
    }
    output.truncate(samples * each);
    if !is_first {
        outputs.extend_from_slice(partial_output);
    }
    batch.clear();
    Ok(())
}
