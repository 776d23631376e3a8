//! One sampling run, suspended at every model evaluation.
//!
//! A sampler is an `async` block that awaits [`ModelHandle::predict`] wherever its paper evaluates the model. A
//! [`Trajectory`] owns that block. There are two ways to drive it:
//!
//! - [`Trajectory::run_to_end`] and [`Trajectory::try_run_to_end`] call a closure for each evaluation.
//! - [`Trajectory::poll`], [`Trajectory::append_input`] and [`Trajectory::resume`] give the evaluations to the caller,
//!   which can evaluate many trajectories in one batch, whatever their samplers are.

mod inpaint;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::noise_schedule::NoiseLevel;
use super::simd::{Divisor, chunks, update};
pub use inpaint::{InpaintMask, KnownRegion};

/// The future that a sampler returns. Its output is the finished sample, in the model's range.
pub type SampleFuture = Pin<Box<dyn Future<Output = Vec<f32>>>>;

/// How the state is scaled to make the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum InputScaling {
    /// The state itself.
    #[default]
    State,
    /// The state divided by this number.
    Divided(f64),
    /// The state multiplied by this number.
    Scaled(f64),
}

impl InputScaling {
    fn append(self, state: &[f32], batch: &mut Vec<f32>) {
        if self == Self::State {
            return batch.extend_from_slice(state);
        }
        batch.reserve(state.len());
        for chunk in chunks(state.len()) {
            let start = batch.len();
            batch.extend_from_slice(&state[chunk]);
            let chunk = &mut batch[start..];
            match self {
                Self::State => {}
                Self::Divided(norm) => {
                    let norm = Divisor::new(norm);
                    update(chunk, [], move |x, []| norm.divide(x));
                }
                Self::Scaled(factor) => {
                    let factor = factor as f32;
                    update(chunk, [], move |x, []| factor * x);
                }
            }
        }
    }
}

/// The model's output for one sample of a batch. The batch's buffer is shared until the output is dropped.
#[derive(Debug, Clone)]
pub struct Output {
    batch: Rc<Vec<f32>>,
    range: Range<usize>,
}

impl Output {
    /// The values `range` of a batch's outputs. Reading the output panics if the range exceeds the batch.
    pub fn from_batch(batch: Rc<Vec<f32>>, range: Range<usize>) -> Self {
        Self { batch, range }
    }
}

impl From<Vec<f32>> for Output {
    fn from(output: Vec<f32>) -> Self {
        let range = 0..output.len();
        Self { batch: Rc::new(output), range }
    }
}

impl std::ops::Deref for Output {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.batch[self.range.clone()]
    }
}

/// Shared by the sampler and the trajectory's owner: the current evaluation and the preview.
#[derive(Debug, Default)]
struct EvaluationSlot {
    evaluation: EvaluationState,
    /// The sampler's state while an evaluation is pending.
    state: Vec<f32>,
    input: InputScaling,
    t: f64,
    preview_enabled: bool,
    preview: Option<Vec<f32>>,
}

#[derive(Debug, Default)]
enum EvaluationState {
    #[default]
    Idle,
    Pending,
    Ready(Output),
}

/// The sampler's side of a trajectory: it evaluates the model.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    slot: Rc<RefCell<EvaluationSlot>>,
    inpaint: Option<Rc<InpaintMask>>,
    /// Whether `blend_known` was called before.
    started: Rc<Cell<bool>>,
}

impl ModelHandle {
    /// Replaces the known part of the state when inpainting. A sampler calls this before every evaluation, with the
    /// state's noise level. The first call does nothing, because the initial state already contains the known part.
    pub fn blend_known(&self, x: &mut [f32], level: NoiseLevel) {
        if let Some(inpaint) = self.inpaint.as_ref().filter(|_| self.started.replace(true)) {
            inpaint.blend_known(x, level);
        }
    }

    /// Evaluates the model at the state `x` and time `t`, in the unit of the model's time conditioning.
    ///
    /// `x` is empty until the evaluation is done, and then has its values again. The output has the length of `x`, or
    /// a multiple of it where the model also predicts variances; the prediction comes first. Drop the output before
    /// the next evaluation, so that its buffer can be reused.
    pub async fn predict(&self, x: &mut Vec<f32>, input: InputScaling, t: f64) -> Output {
        {
            let mut slot = self.slot.borrow_mut();
            (slot.input, slot.t, slot.evaluation) = (input, t, EvaluationState::Pending);
            std::mem::swap(&mut slot.state, x);
        }
        poll_fn(|_| {
            let mut slot = self.slot.borrow_mut();
            match std::mem::take(&mut slot.evaluation) {
                EvaluationState::Ready(output) => {
                    std::mem::swap(&mut slot.state, x);
                    Poll::Ready(output)
                }
                evaluation => {
                    slot.evaluation = evaluation;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Returns whether the trajectory's owner wants a preview of the current evaluation.
    pub fn preview_enabled(&self) -> bool {
        self.slot.borrow().preview_enabled
    }

    /// Publishes the current x̂₀ as a preview. Does nothing unless previews are enabled.
    pub fn preview(&self, x0: &[f32]) {
        let mut slot = self.slot.borrow_mut();
        if slot.preview_enabled {
            let preview = slot.preview.get_or_insert_default();
            preview.clear();
            preview.extend_from_slice(x0);
        }
    }
}

/// One sampling run of one image. See the [module documentation](self) for the two ways to drive it.
///
/// [`sampler::start`](crate::sampler::start) makes one.
pub struct Trajectory {
    sample: SampleFuture,
    inpaint: Option<Rc<InpaintMask>>,
    slot: Rc<RefCell<EvaluationSlot>>,
}

impl std::fmt::Debug for Trajectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trajectory").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Trajectory {
    /// A trajectory of the future that `sample` returns, which evaluates the model through the given handle. With
    /// `inpaint`, the known part of a sample is kept.
    pub fn new(inpaint: Option<InpaintMask>, sample: impl FnOnce(ModelHandle) -> SampleFuture) -> Self {
        let slot = Rc::new(RefCell::new(EvaluationSlot::default()));
        let inpaint = inpaint.map(Rc::new);
        let model = ModelHandle { slot: Rc::clone(&slot), inpaint: inpaint.clone(), started: Rc::default() };
        Self { sample: sample(model), inpaint, slot }
    }

    /// Runs the sampler to its end with `model` as the network, and returns the sample.
    ///
    /// `model` receives the model's input and the time, in the unit of the sampler's time conditioning, and returns
    /// the prediction, with the input's length.
    ///
    /// # Panics
    ///
    /// If the output of `model` is shorter than its input.
    pub fn run_to_end<O: Into<Output>>(self, mut model: impl FnMut(&[f32], f64) -> O) -> Vec<f32> {
        let Ok(sample) = self.try_run_to_end(|x, t| Ok::<O, Infallible>(model(x, t)));
        sample
    }

    /// The same as [`run_to_end`](Self::run_to_end) with a `model` that can fail.
    ///
    /// # Errors
    ///
    /// Returns the first error of `model`.
    ///
    /// # Panics
    ///
    /// If the output of `model` is shorter than its input.
    pub fn try_run_to_end<O: Into<Output>, E>(
        mut self,
        mut model: impl FnMut(&[f32], f64) -> Result<O, E>,
    ) -> Result<Vec<f32>, E> {
        let mut input = Vec::new();
        loop {
            if let Poll::Ready(sample) = self.poll() {
                return Ok(sample);
            }
            input.clear();
            self.append_input(&mut input);
            self.resume(model(&input, self.time())?.into());
        }
    }

    /// Runs the sampler up to its next evaluation ([`Poll::Pending`]) or to its end, with the sample.
    ///
    /// # Panics
    ///
    /// If it has returned the sample before.
    pub fn poll(&mut self) -> Poll<Vec<f32>> {
        match self.sample.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut sample) => {
                if let Some(inpaint) = &self.inpaint {
                    inpaint.blend_known(&mut sample, NoiseLevel { alpha: 1.0, sigma: 0.0 });
                }
                Poll::Ready(sample)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The time of the pending evaluation, in the unit of the sampler's time conditioning.
    pub fn time(&self) -> f64 {
        self.slot.borrow().t
    }

    /// Appends the model's input for the pending evaluation to a batch.
    pub fn append_input(&self, batch: &mut Vec<f32>) {
        let slot = self.slot.borrow();
        slot.input.append(&slot.state, batch);
    }

    /// Stores the output of the pending evaluation. The next [`poll`](Self::poll) continues with it.
    ///
    /// # Panics
    ///
    /// If the output is shorter than the sample.
    pub fn resume(&self, output: Output) {
        let mut slot = self.slot.borrow_mut();
        let (found, expected) = (output.len(), slot.state.len());
        assert!(found >= expected, "the model returned {found} values, but the sample has {expected}");
        slot.evaluation = EvaluationState::Ready(output);
    }

    /// Enables or disables previews of x̂₀. They cost one pass over the sample for each evaluation.
    pub fn set_preview(&self, enabled: bool) {
        self.slot.borrow_mut().preview_enabled = enabled;
    }

    /// The newest preview since the last call: x̂₀, in the model's range.
    pub fn take_preview(&self) -> Option<Vec<f32>> {
        self.slot.borrow_mut().preview.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two evaluations, each of which replaces the state by the output.
    fn two_evaluations(model: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut x = vec![8.0, 4.0];
            for (input, t) in [(InputScaling::Divided(2.0), 7.0), (InputScaling::Scaled(3.0), 5.0)] {
                let output = model.predict(&mut x, input, t).await;
                model.preview(&output);
                x.copy_from_slice(&output);
            }
            x
        })
    }

    #[test]
    fn a_closure_is_called_once_for_each_evaluation() {
        let mut calls = Vec::new();
        let sample = Trajectory::new(None, two_evaluations).run_to_end(|x, t| {
            calls.push((x.to_vec(), t));
            x.iter().map(|x| x + 1.0).collect::<Vec<_>>()
        });
        assert_eq!(calls, [(vec![4.0, 2.0], 7.0), (vec![15.0, 9.0], 5.0)]);
        assert_eq!(sample, [16.0, 10.0]);
    }

    #[test]
    fn the_first_error_ends_the_run() {
        let mut evaluations = 0;
        let error = Trajectory::new(None, two_evaluations).try_run_to_end(|x, _| {
            evaluations += 1;
            if evaluations == 2 { Err("out of memory") } else { Ok(x.to_vec()) }
        });
        assert_eq!((error, evaluations), (Err("out of memory"), 2));
    }

    #[test]
    fn a_preview_is_taken_once() {
        let mut trajectory = Trajectory::new(None, two_evaluations);
        assert!(trajectory.poll().is_pending());
        trajectory.set_preview(true);
        trajectory.resume(vec![1.0, 2.0].into());
        assert!(trajectory.poll().is_pending());
        assert_eq!(trajectory.take_preview(), Some(vec![1.0, 2.0]));
        assert_eq!(trajectory.take_preview(), None);
    }

    #[test]
    #[should_panic(expected = "the model returned 1 values, but the sample has 2")]
    fn an_output_that_is_too_short_is_rejected() {
        Trajectory::new(None, two_evaluations).run_to_end(|_, _| vec![0.0]);
    }
}
