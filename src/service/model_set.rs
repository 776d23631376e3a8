//! The models that the daemon serves, loads and lets go: a state machine without I/O.
//!
//! What is wanted comes from the configuration and from requests. Models are loaded one after the other while the others
//! serve. A model that is not wanted takes no further jobs, finishes those that it has, and leaves memory. One that is to
//! be replaced serves until the other is loaded, and the daemon is never without a model.

mod idle;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::model_requests::{ModelOutcome, Requester};
use super::model_source::ModelSource;
use super::worker::{LoadFault, ModelLoad};
use crate::inference::LoadStage;
use crate::job::{ErrorCode, JobError, ModelCard};

#[derive(Debug)]
pub(super) struct ModelSet {
    /// What is to be served, the default model first.
    wanted: Vec<Wanted>,
    /// The models of the start, until they are loaded.
    starting: Vec<ModelSource>,
    served: Vec<Served>,
    loading: Option<Loading>,
    leaving: Vec<Leaving>,
    /// The number of the latest load.
    latest_load: u64,
    /// How long a model stays in memory without jobs.
    idle_limit: Option<Duration>,
    is_changed: bool,
}

#[derive(Debug)]
struct Wanted {
    source: ModelSource,
    /// Whether the configuration names it.
    is_configured: bool,
    /// Whether it could not be loaded. It is tried again at the next reload or request.
    has_failed: bool,
    /// The digest that the request for it names.
    sha256: Option<String>,
    /// Those who wait for it.
    requesters: Vec<Requester>,
}

#[derive(Debug)]
struct Served {
    source: ModelSource,
    card: Arc<ModelCard>,
    /// Whether the network is in memory.
    is_open: bool,
    /// When a job last used it.
    last_used: Instant,
}

#[derive(Debug)]
struct Loading {
    number: u64,
    source: ModelSource,
    stage: Option<LoadStage>,
    /// Those who no longer want it.
    unloaders: Vec<Requester>,
}

/// A model that finishes its jobs.
#[derive(Debug)]
struct Leaving {
    source: ModelSource,
    card: Arc<ModelCard>,
    requesters: Vec<Requester>,
}

/// What follows from an event.
#[derive(Debug)]
pub(super) enum ModelAction {
    /// Load a model.
    Load(ModelLoad),
    /// Let this model finish its jobs and leave memory.
    Retire(Arc<ModelCard>),
    /// Answer a request.
    Answer(Requester, Result<ModelOutcome, JobError>),
}

/// The models for the published state.
#[derive(Debug, Default)]
pub(super) struct ModelReport {
    /// The models that requests can name, the default one first, and whether the network of each is in memory.
    pub(super) served: Vec<(Arc<ModelCard>, bool)>,
    /// The names of the models that are loaded now or next, and the stage of each.
    pub(super) loading: Vec<(String, Option<LoadStage>)>,
    /// The names of the models that finish their jobs.
    pub(super) unloading: Vec<String>,
}

impl ModelSet {
    /// Begins with the models of the configuration, which the worker loads at its start.
    pub(super) fn new(sources: Vec<ModelSource>) -> Self {
        Self {
            wanted: sources.iter().cloned().map(Wanted::configured).collect(),
            starting: sources,
            served: Vec::new(),
            loading: None,
            leaving: Vec::new(),
            latest_load: 0,
            idle_limit: None,
            is_changed: true,
        }
    }

    /// The models of the start are loaded.
    pub(super) fn on_ready(&mut self, cards: Vec<Arc<ModelCard>>, now: Instant) -> Vec<ModelAction> {
        let loaded = std::mem::take(&mut self.starting).into_iter().zip(cards);
        self.served = loaded.map(|(source, card)| Served::new(source, card, now)).collect();
        self.step()
    }

    /// Makes the models those of the configuration. What requests have changed ends.
    pub(super) fn configure(&mut self, sources: Vec<ModelSource>) -> Vec<ModelAction> {
        let mut former = std::mem::take(&mut self.wanted);
        for source in sources {
            let known = former.iter().position(|wanted| wanted.source == source);
            let requesters = known.map(|index| former.remove(index).requesters).unwrap_or_default();
            self.wanted.push(Wanted { requesters, ..Wanted::configured(source) });
        }
        let mut actions = Vec::new();
        for Wanted { source, requesters, .. } in former {
            let message = format!(
                "{} was not loaded, because the configuration was reloaded; send the request again",
                source.name
            );
            let error = JobError::new(ErrorCode::Cancelled, message);
            actions.extend(requesters.into_iter().map(|to| ModelAction::Answer(to, Err(error.clone()))));
        }
        actions.extend(self.step());
        actions
    }

    /// A load has ended.
    pub(super) fn on_loaded(
        &mut self,
        number: u64,
        outcome: Result<Arc<ModelCard>, LoadFault>,
        now: Instant,
    ) -> Vec<ModelAction> {
        let Some(Loading { source, unloaders, .. }) =
            self.loading.take_if(|loading| loading.number == number)
        else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        let index = self.wanted.iter().position(|wanted| wanted.source == source);
        let mut unloaders = unloaders;
        if index.is_some() {
            // Only a reload makes a model wanted again without an answer to them.
            let error = JobError::new(
                ErrorCode::Cancelled,
                format!("{} was not unloaded, because the configuration was reloaded", source.name),
            );
            let answer = |to| ModelAction::Answer(to, Err(error.clone()));
            actions.extend(unloaders.drain(..).map(answer));
        }
        match (outcome, index) {
            (Ok(card), Some(index)) => {
                let requesters = std::mem::take(&mut self.wanted[index].requesters);
                actions.extend(requesters.into_iter().map(|to| answer_loaded(to, &source, &card)));
                self.served.push(Served::new(source, card, now));
            }
            (Ok(card), None) => {
                actions.push(ModelAction::Retire(Arc::clone(&card)));
                self.leaving.push(Leaving { source, card, requesters: unloaders });
            }
            (Err(fault), Some(index)) => actions.extend(self.on_load_failed(index, fault)),
            (Err(_), None) => {
                actions.extend(unloaders.into_iter().map(|to| answer_unloaded(to, &source)));
            }
        }
        actions.extend(self.step());
        actions
    }

    /// The wanted model with this index cannot be loaded.
    fn on_load_failed(&mut self, index: usize, fault: LoadFault) -> Vec<ModelAction> {
        let wanted = &mut self.wanted[index];
        let source = wanted.source.clone();
        let requesters = std::mem::take(&mut wanted.requesters);
        let reason = match fault {
            LoadFault::Digest(found) => {
                let expects_other =
                    |to: &Requester| to.sha256.as_ref().is_some_and(|sha256| *sha256 != found);
                let (wrong, others): (Vec<_>, Vec<_>) = requesters.into_iter().partition(expects_other);
                wanted.sha256 = None;
                wanted.requesters = others;
                if wanted.requesters.is_empty() && !wanted.is_configured {
                    self.wanted.remove(index);
                }
                let answer = |to: Requester| {
                    let expected = to.sha256.clone().unwrap_or_default();
                    ModelAction::Answer(to, Err(digest_error(&source, &expected, &found)))
                };
                return wrong.into_iter().map(answer).collect();
            }
            LoadFault::Model(reason) => reason,
        };
        wanted.has_failed = true;
        let message = format!("model {} in {} is not loaded: {reason}", source.name, source.path.display());
        if wanted.is_configured {
            log::error!("models.paths: {message}; correct it, and reload the configuration (SIGHUP)");
        } else {
            self.wanted.remove(index);
        }
        let error = JobError::of_field(ErrorCode::UnknownModel, "path", message);
        requesters.into_iter().map(|to| ModelAction::Answer(to, Err(error.clone()))).collect()
    }

    /// A model that was to leave has left memory.
    pub(super) fn on_unloaded(&mut self, card: &ModelCard) -> Vec<ModelAction> {
        self.is_changed = true;
        let left = self.leaving.extract_if(.., |leaving| leaving.card.bundle.is_copy_of(&card.bundle));
        let answers = left.flat_map(|Leaving { source, requesters, .. }| {
            requesters.into_iter().map(move |to| answer_unloaded(to, &source)).collect::<Vec<_>>()
        });
        answers.collect()
    }

    /// Another provider serves a model from now on.
    pub(super) fn on_replaced(&mut self, card: Arc<ModelCard>) {
        self.is_changed = true;
        if let Some(served) = self.served.iter_mut().find(|served| served.is(&card)) {
            served.card = card;
        }
    }

    pub(super) fn on_stage(&mut self, number: u64, stage: LoadStage) {
        if let Some(loading) = self.loading.as_mut().filter(|loading| loading.number == number) {
            self.is_changed |= loading.stage.replace(stage) != Some(stage);
        }
    }

    /// The network of a model was opened, or closed.
    pub(super) fn on_open(&mut self, card: &ModelCard, is_open: bool) {
        self.is_changed = true;
        for served in self.served.iter_mut().filter(|served| served.is(card)) {
            served.is_open = is_open;
        }
    }

    /// Drops the requesters whose messages the broker delivers again on the next connection.
    pub(super) fn on_disconnected(&mut self) {
        let wanted = self.wanted.iter_mut().map(|wanted| &mut wanted.requesters);
        let loading = self.loading.iter_mut().map(|loading| &mut loading.unloaders);
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.requesters);
        wanted.chain(loading).chain(leaving).for_each(|requesters| {
            requesters.retain(|requester| !requester.is_redelivered());
        });
    }

    /// The names of the models that requests can name, and whether each is in memory.
    pub(super) fn names_and_residence(&self) -> Vec<(String, bool)> {
        self.served.iter().map(|served| (served.source.name.clone(), served.is_open)).collect()
    }

    /// The names of the models that are in memory.
    pub(super) fn open_names(&self) -> BTreeSet<String> {
        let open = self.served.iter().filter(|served| served.is_open);
        open.map(|served| served.source.name.clone()).collect()
    }

    /// The models that requests can name, the default one first.
    pub(super) fn cards(&self) -> Vec<Arc<ModelCard>> {
        self.in_order().map(|served| Arc::clone(&served.card)).collect()
    }

    /// Returns the models for the published state if they have changed since the last call.
    pub(super) fn take_report(&mut self) -> Option<ModelReport> {
        if !std::mem::replace(&mut self.is_changed, false) {
            return None;
        }
        let stage = |source: &ModelSource| self.loading.as_ref().filter(|l| l.source == *source)?.stage;
        let pending = self.wanted.iter().filter(|wanted| !wanted.has_failed && !self.serves(&wanted.source));
        Some(ModelReport {
            served: self.in_order().map(|served| (Arc::clone(&served.card), served.is_open)).collect(),
            loading: pending.map(|wanted| (wanted.source.name.clone(), stage(&wanted.source))).collect(),
            unloading: self.leaving.iter().map(|leaving| leaving.source.name.clone()).collect(),
        })
    }

    /// The served models in the order in which they are wanted. A model that is to be replaced has the place of the other.
    fn in_order(&self) -> impl Iterator<Item = &Served> {
        let place = |served: &Served| self.wanted.iter().position(|w| w.source.name == served.source.name);
        let mut all: Vec<_> = self.served.iter().collect();
        all.sort_by_key(|served| place(served).unwrap_or(usize::MAX));
        all.into_iter()
    }

    fn serves(&self, source: &ModelSource) -> bool {
        self.served.iter().any(|served| served.source == *source)
    }

    fn wants(&self, source: &ModelSource) -> bool {
        self.wanted.iter().any(|wanted| wanted.source == *source)
    }

    /// Starts the next load, and retires what is not wanted.
    fn step(&mut self) -> Vec<ModelAction> {
        self.is_changed = true;
        if !self.starting.is_empty() {
            return Vec::new();
        }
        let next = self.wanted.iter().find(|wanted| !wanted.has_failed && !self.serves(&wanted.source));
        let mut actions = Vec::new();
        if let (Some(Wanted { source, sha256, .. }), None) = (next, &self.loading) {
            self.latest_load += 1;
            let (number, path, options) = (self.latest_load, source.path.clone(), source.options.clone());
            actions.push(ModelAction::Load(ModelLoad { number, path, options, sha256: sha256.clone() }));
            self.loading =
                Some(Loading { number, source: source.clone(), stage: None, unloaders: Vec::new() });
        }
        if !self.served.iter().any(|served| self.wants(&served.source)) {
            return actions;
        }
        // Those whose successor is not loaded stay.
        let awaited = self.wanted.iter().filter(|wanted| !self.serves(&wanted.source));
        let awaited: Vec<_> = awaited.map(|wanted| wanted.source.name.clone()).collect();
        let wanted = &self.wanted;
        let is_superfluous = |served: &mut Served| {
            !wanted.iter().any(|wanted| wanted.source == served.source)
                && !awaited.contains(&served.source.name)
        };
        for Served { source, card, .. } in self.served.extract_if(.., is_superfluous) {
            log::info!(
                "model {} takes no further jobs, and leaves memory after those that it has",
                source.name
            );
            actions.push(ModelAction::Retire(Arc::clone(&card)));
            self.leaving.push(Leaving { source, card, requesters: Vec::new() });
        }
        actions
    }
}

impl Wanted {
    fn configured(source: ModelSource) -> Self {
        Self { is_configured: true, ..Self::requested(source) }
    }

    fn requested(source: ModelSource) -> Self {
        Self { source, is_configured: false, has_failed: false, sha256: None, requesters: Vec::new() }
    }
}

impl Served {
    /// A model that was loaded just now.
    fn new(source: ModelSource, card: Arc<ModelCard>, now: Instant) -> Self {
        Self { source, card, is_open: true, last_used: now }
    }

    /// Whether this is the model of a card, and not another one of the same name.
    fn is(&self, card: &ModelCard) -> bool {
        self.card.bundle.is_copy_of(&card.bundle)
    }
}

/// Answers a request to load a model that is loaded. Another request may have named another digest.
fn answer_loaded(to: Requester, source: &ModelSource, card: &Arc<ModelCard>) -> ModelAction {
    let found = card.digest();
    let outcome = match to.sha256.as_deref().filter(|expected| *expected != found) {
        Some(expected) => Err(digest_error(source, expected, &found)),
        None => Ok(ModelOutcome::Loaded { card: Arc::clone(card), path: source.path.clone() }),
    };
    ModelAction::Answer(to, outcome)
}

fn answer_unloaded(to: Requester, source: &ModelSource) -> ModelAction {
    let outcome = ModelOutcome::Unloaded { name: source.name.clone(), path: source.path.clone() };
    ModelAction::Answer(to, Ok(outcome))
}

fn digest_error(source: &ModelSource, expected: &str, found: &str) -> JobError {
    let message = format!(
        "sha256: model {} in {} has the digest {found}, and not {expected}; copy its files again, or correct the request",
        source.name,
        source.path.display()
    );
    JobError::out_of_range("sha256", message)
}
