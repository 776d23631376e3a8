//! A loaded model of the evaluating thread, and what was last reported of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{EventSender, ModelEvent};
use crate::job::ModelCard;
use crate::pipeline::Pipeline;

/// The shortest time between two latency events of a model.
const LATENCY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct LoadedModel {
    pub(super) pipeline: Pipeline,
    /// The time of the latest latency event.
    latency_sent: Option<Instant>,
    /// Whether the network was in memory when that was last reported.
    was_open: bool,
    /// Whether it leaves once its jobs are finished.
    is_retired: bool,
}

impl LoadedModel {
    /// A model whose network is in memory.
    pub(super) fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, latency_sent: None, was_open: true, is_retired: false }
    }

    /// Whether this is the model of a card, and not another one of the same name.
    pub(super) fn is(&self, card: &ModelCard) -> bool {
        self.pipeline.model().bundle.is_copy_of(&card.bundle)
    }

    pub(super) fn retire(&mut self) {
        self.is_retired = true;
    }

    /// Whether the model is retired and has no jobs.
    pub(super) fn has_left(&self) -> bool {
        self.is_retired && self.pipeline.is_idle()
    }

    /// Closes the sessions if there are no jobs.
    pub(super) fn close_if_idle(&self) {
        let model = self.pipeline.model();
        if self.pipeline.is_idle() && model.predictor.is_open() {
            model.close();
            log::info!("model {} had no jobs and left memory; the next job opens it", model.bundle.name);
        }
    }

    /// Installs a replacement that is due.
    pub(super) fn swap_if_idle(&mut self, events: &mut EventSender) {
        if self.pipeline.swap_model_if_idle() {
            let card = Arc::clone(self.pipeline.card());
            log::info!("model {} is now served by {}", card.bundle.name, card.backend.provider);
            events.send_model_event(ModelEvent::Replaced(card));
        }
    }

    /// Reports whether the network is in memory, if that has changed. Other models may have evicted it.
    pub(super) fn report_open(&mut self, events: &mut EventSender) {
        let is_open = self.pipeline.model().predictor.is_open();
        if std::mem::replace(&mut self.was_open, is_open) != is_open {
            if is_open {
                log::info!("model {} is in memory again", self.pipeline.model().bundle.name);
            }
            events.send_model_event(ModelEvent::Open { card: Arc::clone(self.pipeline.card()), is_open });
        }
    }

    /// Does one step, if there is work.
    pub(super) fn step(&mut self, events: &mut EventSender) {
        if !self.pipeline.has_work() {
            return;
        }
        self.pipeline.step(&mut |job, event| events.send_job_event(job, event));
        if let Some(ms_per_nfe) = self.pipeline.ms_per_evaluation()
            && self.latency_sent.is_none_or(|sent| sent.elapsed() >= LATENCY_INTERVAL)
        {
            self.latency_sent = Some(Instant::now());
            let model = self.pipeline.model().bundle.name.clone();
            events.send_model_event(ModelEvent::Latency { model, ms_per_nfe });
        }
    }
}
