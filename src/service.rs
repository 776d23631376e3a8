//! The daemon: receives requests over MQTT, runs them, and publishes the results.
//!
//! Jobs of other interfaces of this process, such as HTTP, arrive on a queue.
//!
//! Four parts run concurrently and communicate over bounded queues: the MQTT client, the service task,
//! the spool, which stores what must not be lost before it is sent, and the worker with its engine. The
//! spool and the worker have threads of their own, so that no evaluation blocks the connection.

pub(crate) mod broker;
mod client_id;
mod committing_jobs;
mod effects;
mod error;
mod former_session;
mod forwarding;
mod handled_commands;
mod heartbeat;
mod held_commands;
mod job_registry;
pub(crate) mod local;
pub(crate) mod metrics;
mod model_queues;
mod model_requests;
mod model_set;
mod model_source;
pub(crate) mod model_summary;
mod outbox;
mod parsed_request;
pub(crate) mod password;
mod pending_fetches;
mod responses;
mod router;
pub(crate) mod status;
mod stream;
mod supervisor;
mod systemd;
mod topic_root;
mod undeliverable;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::Config;
use crate::mqtt::Topics;
use crate::mqtt::client::{ClientEvent, MqttClient};
use crate::platform::{Platform, User};
use crate::spool::{AcceptedJob, RetryLog, Spool, SpoolError, SpoolSettings};
use crate::units::counted;
use former_session::FormerSession;
use heartbeat::Watchdog;
use job_registry::JobRegistry;
use model_source::ModelSources;
use router::Router;
use supervisor::Supervisor;
use systemd::SystemdNotifier;
use worker::{EncodedImage, Worker, WorkerEvent};

pub use error::ServiceError;
pub use local::LocalPort;
pub(crate) use topic_root::root_change;

/// How long flushing pending messages may take on shutdown, and then closing the connection.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often opening a spool on a full disk is retried.
const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the supervisor runs, and the shortest time between two publications of a changed state.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Requests from outside while the daemon runs.
#[derive(Debug)]
pub struct Signals {
    /// Holds `true` once the daemon is to stop.
    pub stop: watch::Receiver<bool>,
    /// Reloaded configurations.
    pub reload: mpsc::Receiver<Config>,
    /// The requests of this process's other interfaces.
    pub local: LocalPort,
}

/// Serves until shutdown is requested, then finishes the accepted jobs within `limits.drain_s`.
pub async fn run(config: &Config, mut signals: Signals) -> Result<(), ServiceError> {
    let settings = broker::settings(config, client_id::client_id(config))?;
    log::info!("the client id at the broker is {}", settings.client_id);
    let former = FormerSession::read(config, &settings);
    let topics = Topics::new(config.root())
        .with_shared_queue(config.mqtt.shared_queue.parts())
        .with_root_key(config.mqtt.root.distinguishing_key())
        .with_node_between(config.mqtt.root.around_node())
        .with_former_queues(former.queues());
    let home_assistant = config.home_assistant.enabled.then(|| config.home_assistant.prefix.as_str());
    let topics = topics.with_home_assistant(home_assistant);
    let client = MqttClient::open(settings, topics.clone())?;
    let settings = SpoolSettings {
        path: config.spool.path.clone(),
        max_bytes: config.spool.max_bytes.0,
        keep_s: config.spool.keep_s.0,
    };
    let mut notifier = SystemdNotifier::new();
    let Some((spool, unfinished)) = open_spool(settings, &client, &mut notifier, &mut signals.stop).await?
    else {
        return Ok(());
    };
    former.store();
    topic_root::check(config);
    let worker = Worker::start(config, unfinished.len());
    let watchdog = Watchdog::new(worker.heartbeat.clone());
    let LocalPort { snapshot, metrics, .. } = &signals.local;
    let supervisor =
        Supervisor::new(config, topics.clone(), notifier, watchdog, snapshot.clone(), metrics.clone());
    let registry = JobRegistry::new(config, topics.clone(), spool.completed_jobs(), metrics.clone());
    let mut router = Router::new(client, spool, worker, registry, ModelSources::new(config), unfinished);
    router.open_home_assistant(config, topics, supervisor.has_thermal());
    let mut service = Service { router, supervisor, former };
    let outcome = service.serve(&mut signals).await;
    service.shut_down().await;
    outcome
}

/// Opens the spool, retrying while the disk is full, because unfinished jobs must not be dropped. Returns
/// `None` if shutdown is requested first.
async fn open_spool(
    settings: SpoolSettings,
    client: &MqttClient,
    notifier: &mut SystemdNotifier,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<(Spool, Vec<AcceptedJob>)>, ServiceError> {
    let mut errors = RetryLog::default();
    loop {
        match Spool::open(settings.clone(), client.commands.clone()) {
            Ok(opened) => return Ok(Some(opened)),
            Err(full @ SpoolError::Full { .. }) => {
                if errors.is_due(std::time::Instant::now()) {
                    log::error!("{full}");
                }
                notifier.status("waiting for room on the disk".to_owned());
                notifier.keep_alive(true);
            }
            Err(error) => return Err(spool_error(error, &settings.path)),
        }
        tokio::select! {
            () = tokio::time::sleep(SPOOL_RETRY_INTERVAL) => {}
            () = stop_requested(stop) => return Ok(None),
        }
    }
}

/// Names the owner of a spool that this process may not use, for example after a start as root.
fn spool_error(error: SpoolError, directory: &Path) -> ServiceError {
    if let SpoolError::Directory { path, error: cause } = &error
        && cause.kind() == std::io::ErrorKind::PermissionDenied
        && let Some(owner) = Platform::default().owner_name(path)
        && let user = User::of_this_process().name
        && owner != user
    {
        let is_foreign =
            |file: &PathBuf| Platform::default().owner_name(file).is_some_and(|owner| owner != user);
        let mut files = crate::spool::files(directory);
        files.extend([directory.to_owned(), path.clone()]);
        files.retain(is_foreign);
        files.sort();
        files.dedup();
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        return ServiceError::ForeignSpool {
            path: path.display().to_string(),
            owner,
            user,
            files: files.join(" "),
        };
    }
    error.into()
}

/// The service task.
struct Service {
    router: Router,
    supervisor: Supervisor,
    former: FormerSession,
}

impl Service {
    /// Handles events until shutdown is requested and the accepted jobs are finished, or the drain deadline
    /// has passed.
    async fn serve(&mut self, signals: &mut Signals) -> Result<(), ServiceError> {
        let Signals { stop, reload, local } = signals;
        let mut drain_deadline = None;
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let spool_sender = self.router.spool.sender();
        while drain_deadline.is_none() || !self.router.is_drained() {
            let has_room = self.router.has_room();
            if has_room {
                self.router.step_streams();
            }
            self.publish_models();
            for filter in self.router.update_model_queues() {
                self.former.remember_queue(&filter);
            }
            let streams_due = self.router.streams_due();
            let router = &mut self.router;
            tokio::select! {
                event = router.client.events.recv(), if has_room => match event {
                    Some(event) => self.on_client_event(event),
                    None => return Err(ServiceError::Ended("the MQTT client", String::new())),
                },
                event = router.worker.events.recv(), if has_room && router.spool.has_capacity() => match event {
                    Some(event) => self.on_worker_event(event)?,
                    None => {
                        return Err(ServiceError::Ended("the worker", router.worker.panic_messages()));
                    }
                },
                Some(request) = local.requests.recv(), if has_room => self.router.on_local_request(request),
                Ok(()) = router.client.newest.changed(), if has_room => self.router.on_newest(),
                () = tokio::time::sleep_until(streams_due.unwrap_or_else(Instant::now)),
                    if has_room && streams_due.is_some() => {}
                () = spool_sender.closed() => {
                    return Err(ServiceError::Ended("the spool", router.spool.panic_message()));
                }
                Ok(permit) = spool_sender.reserve(), if !router.outbox.is_empty() => {
                    if let Some(command) = router.outbox.pop() {
                        permit.send(command);
                    }
                }
                _ = ticks.tick() => self.on_tick(),
                Some(config) = reload.recv() => {
                    self.router.reload_models(&config);
                    let limits = self.supervisor.reload(config);
                    self.router.set_limits(limits);
                }
                () = stop_requested(stop), if drain_deadline.is_none() => {
                    drain_deadline = Some(Instant::now() + self.start_draining());
                }
                () = tokio::time::sleep_until(drain_deadline.unwrap_or_else(Instant::now)),
                    if drain_deadline.is_some() =>
                {
                    let jobs = counted(self.router.job_count() as u64, "unfinished job");
                    let undelivered = match self.router.spool.pending_bytes() {
                        0 => String::new(),
                        bytes => format!(" and {bytes} bytes of undelivered messages"),
                    };
                    log::info!("keeping {jobs}{undelivered} for the next start");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Publishes which models are served, loaded and unloaded, if that has changed. Every connection begins with the state.
    fn publish_models(&mut self) {
        if let Some(report) = self.router.take_model_report()
            && let Some(state) = self.supervisor.on_models(&report)
            && self.router.is_connected()
        {
            self.router.publish_unspooled(state);
        }
    }

    fn on_tick(&mut self) {
        self.router.on_tick();
        if let Some(state) =
            self.supervisor.on_tick(self.router.job_count(), self.router.spool.pending_bytes())
        {
            self.router.publish_unspooled(state);
        }
    }

    fn on_client_event(&mut self, event: ClientEvent) {
        match &event {
            ClientEvent::Connected { has_session } => {
                self.former.on_connected(*has_session);
                let messages = self.supervisor.on_connected();
                messages.into_iter().for_each(|message| self.router.publish_unspooled(message));
            }
            ClientEvent::TakenOver => self.former.on_taken_over(),
            ClientEvent::Subscribed => self.supervisor.on_subscribed(),
            ClientEvent::Disconnected => self.supervisor.on_disconnected(),
            ClientEvent::Deficits(deficits) => self.supervisor.set_broker_deficits(deficits.clone()),
            ClientEvent::LeftQueue(filter) => self.former.on_left_queue(filter),
            _ => {}
        }
        self.router.on_client_event(event);
    }

    fn on_worker_event(&mut self, event: WorkerEvent<EncodedImage>) -> Result<(), ServiceError> {
        match event {
            WorkerEvent::Job(job, event) => self.router.on_job_event(&job, event),
            WorkerEvent::Model(event) => {
                if let Some(state) = self.supervisor.on_model_event(&event) {
                    self.router.publish_unspooled(state);
                }
                self.router.on_model_event(event)?;
            }
        }
        Ok(())
    }

    /// Rejects further requests, and returns how long to wait for unfinished jobs.
    fn start_draining(&mut self) -> Duration {
        let (state, timeout) = self.supervisor.start_draining();
        let jobs = counted(self.router.job_count() as u64, "job");
        log::info!("stopping: waiting at most {timeout:?} for {jobs}");
        self.router.close();
        self.router.publish_unspooled(state);
        timeout
    }

    /// Flushes the outbox, publishes `offline`, and closes worker, spool and connection.
    async fn shut_down(self) {
        let Self { mut router, supervisor, .. } = self;
        router.worker.stop();
        router.publish_unspooled(supervisor.offline_message());
        let spool_sender = router.spool.sender();
        let flush = async {
            while let Some(command) = router.outbox.pop() {
                if spool_sender.send(command).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, flush).await.is_err() {
            log::error!("timed out after {SHUTDOWN_TIMEOUT:?} flushing pending messages to the spool");
        }
        drop(spool_sender);
        router.spool.close().await;
        router.client.close(SHUTDOWN_TIMEOUT).await;
    }
}

async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    // A sender that is dropped never requests a stop.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After one start as root, the service's user got only "Permission denied", and then advice for a part of the files.
    #[test]
    fn a_spool_of_another_user_was_refused_without_its_owner_and_all_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut files =
            ["client-ids", "spool.redb", "topic-root"].map(|name| directory.path().join(name)).to_vec();
        let user = User::of_this_process();
        let (path, owner) = match user.uid {
            0 => {
                for file in &files {
                    std::fs::write(file, "").unwrap();
                    std::os::unix::fs::chown(file, Some(4_000_001), None).unwrap();
                }
                (files[1].clone(), "4000001")
            }
            _ => {
                files = vec![PathBuf::from("/etc/passwd")];
                (files[0].clone(), "root")
            }
        };
        let denied = |path: PathBuf| {
            let error = std::io::ErrorKind::PermissionDenied.into();
            spool_error(SpoolError::Directory { path, error }, directory.path())
        };
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            denied(path.clone()).to_string(),
            format!(
                "spool.path: {0} belongs to the user {owner}, and the daemon runs as the user {1}, who cannot write to \
                 it; sudo chown {1} {2}",
                path.display(),
                user.name,
                files.join(" ")
            )
        );
        assert!(matches!(denied("/nonexistent".into()), ServiceError::Spool(_)));
    }
}
