//! One image on its way from noise to sample, and what it waits for.
//!
//! A sampler is an `async` block that awaits [`ModelHandle::predict`] where its paper evaluates the
//! network. A [`Trajectory`] holds that block and a mailbox; its owner polls it, reads what it
//! asks, evaluates many of them together, and posts each answer. The compiler cuts the sampler
//! into the states between two evaluations, so any sampler rides in one batch with any other.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::noise_schedule::NoiseLevel;
use super::simd::{Divisor, parts, update};

/// A sampler's future: the finished sample.
pub type SampleFuture = Pin<Box<dyn Future<Output = Vec<f32>>>>;

/// A sample of which a part is kept (Lugmayr et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct KnownRegion {
    /// The sample, in the network's range.
    pub sample: Vec<f32>,
    /// 1 where it is kept, 0 where it is drawn anew.
    pub mask: Vec<f32>,
}

/// A sample of which a part is kept while the rest is drawn: at every level that the walk reaches,
/// that part is replaced by the forward process of what is known, with always the same noise
/// (Song et al. 2021, appendix I.2, in the form that latent diffusion's pipelines have).
#[derive(Debug, Clone)]
pub struct InpaintMask {
    /// What is known, and where.
    pub known: Arc<KnownRegion>,
    /// Its noise.
    pub noise: Vec<f32>,
}

impl InpaintMask {
    /// Replace the known part of a state at a level.
    pub fn apply(&self, x: &mut [f32], level: NoiseLevel) {
        let (alpha, sigma) = (level.alpha as f32, level.sigma as f32);
        let known = self.known.sample.iter().zip(&self.known.mask).zip(&self.noise);
        for (x, ((x0, kept), z)) in x.iter_mut().zip(known) {
            *x = (1.0 - kept) * *x + kept * (alpha * x0 + sigma * z);
        }
    }
}

/// What the network takes in place of a state.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Input {
    /// The state itself.
    #[default]
    State,
    /// The state divided by this.
    Over(f64),
    /// The state times this.
    Times(f64),
}

impl Input {
    fn append(self, state: &[f32], to: &mut Vec<f32>) {
        if self == Self::State {
            return to.extend_from_slice(state);
        }
        to.reserve(state.len());
        for part in parts(state.len()) {
            let start = to.len();
            to.extend_from_slice(&state[part]);
            let part = &mut to[start..];
            match self {
                Self::State => {}
                Self::Over(norm) => {
                    let norm = Divisor::new(norm);
                    update(part, [], move |x, []| norm.divide(x));
                }
                Self::Times(factor) => {
                    let factor = factor as f32;
                    update(part, [], move |x, []| factor * x);
                }
            }
        }
    }
}

/// The network's output for one sample among those of a batch, which is shared with whoever evaluated it until
/// this is dropped.
#[derive(Debug, Clone)]
pub struct Output {
    batch: Rc<Vec<f32>>,
    own: Range<usize>,
}

impl Output {
    /// A part of a batch's outputs.
    pub fn of(batch: Rc<Vec<f32>>, own: Range<usize>) -> Self {
        Self { batch, own }
    }
}

impl From<Vec<f32>> for Output {
    fn from(output: Vec<f32>) -> Self {
        let own = 0..output.len();
        Self { batch: Rc::new(output), own }
    }
}

impl std::ops::Deref for Output {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.batch[self.own.clone()]
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    letter: Letter,
    state: Vec<f32>,
    input: Input,
    t: f64,
    observing: bool,
    observed: bool,
    x0: Vec<f32>,
}

#[derive(Debug, Default)]
enum Letter {
    #[default]
    None,
    Asked,
    Answered(Output),
}

/// The sampler's side of a trajectory: the network, as far as it can see it.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    mailbox: Rc<RefCell<Mailbox>>,
    keep: Option<Rc<InpaintMask>>,
    begun: Rc<Cell<bool>>,
}

impl ModelHandle {
    /// Before an evaluation at a level: replace what is known, but at the walk's very start, which
    /// its owner made.
    pub fn keep(&self, x: &mut [f32], level: NoiseLevel) {
        if let Some(keep) = self.keep.as_ref().filter(|_| self.begun.replace(true)) {
            keep.apply(x, level);
        }
    }

    /// Evaluate the network at the state `x` and time step `t`. The state is lent to the trajectory's owner until it
    /// answers. The output, which is twice the sample's length where the network also predicts variances, must be
    /// dropped before the next evaluation: only then can its buffer be filled again.
    pub async fn predict(&self, x: &mut Vec<f32>, input: Input, t: f64) -> Output {
        {
            let mut mailbox = self.mailbox.borrow_mut();
            (mailbox.input, mailbox.t, mailbox.letter) = (input, t, Letter::Asked);
            std::mem::swap(&mut mailbox.state, x);
        }
        poll_fn(|_| {
            let mut mailbox = self.mailbox.borrow_mut();
            match std::mem::take(&mut mailbox.letter) {
                Letter::Answered(output) => {
                    std::mem::swap(&mut mailbox.state, x);
                    Poll::Ready(output)
                }
                letter => {
                    mailbox.letter = letter;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether anybody watches x̂_0.
    pub fn is_observed(&self) -> bool {
        self.mailbox.borrow().observing
    }

    /// Show the present x̂_0 to whoever watches; costs nothing while nobody does.
    pub fn observe(&self, x0: &[f32]) {
        let mut mailbox = self.mailbox.borrow_mut();
        if mailbox.observing {
            mailbox.observed = true;
            mailbox.x0.clear();
            mailbox.x0.extend_from_slice(x0);
        }
    }
}

/// One image's walk from noise to sample.
pub struct Trajectory {
    walk: SampleFuture,
    keep: Option<Rc<InpaintMask>>,
    mailbox: Rc<RefCell<Mailbox>>,
}

impl std::fmt::Debug for Trajectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trajectory").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}

impl Trajectory {
    /// Begin a sampler's walk, on which a part may be kept.
    pub fn new(keep: Option<InpaintMask>, walk: impl FnOnce(ModelHandle) -> SampleFuture) -> Self {
        let mailbox = Rc::new(RefCell::new(Mailbox::default()));
        let keep = keep.map(Rc::new);
        let begun = Rc::default();
        let net = ModelHandle { mailbox: Rc::clone(&mailbox), keep: keep.clone(), begun };
        Self { walk: walk(net), mailbox, keep }
    }

    /// Let the sampler run up to its next evaluation or its end.
    pub fn poll(&mut self) -> Poll<Vec<f32>> {
        match self.walk.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut sample) => {
                if let Some(keep) = &self.keep {
                    keep.apply(&mut sample, NoiseLevel { alpha: 1.0, sigma: 0.0 });
                }
                Poll::Ready(sample)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The time step at which it waits for an evaluation.
    pub fn time(&self) -> f64 {
        self.mailbox.borrow().t
    }

    /// Append the network's input of the evaluation that it waits for.
    pub fn append_input(&self, to: &mut Vec<f32>) {
        let mailbox = self.mailbox.borrow();
        mailbox.input.append(&mailbox.state, to);
    }

    /// Post the evaluation's output.
    pub fn answer(&self, output: Output) {
        self.mailbox.borrow_mut().letter = Letter::Answered(output);
    }

    /// Ask the sampler to show x̂_0 from now on, or no longer.
    pub fn watch(&self, observing: bool) {
        self.mailbox.borrow_mut().observing = observing;
    }

    /// The x̂_0 shown since the last call, if any.
    pub fn observed<R>(&self, read: impl FnOnce(&[f32]) -> R) -> Option<R> {
        let mut mailbox = self.mailbox.borrow_mut();
        std::mem::take(&mut mailbox.observed).then(|| read(&mailbox.x0))
    }
}
