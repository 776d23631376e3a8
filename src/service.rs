//! The daemon: requests come in over MQTT, a worker draws, answers go out.
//!
//! Four parts run side by side and talk over bounded channels: the link to the broker, this task,
//! the spool that writes down what must not be lost before it goes on to the link, and the worker
//! with its engine on threads of its own, so that no evaluation ever blocks the connection.

mod broker;
mod error;
mod heartbeat;
mod job_registry;
mod pending_fetches;
mod responses;
mod status;
mod systemd;
mod worker;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::mqtt::Topics;
use crate::mqtt::client::{ClientCommand, ClientEvent, Incoming, MqttClient};
use crate::platform::Platform;
use crate::spool::{self, AcceptedJob, Change, CompletedJobs, Order, Spool, SpoolError};
use heartbeat::Watchdog;
use job_registry::{Effects, JobRegistry};
use pending_fetches::{Found, PendingFetches};
use status::{Phase, StatusPublisher};
use systemd::SystemdNotifier;
use worker::{Worker, WorkerEvent};

pub use error::ServiceError;

/// How long saying goodbye may take, once the work is done.
const GOODBYE: Duration = Duration::from_secs(10);
/// How much may wait for the spool before nothing new is taken in.
const OUT: usize = 256;
/// How often it is tried again to open a spool on a full disk.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often a changed state is published at most.
const STATE_EVERY: Duration = Duration::from_secs(1);

/// What the daemon is told from outside while it runs.
#[derive(Debug)]
pub struct Signals {
    /// Holds true once the daemon is to stop.
    pub stop: watch::Receiver<bool>,
    /// Configurations that count from now on, as far as they can.
    pub reload: mpsc::Receiver<Config>,
}

/// Serve until told to stop; then finish what is in hand, say goodbye and return.
pub async fn run(config: &Config, mut signals: Signals) -> Result<(), ServiceError> {
    let topics = Topics::new(config.root()).sharing(config.mqtt.shared_queue.parts());
    let done = CompletedJobs::default();
    let link = MqttClient::open(broker::settings(config)?, topics.clone())?;
    let spooled = spool::Settings {
        path: config.spool.path.clone(),
        max_bytes: config.spool.max_bytes.0,
        keep_s: config.spool.keep_s.0,
        ledger: done.clone(),
    };
    let mut notifier = SystemdNotifier::new();
    let Some((spool, unfinished)) = open_spool(spooled, &link, &mut notifier, &mut signals.stop).await?
    else {
        return Ok(());
    };
    let worker = Worker::start(config, unfinished.len());
    let mut service = Service {
        physician: Watchdog::of(worker.pulse.clone()),
        notifier,
        machine: config.board.platform(),
        worker,
        link,
        spool,
        board: StatusPublisher::new(config.node.as_str()),
        desk: JobRegistry::new(config, topics.clone(), done),
        topics,
        config: config.clone(),
        connected: false,
        out: VecDeque::new(),
        early: Vec::new(),
        waiting: PendingFetches::default(),
        unfinished,
    };
    let outcome = service.serve(&mut signals).await;
    service.end().await;
    outcome
}

/// Open the spool; on a disk that is full wait for room, unless told to stop, since what stands in
/// the spool is still to be done.
async fn open_spool(
    settings: spool::Settings,
    link: &MqttClient,
    notifier: &mut SystemdNotifier,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<(Spool, Vec<AcceptedJob>)>, ServiceError> {
    loop {
        match Spool::open(settings.clone(), link.asks.clone()) {
            Ok(opened) => return Ok(Some(opened)),
            Err(full @ SpoolError::Full { .. }) => {
                log::error!("{full}");
                notifier.status("waiting for room on the disk".to_owned());
                notifier.go_on(true);
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(ROOM_EVERY) => {}
            () = stopped(stop) => return Ok(None),
        }
    }
}

/// The task in the middle. It never waits for one of its neighbours alone, so that none of them
/// can hold up another: what goes out waits in `out`.
struct Service {
    link: MqttClient,
    spool: Spool,
    worker: Worker,
    desk: JobRegistry,
    board: StatusPublisher,
    /// The machine on which all this runs.
    machine: Platform,
    notifier: SystemdNotifier,
    physician: Watchdog,
    topics: Topics,
    config: Config,
    connected: bool,
    /// What the spool is still to be told. While it is long, nothing new is taken in.
    out: VecDeque<Order>,
    /// Requests that came before the models were loaded; the broker sends only so many.
    early: Vec<Incoming>,
    /// Requests that name pictures by topics.
    waiting: PendingFetches,
    /// Jobs of an earlier run, until the models are loaded.
    unfinished: Vec<AcceptedJob>,
}

impl Service {
    async fn serve(&mut self, signals: &mut Signals) -> Result<(), ServiceError> {
        let Signals { stop, reload } = signals;
        let mut draining = None;
        let mut changed = tokio::time::interval(STATE_EVERY);
        changed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let orders = self.spool.orders.clone();
        while draining.is_none() || self.owes_something() {
            let open = self.out.len() < OUT;
            tokio::select! {
                report = self.link.reports.recv(), if open => match report {
                    Some(report) => self.hear(report),
                    None => return Err(ServiceError::Ended("the link to the broker", String::new())),
                },
                tidings = self.worker.tidings.recv(), if open && self.spool.has_room() => match tidings {
                    Some(tidings) => self.learn(tidings)?,
                    None => return Err(ServiceError::Ended("the worker", self.worker.why_ended())),
                },
                Ok(permit) = orders.reserve(), if !self.out.is_empty() => {
                    if let Some(order) = self.out.pop_front() {
                        permit.send(order);
                        self.spool.told();
                    }
                }
                _ = changed.tick() => self.look_around(),
                Some(config) = reload.recv() => self.reload(config),
                () = stopped(stop), if draining.is_none() => {
                    let patience = Duration::from_secs(self.config.limits.drain_s.0);
                    log::info!("stopping: {} jobs in hand, at most {patience:?} more", self.desk.in_hand());
                    draining = Some(Instant::now() + patience);
                    self.desk.close();
                    self.board.phase(Phase::Draining);
                    self.notifier.stopping();
                    self.publish_state();
                }
                () = tokio::time::sleep_until(draining.unwrap_or_else(Instant::now)), if draining.is_some() => {
                    log::info!("{} jobs are left for the next start", self.desk.in_hand());
                    break;
                }
            }
        }
        Ok(())
    }

    /// Once in a while: tell the broker and the service manager how things stand.
    fn look_around(&mut self) {
        self.give_up_waiting();
        self.board.queue(self.desk.in_hand());
        self.board.elapse();
        self.board.heat(&self.machine);
        if self.board.is_stale() {
            self.publish_state();
        }
        self.notifier.status(self.board.line());
        self.notifier.go_on(self.physician.finds_alive());
    }

    /// Whether a stopping daemon still has something to do that can be done now.
    fn owes_something(&self) -> bool {
        let undelivered = !self.out.is_empty() || !self.spool.is_settled();
        !self.desk.is_idle() || (self.connected && undelivered)
    }

    /// What can change while running does; what can't is named.
    fn reload(&mut self, config: Config) {
        self.desk.set_limits(config.limits.clone());
        let (new, old) = (&config, &self.config);
        let fixed = [
            ("node", new.node != old.node),
            ("[mqtt]", new.mqtt != old.mqtt),
            ("[models]", new.models != old.models),
            ("[engine]", new.engine != old.engine),
            ("[spool]", new.spool != old.spool),
            ("[log]", new.log != old.log),
            ("[board]", new.board != old.board),
        ];
        let waiting: Vec<_> = fixed.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        if waiting.is_empty() {
            log::info!("the configuration was read again; [limits] counts from now on");
        } else {
            log::warn!(
                "the configuration was read again; [limits] counts from now on, but {} only after a restart",
                waiting.join(", ")
            );
        }
        self.config.limits = config.limits;
    }

    fn publish_state(&mut self) {
        let message = self.board.message(&self.topics);
        self.out.push_back(Order::Pass(message));
    }

    fn carry_out(&mut self, outcome: Effects) {
        self.out.extend(outcome.orders);
        if let Some(command) = outcome.command {
            self.worker.order(command);
        }
    }

    fn hear(&mut self, report: ClientEvent) {
        match report {
            ClientEvent::Connected => {
                self.connected = true;
                let online = self.board.online(&self.topics);
                self.out.push_back(Order::Pass(online));
                self.publish_state();
            }
            ClientEvent::Disconnected => {
                self.connected = false;
                self.waiting.disconnected();
            }
            ClientEvent::Retained { topic, found } => {
                let complete = self.waiting.found(&topic, &found);
                complete.into_iter().for_each(|(incoming, found)| self.receive(incoming, &found));
            }
            ClientEvent::Incoming(incoming) if !self.desk.takes_requests() => self.early.push(incoming),
            ClientEvent::Incoming(incoming) => self.receive(incoming, &Found::new()),
            ClientEvent::Delivered(number) => self.out.push_back(Order::Change(Change::Delivered(number))),
            ClientEvent::Undeliverable { message, number, why } => {
                let outcome = self.desk.undeliverable(&message, &why);
                self.carry_out(outcome);
                self.out.extend(number.map(|number| Order::Change(Change::Delivered(number))));
            }
        }
    }

    /// Take a message in; it is acknowledged once what follows from it is on disk.
    fn receive(&mut self, incoming: Incoming, found: &Found) {
        let mut outcome = self.desk.receive(&incoming, found, self.spool.has_room());
        let wants = std::mem::take(&mut outcome.fetch);
        if !wants.is_empty() {
            return self.wait_for(incoming, wants);
        }
        self.carry_out(outcome);
        self.out.push_back(Order::Acknowledge(incoming.receipt));
    }

    /// Fetch what a request names by its topic, and let it wait until that has come.
    fn wait_for(&mut self, incoming: Incoming, wants: Vec<String>) {
        for topic in &wants {
            if let Err(error) = self.link.asks.try_send(ClientCommand::Fetch(topic.clone())) {
                // The request is told so when its time is over.
                log::warn!("{topic} can't be fetched: {error}");
            }
        }
        if let Some((incoming, found)) = self.waiting.hold(incoming, wants, Instant::now()) {
            self.receive(incoming, &found);
        }
    }

    /// Go on with requests whose retained messages did not come.
    fn give_up_waiting(&mut self) {
        for (incoming, found) in self.waiting.expired(Instant::now()) {
            for topic in self.waiting.unwanted(found.keys()) {
                let _ = self.link.asks.try_send(ClientCommand::Forget(topic));
            }
            self.receive(incoming, &found);
        }
    }

    fn learn(&mut self, tidings: WorkerEvent) -> Result<(), ServiceError> {
        match tidings {
            WorkerEvent::Stage(stage) => {
                self.board.phase(stage.into());
                self.publish_state();
            }
            WorkerEvent::Ready(models) => {
                self.board.ready(&models);
                self.notifier.ready();
                self.desk.open(models);
                self.publish_state();
                for job in std::mem::take(&mut self.unfinished) {
                    let outcome = self.desk.resume(job);
                    self.carry_out(outcome);
                }
                for incoming in std::mem::take(&mut self.early) {
                    self.receive(incoming, &Found::new());
                }
            }
            WorkerEvent::Changed(card) => {
                self.board.changed(&card);
                self.desk.changed(*card);
                self.publish_state();
            }
            WorkerEvent::Unable(reason) => return Err(ServiceError::Model(reason)),
            WorkerEvent::Pace { model, ms_per_nfe } => self.board.pace(&model, ms_per_nfe),
            WorkerEvent::Job(news) => {
                let outcome = self.desk.tell(news);
                self.carry_out(outcome);
            }
        }
        Ok(())
    }

    /// Write down what is still to be said, say offline, and let go of worker, spool and link.
    async fn end(mut self) {
        self.worker.stop();
        let offline = self.board.offline(&self.topics);
        self.out.push_back(Order::Pass(offline));
        let orders = self.spool.orders.clone();
        let rest = async {
            for order in self.out {
                if orders.send(order).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(GOODBYE, rest).await.is_err() {
            log::error!("what was still to be said could not be written down in {GOODBYE:?}");
        }
        drop(orders);
        self.spool.close().await;
        self.link.close(GOODBYE).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say stop.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
