//! Models that requests load and unload.

use std::sync::Arc;

use super::{Leaving, ModelAction, ModelSet, Served, Wanted, answer_loaded, answer_unloaded};
use crate::job::{ErrorCode, JobError, ModelTarget};
use crate::service::model_requests::Requester;
use crate::service::model_source::ModelSource;

impl ModelSet {
    /// Loads a model in addition to the others, unless it is loaded already. It is answered when it is.
    pub(in crate::service) fn load(&mut self, source: ModelSource, requester: Requester) -> Vec<ModelAction> {
        if let Some(served) = self.served.iter().find(|served| served.source == source) {
            let answer = answer_loaded(requester, &source, &served.card);
            if !self.wants(&source) {
                self.wanted.push(Wanted::requested(source));
            }
            return std::iter::once(answer).chain(self.step()).collect();
        }
        let served = self.served.iter().map(|served| &served.source);
        let mut known = self.wanted.iter().map(|wanted| &wanted.source).chain(served);
        if let Some(other) = known.find(|known| known.name == source.name && known.path != source.path) {
            let message = format!(
                "path: a model named {} is served from {}, and requests select models by their names; unload it first, \
                 or rename one of the directories",
                other.name,
                other.path.display()
            );
            let error = JobError::of_field(ErrorCode::Conflict, "path", message);
            return vec![ModelAction::Answer(requester, Err(error))];
        }
        let mut actions = Vec::new();
        if let Some(loading) = self.loading.as_mut().filter(|loading| loading.source == source) {
            actions.extend(loading.unloaders.drain(..).map(|to| answer_unloaded(to, &source)));
        }
        let index = self.wanted.iter().position(|wanted| wanted.source == source);
        let index = index.unwrap_or_else(|| {
            self.wanted.push(Wanted { sha256: requester.sha256.clone(), ..Wanted::requested(source) });
            self.wanted.len() - 1
        });
        self.wanted[index].has_failed = false;
        self.wanted[index].requesters.push(requester);
        actions.extend(self.step());
        actions
    }

    /// Lets a model finish its jobs and leave memory. It is answered when it has left.
    pub(in crate::service) fn unload(
        &mut self,
        target: &ModelTarget,
        requester: Requester,
    ) -> Vec<ModelAction> {
        let is_meant = |source: &ModelSource| match target {
            ModelTarget::Name(name) => source.name == *name,
            ModelTarget::Path(path) => source.path == *path,
        };
        let is_served = self.served.iter().any(|served| is_meant(&served.source));
        if is_served && self.served.len() == 1 {
            let name = &self.served[0].source.name;
            let message = format!("{name} is the only model; load another one before you unload it");
            let error = JobError::of_field(ErrorCode::OutOfRange, target.field(), message);
            return vec![ModelAction::Answer(requester, Err(error))];
        }
        let mut actions = Vec::new();
        let mut dropped = None;
        for Wanted { source, requesters, .. } in self.wanted.extract_if(.., |wanted| is_meant(&wanted.source))
        {
            let message = format!("{} was unloaded before it was loaded", source.name);
            let error = JobError::new(ErrorCode::Cancelled, message);
            actions.extend(requesters.into_iter().map(|to| ModelAction::Answer(to, Err(error.clone()))));
            dropped = Some(source);
        }
        if let Some(index) = self.served.iter().position(|served| is_meant(&served.source)) {
            let Served { source, card, .. } = self.served.remove(index);
            actions.push(ModelAction::Retire(Arc::clone(&card)));
            self.leaving.push(Leaving { source, card, requesters: vec![requester] });
        } else if let Some(loading) = self.loading.as_mut().filter(|loading| is_meant(&loading.source)) {
            loading.unloaders.push(requester);
        } else if let Some(source) = dropped {
            actions.push(answer_unloaded(requester, &source));
        } else if let Some(leaving) = self.leaving.iter_mut().find(|leaving| is_meant(&leaving.source)) {
            leaving.requesters.push(requester);
        } else {
            let known: Vec<_> = self.in_order().map(|served| served.source.name.as_str()).collect();
            let message = format!("there is no model {:?}; there are: {}", target.text(), known.join(", "));
            let error = JobError::of_field(ErrorCode::UnknownModel, target.field(), message);
            actions.push(ModelAction::Answer(requester, Err(error)));
        }
        actions.extend(self.step());
        actions
    }
}
