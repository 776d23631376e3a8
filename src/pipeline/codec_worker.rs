//! The networks around the network: what they encode and decode, on a thread of their own.
//!
//! Where memory allows, the words of one job are encoded and the latents of another are decoded while the
//! network goes on with all others. Where it does not, each is done at once, lest graphs be opened and closed
//! by turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batcher::ImageId;
use super::prepared::{Prepared, of_latents};
use crate::bundle::Signature;
use crate::job::{Job, JobError};
use crate::model::{LatentPipeline, Model};

/// How much may be ordered before the first of it is done.
const ORDERS: usize = 32;

/// Called when something that was ordered is done.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What is to be done.
pub(super) enum Order {
    /// Encode the words and the picture of the job with this number.
    Prepare(u64, Box<Job>),
    /// Decode an image's latents of these axes.
    Decode { ticket: ImageId, latents: Vec<f32>, shape: Vec<usize> },
}

/// What was done.
pub(super) enum Done {
    /// The job with this number can begin.
    Prepared(u64, Result<Prepared, JobError>),
    /// An image's picture, where its sample was a latent.
    Decoded { ticket: ImageId, picture: Result<Vec<f32>, JobError>, latents: Vec<f32>, took: Duration },
}

/// The networks, and who works with them.
pub(super) struct CodecWorker {
    networks: Networks,
    ready: VecDeque<Done>,
    thread: Option<Thread>,
}

#[derive(Clone)]
struct Networks {
    latent: Option<Arc<LatentPipeline>>,
    signature: Signature,
}

impl Networks {
    fn work(&self, order: Order) -> Done {
        match order {
            Order::Prepare(number, job) => {
                Done::Prepared(number, Prepared::of(&job, self.latent.as_deref(), &self.signature))
            }
            Order::Decode { ticket, latents, shape } => {
                let start = Instant::now();
                let picture = match &self.latent {
                    Some(latent) => latent.decode(&latents, &shape).map(|picture| picture.data),
                    None => Ok(latents.clone()),
                };
                let picture = picture.map_err(|error| of_latents(&error));
                Done::Decoded { ticket, picture, latents, took: start.elapsed() }
            }
        }
    }
}

struct Thread {
    /// Given up so that the thread ends.
    orders: Option<blocking::SyncSender<Order>>,
    done: mpsc::Receiver<Done>,
    pending: usize,
    handle: Option<JoinHandle<()>>,
}

impl CodecWorker {
    /// The networks around a model's network; `wake` is called after each thing that is done elsewhere.
    pub(super) fn of(model: &Model, wake: &Wake) -> Self {
        let networks =
            Networks { latent: model.latent.clone(), signature: model.predictor.signature().clone() };
        let overlaps = networks.latent.as_ref().is_some_and(|latent| latent.overlaps);
        let thread = if overlaps { Thread::spawn(networks.clone(), Arc::clone(wake)) } else { None };
        Self { networks, ready: VecDeque::new(), thread }
    }

    /// Have something done, at once or soon.
    pub(super) fn order(&mut self, order: Order) {
        let Some(thread) = &mut self.thread else {
            return self.ready.push_back(self.networks.work(order));
        };
        if thread.pending == ORDERS {
            self.ready.push_back(thread.wait());
        }
        thread.order(order);
    }

    /// Whether something is done.
    pub(super) fn has_news(&self) -> bool {
        !self.ready.is_empty() || self.thread.as_ref().is_some_and(|thread| !thread.done.is_empty())
    }

    /// The next thing that is done already.
    pub(super) fn news(&mut self) -> Option<Done> {
        if self.ready.is_empty() && self.has_news() {
            return self.thread.as_mut().map(Thread::wait);
        }
        self.ready.pop_front()
    }

    /// Wait until something is done, if anything was ordered.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.thread.as_mut().filter(|thread| thread.pending > 0) {
            self.ready.push_back(thread.wait());
        }
    }
}

impl Thread {
    fn spawn(networks: Networks, wake: Wake) -> Option<Self> {
        let (orders, ordered) = blocking::sync_channel(ORDERS);
        let (tell, done) = mpsc::channel(ORDERS);
        let work = move || {
            for order in ordered {
                if tell.blocking_send(networks.work(order)).is_err() {
                    return;
                }
                wake();
            }
        };
        let spawned = std::thread::Builder::new().name("around".to_owned()).spawn(work);
        let handle =
            spawned.inspect_err(|error| log::warn!("nothing is encoded beside the network: {error}"));
        Some(Self { orders: Some(orders), done, pending: 0, handle: Some(handle.ok()?) })
    }

    fn order(&mut self, order: Order) {
        self.pending += 1;
        // There is room for all that is pending; a thread that has ended is noticed where one waits for it.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }

    fn wait(&mut self) -> Done {
        self.pending -= 1;
        if let Some(done) = self.done.blocking_recv() {
            return done;
        }
        let panic = self.handle.take().and_then(|handle| handle.join().err());
        std::panic::resume_unwind(panic.unwrap_or_else(|| Box::new("the encoding thread ended")))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.orders = None;
        self.done.close();
        if let Some(handle) = self.handle.take() {
            // Its panic was passed on where it was waited for.
            let _ = handle.join();
        }
    }
}
