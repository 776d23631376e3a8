//! Logs that an engine is being built, since a build takes minutes.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::inference::provider::Provider;

const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Logs the progress of a build until it is dropped.
pub(super) struct BuildProgress {
    /// Taken to end the thread.
    done: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BuildProgress {
    pub(super) fn new(model: &str, provider: Provider) -> Self {
        log::warn!("{provider} builds its engine of {model}; this may take minutes, once");
        let (done, ended) = sync_channel::<()>(1);
        let (model, start) = (model.to_owned(), Instant::now());
        let thread = std::thread::Builder::new().name("build-progress".to_owned()).spawn(move || {
            while ended.recv_timeout(LOG_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                log::warn!(
                    "{provider} still builds its engine of {model}, for {:.0?} so far",
                    start.elapsed()
                );
            }
        });
        Self { done: Some(done), thread: thread.ok() }
    }
}

impl Drop for BuildProgress {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It only logs, and it ends at once.
            let _ = thread.join();
        }
    }
}
