//! The batcher: polls trajectories, gathers what they wait for into one batch, hands each its
//! part of the network's answer, and polls again.
//!
//! Trajectories may differ in sampler, step count, seed, class and guidance; one that boards
//! joins the next evaluation. Between two evaluations nothing is allocated once the buffers
//! have grown to the batch's size.

use std::rc::Rc;

use super::guidance::Guidance;
use crate::bundle::{Manifest, Signature};
use crate::inference::EvaluationError;
use crate::job::Job;
use crate::model::{Batch, Predictor};
use diffusion_samplers::simd::all_finite;
use diffusion_samplers::trajectory::{Output, Trajectory};
use std::task::Poll;

/// Which image of which job a rider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageId {
    /// The job's number.
    pub job: u64,
    /// The image.
    pub index: usize,
}

/// What became of a rider.
#[derive(Debug, PartialEq)]
pub enum ImageEvent {
    /// One evaluation more is done.
    Evaluated,
    /// It showed its present x̂_0.
    Preview(Vec<f32>),
    /// Its sample is finished.
    Finished(Vec<f32>),
    /// The network's output is not finite.
    NonFinite {
        /// The evaluation, from 1.
        evaluation: usize,
        /// Its time step.
        t: f64,
    },
}

/// An evaluation that failed, with the jobs whose images rode in it.
#[derive(Debug)]
pub struct Failure {
    /// What the engine said.
    pub error: EvaluationError,
    /// The jobs' numbers.
    pub jobs: Vec<u64>,
}

/// A trajectory on its way, with how its network is told what to draw.
#[derive(Debug)]
pub struct RunningImage {
    ticket: ImageId,
    trajectory: Trajectory,
    guide: Guidance,
    /// The sample's axes.
    shape: Vec<usize>,
    priority: i32,
    exact: bool,
    /// Whether its job has a deadline.
    hurries: bool,
    preview_every: Option<usize>,
    evaluations: usize,
    /// The batcher's turn in which it was last evaluated.
    last_turn: u64,
}

impl RunningImage {
    /// A trajectory at its start, riding as its job says.
    pub fn new(ticket: ImageId, trajectory: Trajectory, guide: Guidance, job: &Job) -> Self {
        Self {
            ticket,
            trajectory,
            guide,
            shape: job.sizes.sample.clone(),
            priority: job.priority,
            exact: job.exact,
            hurries: job.deadline.is_some(),
            preview_every: job.preview_every,
            evaluations: 0,
            last_turn: 0,
        }
    }
}

/// The riders of one model.
#[derive(Debug, Default)]
pub struct Batcher {
    riders: Vec<RunningImage>,
    turn: u64,
    /// The riders' places in the next evaluation, as indices.
    chosen: Vec<usize>,
    batch: Batch,
    /// How many places they take.
    evaluated: usize,
    /// One evaluation's output where a turn has several, and those of all of a turn. These are lent to the
    /// trajectories, which have given them back when they wait again.
    part: Vec<f32>,
    outputs: Rc<Vec<f32>>,
    /// A buffer for what a turn tells, lent to the caller.
    pub(super) arrivals: Vec<(ImageId, ImageEvent)>,
}

impl Batcher {
    /// How many images are on their way.
    pub fn riding(&self) -> usize {
        self.riders.len()
    }

    /// How many places the images take that a job of this priority with a deadline shares with, or stands
    /// back behind.
    pub fn company_of(&self, priority: i32) -> usize {
        let others = self.riders.iter();
        let others = others.filter(|other| (other.priority, other.hurries) >= (priority, true));
        others.map(|other| other.guide.places()).sum()
    }

    /// How many places the last evaluation had.
    pub fn places(&self) -> usize {
        self.evaluated
    }

    /// Take an image on.
    pub fn board(&mut self, rider: RunningImage) {
        self.riders.push(rider);
    }

    /// Drop all images of a job.
    pub fn leave(&mut self, job: u64) {
        self.riders.retain(|rider| rider.ticket.job != job);
    }

    /// One evaluation: of the riders that have waited longest among those of the highest
    /// priority, those with a deadline first, as many as the network takes.
    pub fn turn(
        &mut self,
        predictor: &mut dyn Predictor,
        manifest: &Manifest,
        arrivals: &mut Vec<(ImageId, ImageEvent)>,
    ) -> Result<(), Failure> {
        self.turn += 1;
        self.start_new(arrivals);
        self.choose(predictor.signature());
        self.evaluated = self.chosen.iter().map(|&i| self.riders[i].guide.places()).sum();
        if self.chosen.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.evaluate(predictor, manifest) {
            let jobs = self.chosen.iter().map(|&i| self.riders[i].ticket.job);
            let jobs = jobs.collect();
            return Err(Failure { error, jobs });
        }
        self.hand_out(arrivals);
        self.riders.retain(|rider| rider.last_turn != u64::MAX);
        Ok(())
    }

    /// Run each new rider up to its first evaluation.
    fn start_new(&mut self, arrivals: &mut Vec<(ImageId, ImageEvent)>) {
        self.riders.retain_mut(|rider| {
            if rider.last_turn > 0 {
                return true;
            }
            match rider.trajectory.poll() {
                Poll::Pending => true,
                Poll::Ready(sample) => {
                    arrivals.push((rider.ticket, ImageEvent::Finished(sample)));
                    false
                }
            }
        });
    }

    fn choose(&mut self, signature: &Signature) {
        let riders = &self.riders;
        self.chosen.clear();
        self.chosen.extend(0..riders.len());
        self.chosen.sort_unstable_by_key(|&i| {
            let rider = &riders[i];
            let rank = std::cmp::Reverse((rider.priority, rider.hurries));
            (rank, rider.last_turn, rider.ticket.job, rider.ticket.index)
        });
        let Some(&first) = self.chosen.first() else {
            return;
        };
        let first = &riders[first];
        let (alone, time) = (first.exact, first.trajectory.time());
        let mut places = 0;
        let mut leads = true;
        self.chosen.retain(|&i| {
            let rider = &riders[i];
            let fits = places + rider.guide.places() <= signature.largest_batch
                && !alone
                && !rider.exact
                && (signature.mixes_time_steps() || rider.trajectory.time() == time)
                && rider.shape == first.shape
                && rider.guide.goes_with(&first.guide);
            // The first one rides even where guidance takes more places than there are.
            let rides = std::mem::take(&mut leads) || fits;
            places += if rides { rider.guide.places() } else { 0 };
            rides
        });
    }

    /// Fill `outputs` with one output for each chosen rider's each place, in order.
    fn evaluate(
        &mut self,
        predictor: &mut dyn Predictor,
        manifest: &Manifest,
    ) -> Result<(), EvaluationError> {
        self.batch.clear();
        let outputs = Rc::make_mut(&mut self.outputs);
        outputs.clear();
        if let Some(&first) = self.chosen.first() {
            predictor.signature().write_input_shape(&self.riders[first].shape, &mut self.batch.shape);
        }
        for &i in &self.chosen {
            let rider = &self.riders[i];
            let time = rider.trajectory.time();
            for place in 0..rider.guide.places() {
                if self.batch.size() == predictor.signature().largest_batch {
                    evaluate_part(predictor, &mut self.batch, &mut self.part, outputs)?;
                }
                let input = |to: &mut Vec<f32>| rider.trajectory.append_input(to);
                let tensors = &predictor.signature().tensors;
                rider.guide.push(place, &mut self.batch, input, time, manifest, tensors);
            }
        }
        evaluate_part(predictor, &mut self.batch, &mut self.part, outputs)
    }

    fn hand_out(&mut self, arrivals: &mut Vec<(ImageId, ImageEvent)>) {
        let len = self.outputs.len() / self.evaluated;
        let mut rest = &mut Rc::make_mut(&mut self.outputs)[..];
        for &i in &self.chosen {
            let rider = &self.riders[i];
            let (outputs, others) = rest.split_at_mut(rider.guide.places() * len);
            rider.guide.combine(outputs, len, rider.shape.iter().product());
            rest = others;
        }
        let mut start = 0;
        for &i in &self.chosen {
            let rider = &mut self.riders[i];
            let output = Output::of(Rc::clone(&self.outputs), start..start + len);
            start += rider.guide.places() * len;
            rider.last_turn = self.turn;
            if let Some(arrival) = rider.advance(output, arrivals) {
                arrivals.push((rider.ticket, arrival));
                rider.last_turn = u64::MAX; // it has arrived and leaves
            }
        }
    }
}

/// Evaluate a batch, filled up with its first sample where the network's batch is fixed, append
/// its outputs, and clear it.
fn evaluate_part(
    predictor: &mut dyn Predictor,
    batch: &mut Batch,
    part: &mut Vec<f32>,
    outputs: &mut Vec<f32>,
) -> Result<(), EvaluationError> {
    let signature = predictor.signature();
    let (real, len) = (batch.size(), signature.own_len(&batch.shape));
    while batch.size() < signature.smallest_batch() {
        batch.repeat_first(&signature.tensors);
    }
    // Of a turn's only evaluation they go where they are wanted at once.
    let single = outputs.is_empty();
    let found = if single { &mut *outputs } else { &mut *part };
    predictor.evaluate(batch, found)?;
    let each = found.len() / batch.size();
    if each * batch.size() != found.len() || !each.is_multiple_of(len) || each == 0 {
        return Err(EvaluationError::OutputLength { expected: batch.size() * len, found: found.len() });
    }
    found.truncate(real * each);
    if !single {
        outputs.extend_from_slice(part);
    }
    batch.clear();
    Ok(())
}

impl RunningImage {
    /// Post an evaluation's output and run on; tells how the walk ended, if it did.
    fn advance(&mut self, output: Output, arrivals: &mut Vec<(ImageId, ImageEvent)>) -> Option<ImageEvent> {
        self.evaluations += 1;
        let t = self.trajectory.time();
        if !all_finite(&output) {
            let evaluation = self.evaluations;
            return Some(ImageEvent::NonFinite { evaluation, t });
        }
        self.trajectory.answer(output);
        let shows = self.preview_every.is_some_and(|every| self.evaluations.is_multiple_of(every));
        self.trajectory.watch(shows);
        let turn = self.trajectory.poll();
        arrivals.push((self.ticket, ImageEvent::Evaluated));
        if let Some(x0) = self.trajectory.observed(<[f32]>::to_vec) {
            arrivals.push((self.ticket, ImageEvent::Preview(x0)));
        }
        match turn {
            Poll::Pending => None,
            Poll::Ready(sample) => Some(ImageEvent::Finished(sample)),
        }
    }
}
