//! One image on its way from noise to sample, and what it waits for.
//!
//! A sampler is an `async` block that awaits [`Net::predict`] where its paper evaluates the
//! network. A [`Trajectory`] holds that block and a mailbox; its owner polls it, reads what it
//! asks, evaluates many of them together, and posts each answer. The compiler cuts the sampler
//! into the states between two evaluations, so any sampler rides in one batch with any other.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::schedule::Level;

/// A sampler's future: the finished sample.
pub type Walk = Pin<Box<dyn Future<Output = Vec<f32>>>>;

/// A sample of which a part is kept (Lugmayr et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The sample, in the network's range.
    pub sample: Vec<f32>,
    /// 1 where it is kept, 0 where it is drawn anew.
    pub mask: Vec<f32>,
}

/// A sample of which a part is kept while the rest is drawn: at every level that the walk reaches,
/// that part is replaced by the forward process of what is known, with always the same noise
/// (Song et al. 2021, appendix I.2, in the form that latent diffusion's pipelines have).
#[derive(Debug, Clone)]
pub struct Keep {
    /// What is known, and where.
    pub known: Arc<Known>,
    /// Its noise.
    pub noise: Vec<f32>,
}

impl Keep {
    /// Replace the known part of a state at a level.
    pub fn apply(&self, x: &mut [f32], level: Level) {
        let (alpha, sigma) = (level.alpha as f32, level.sigma as f32);
        let known = self.known.sample.iter().zip(&self.known.mask).zip(&self.noise);
        for (x, ((x0, kept), z)) in x.iter_mut().zip(known) {
            *x = (1.0 - kept) * *x + kept * (alpha * x0 + sigma * z);
        }
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    state: Letter,
    input: Vec<f32>,
    t: f64,
    output: Vec<f32>,
    observing: bool,
    observed: bool,
    x0: Vec<f32>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Letter {
    #[default]
    None,
    Asked,
    Answered,
}

/// The sampler's side of a trajectory: the network, as far as it can see it.
#[derive(Debug, Clone)]
pub struct Net {
    mailbox: Rc<RefCell<Mailbox>>,
    output_len: usize,
    keep: Option<Rc<Keep>>,
    begun: Rc<Cell<bool>>,
}

impl Net {
    /// Before an evaluation at a level: replace what is known, but at the walk's very start, which
    /// its owner made.
    pub fn keep(&self, x: &mut [f32], level: Level) {
        if let Some(keep) = self.keep.as_ref().filter(|_| self.begun.replace(true)) {
            keep.apply(x, level);
        }
    }

    /// A buffer of the size of the network's output, which is twice the sample's where the
    /// network also predicts variances.
    pub fn output_buffer(&self) -> Vec<f32> {
        vec![0.0; self.output_len]
    }

    /// Evaluate the network at `x` and time step `t`; the output is swapped into `output`.
    pub async fn predict(&self, x: &[f32], t: f64, output: &mut Vec<f32>) {
        {
            let mut mailbox = self.mailbox.borrow_mut();
            mailbox.t = t;
            mailbox.input.clear();
            mailbox.input.extend_from_slice(x);
            mailbox.state = Letter::Asked;
        }
        poll_fn(|_| {
            let mut mailbox = self.mailbox.borrow_mut();
            if mailbox.state != Letter::Answered {
                return Poll::Pending;
            }
            mailbox.state = Letter::None;
            std::mem::swap(&mut mailbox.output, output);
            Poll::Ready(())
        })
        .await;
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

/// What a poll of a trajectory found.
#[derive(Debug, PartialEq)]
pub enum Turn {
    /// It waits for the evaluation that [`Trajectory::input`] shows.
    Waiting,
    /// The sample is finished.
    Done(Vec<f32>),
}

/// One image's walk from noise to sample.
pub struct Trajectory {
    walk: Walk,
    keep: Option<Rc<Keep>>,
    mailbox: Rc<RefCell<Mailbox>>,
}

impl std::fmt::Debug for Trajectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trajectory").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}

impl Trajectory {
    /// Begin a sampler's walk, on which a part may be kept; `output_len` is the length of the network's output for one sample.
    pub fn begin(output_len: usize, keep: Option<Keep>, walk: impl FnOnce(Net) -> Walk) -> Self {
        let mailbox = Mailbox { output: vec![0.0; output_len], ..Mailbox::default() };
        let mailbox = Rc::new(RefCell::new(mailbox));
        let keep = keep.map(Rc::new);
        let begun = Rc::default();
        let net = Net { mailbox: Rc::clone(&mailbox), output_len, keep: keep.clone(), begun };
        Self { walk: walk(net), mailbox, keep }
    }

    /// Let the sampler run up to its next evaluation or its end.
    pub fn poll(&mut self) -> Turn {
        match self.walk.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut sample) => {
                if let Some(keep) = &self.keep {
                    keep.apply(&mut sample, Level { alpha: 1.0, sigma: 0.0 });
                }
                Turn::Done(sample)
            }
            Poll::Pending => Turn::Waiting,
        }
    }

    /// The time step at which it waits for an evaluation.
    pub fn time(&self) -> f64 {
        self.mailbox.borrow().t
    }

    /// Show the network's input that it waits for.
    pub fn input<R>(&self, read: impl FnOnce(&[f32]) -> R) -> R {
        read(&self.mailbox.borrow().input)
    }

    /// Post the evaluation's result: `write` fills the output in.
    pub fn answer(&self, write: impl FnOnce(&mut [f32])) {
        let mut mailbox = self.mailbox.borrow_mut();
        write(&mut mailbox.output);
        mailbox.state = Letter::Answered;
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
