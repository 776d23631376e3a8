//! Takes leave of what the broker keeps from an earlier configuration: sessions of other client ids, and shared queues.
//!
//! The broker would give them requests that nobody does. A session that another daemon may use is left alone: only those that
//! began with this spool, and that no other client took over, are ended.

use std::path::{Path, PathBuf};

use crate::config::{Config, SharedQueue};
use crate::mqtt::client::ClientSettings;
use crate::mqtt::probe;
use crate::spool::former_names::{self, CLIENT_IDS, SHARED_QUEUES};

/// What the broker may still know of earlier starts.
#[derive(Debug)]
pub(super) struct FormerSession {
    directory: PathBuf,
    settings: ClientSettings,
    /// The filter of the present shared queue.
    queue: Option<String>,
    client_ids: Vec<String>,
    queues: Vec<String>,
}

impl FormerSession {
    /// Reads the names of earlier starts.
    pub(super) fn read(config: &Config, settings: &ClientSettings) -> Self {
        let directory = config.spool.path.clone();
        let queue = config.mqtt.shared_queue.parts().map(|(filter, _)| filter.to_owned());
        let former = |file, present| {
            former_names::former(&directory, file, present).unwrap_or_else(|error| {
                log::warn!("cannot read {}: {error}", directory.join(file).display());
                Vec::new()
            })
        };
        Self {
            client_ids: former(CLIENT_IDS, Some(settings.client_id.as_str())),
            queues: former(SHARED_QUEUES, queue.as_deref()),
            settings: settings.clone(),
            directory,
            queue,
        }
    }

    /// The former shared queues, as filter and topic.
    pub(super) fn queues(&self) -> Vec<(String, String)> {
        let parts = self.queues.iter().filter_map(|filter| SharedQueue::split(filter));
        parts.map(|(filter, topic)| (filter.to_owned(), topic.to_owned())).collect()
    }

    /// Stores the shared queue of this start. The spool must be open, so that no other daemon writes there.
    pub(super) fn store(&self) {
        if let Some(queue) = &self.queue {
            remember(&self.directory, SHARED_QUEUES, queue);
        }
    }

    /// Stores a queue that the broker's session has from now on.
    pub(super) fn remember_queue(&self, filter: &str) {
        remember(&self.directory, SHARED_QUEUES, filter);
    }

    /// Stores the client id if its session begins now, and ends the sessions of former client ids, once.
    pub(super) fn on_connected(&mut self, has_session: bool) {
        if !has_session {
            remember(&self.directory, CLIENT_IDS, &self.settings.client_id);
        }
        for client_id in std::mem::take(&mut self.client_ids) {
            let settings = ClientSettings { client_id, ..self.settings.clone() };
            tokio::spawn(end_session(settings, self.directory.clone()));
        }
    }

    /// Another daemon uses the client id too, so that its session is not this daemon's to end.
    pub(super) fn on_taken_over(&self) {
        let id = &self.settings.client_id;
        log::info!("another client has the client id {id}, so a change of the id will not end its session");
        forget(&self.directory, CLIENT_IDS, id);
    }

    /// The broker has removed the daemon from this queue.
    pub(super) fn on_left_queue(&self, filter: &str) {
        forget(&self.directory, SHARED_QUEUES, filter);
    }
}

async fn end_session(settings: ClientSettings, directory: PathBuf) {
    let id = &settings.client_id;
    match probe::end_session(&settings).await {
        Ok(()) => {
            log::info!("ended the session of the former client id {id} at the broker");
            forget(&directory, CLIENT_IDS, id);
        }
        Err(reason) => log::warn!(
            "cannot end the session of the former client id {id} at the broker: {reason}; until it expires, it \
             draws requests from its shared queue; the next start tries again"
        ),
    }
}

fn remember(directory: &Path, file: &str, name: &str) {
    if let Err(error) = former_names::remember(directory, file, name) {
        log::warn!("cannot write {}: {error}", directory.join(file).display());
    }
}

fn forget(directory: &Path, file: &str, name: &str) {
    if let Err(error) = former_names::forget(directory, file, name) {
        log::warn!("{}: cannot remove {name}: {error}", directory.join(file).display());
    }
}
