//! The daemon: requests come in over MQTT, a worker draws, answers go out.
//!
//! Three parts run side by side and talk over bounded channels: the link to the broker, this
//! task, and the worker with its engine on threads of its own, so that no evaluation ever blocks
//! the connection.

mod answers;
mod desk;
mod state;
mod worker;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{BrokerUrl, Config};
use crate::mqtt::link::{Ask, Incoming, Link, Report, Settings};
use crate::mqtt::{Message, TlsError, Topics};
use desk::Desk;
use state::{Phase, StateBoard};
use worker::{Tidings, Worker};

/// How long a stopping daemon works on and delivers.
const DRAIN: Duration = Duration::from_secs(10);
/// How much may wait for the link before nothing new is taken in.
const OUT: usize = 256;
/// How often a changed state is published at most.
const STATE_EVERY: Duration = Duration::from_secs(1);

/// Why the daemon can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The password's file.
    #[error("mqtt.password_file {path}: {error}")]
    Password {
        /// The file.
        path: String,
        /// Why it can't be read.
        #[source]
        error: std::io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A model can't be loaded.
    #[error("{0}")]
    Model(String),
    /// A part ended by itself, which is a fault of this program.
    #[error("{0} ended unexpectedly: {1}")]
    Ended(&'static str, String),
}

/// Serve until `stop` holds true; then finish what is in hand, say goodbye and return.
pub async fn run(config: &Config, mut stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
    let topics = Topics::new(config.root());
    let mut service = Service {
        link: Link::open(settings(config)?, topics.clone())?,
        worker: Worker::start(config),
        board: StateBoard::new(config.node.as_str()),
        desk: Desk::new(config, topics.clone()),
        topics,
        out: VecDeque::new(),
        early: Vec::new(),
    };
    let outcome = service.serve(&mut stop).await;
    service.end().await;
    outcome
}

/// The task in the middle. It never waits for one of its neighbours alone, so that none of them
/// can hold up another: what goes out waits in `out`.
struct Service {
    link: Link,
    worker: Worker,
    desk: Desk,
    board: StateBoard,
    topics: Topics,
    /// What the link is still to be asked. While it is long, nothing new is taken in.
    out: VecDeque<Ask>,
    /// Requests that came before the models were loaded; the broker sends only so many.
    early: Vec<Incoming>,
}

impl Service {
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), ServiceError> {
        let mut draining = None;
        let mut changed = tokio::time::interval(STATE_EVERY);
        changed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let asks = self.link.asks.clone();
        while draining.is_none() || !self.desk.is_idle() {
            let open = self.out.len() < OUT;
            tokio::select! {
                report = self.link.reports.recv(), if open => match report {
                    Some(report) => self.hear(report),
                    None => return Err(ServiceError::Ended("the link to the broker", String::new())),
                },
                tidings = self.worker.tidings.recv(), if open => match tidings {
                    Some(tidings) => self.learn(tidings)?,
                    None => return Err(ServiceError::Ended("the worker", self.worker.why_ended())),
                },
                Ok(permit) = asks.reserve(), if !self.out.is_empty() => {
                    if let Some(ask) = self.out.pop_front() {
                        permit.send(ask);
                    }
                }
                _ = changed.tick() => {
                    self.board.queue(self.desk.in_hand());
                    if self.board.is_stale() {
                        self.publish_state();
                    }
                }
                () = stopped(stop), if draining.is_none() => {
                    log::info!("stopping: {} jobs in hand, at most {DRAIN:?} more", self.desk.in_hand());
                    draining = Some(Instant::now() + DRAIN);
                    self.desk.close();
                    self.board.phase(Phase::Draining);
                    self.publish_state();
                }
                () = tokio::time::sleep_until(draining.unwrap_or_else(Instant::now)), if draining.is_some() => {
                    let unfinished = self.desk.give_up();
                    self.publish(unfinished);
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, messages: Vec<Message>) {
        self.out.extend(messages.into_iter().map(Ask::Send));
    }

    fn publish_state(&mut self) {
        let message = self.board.message(&self.topics);
        self.out.push_back(Ask::Send(message));
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Connected => {
                let online = self.board.online(&self.topics);
                self.publish(vec![online]);
                self.publish_state();
            }
            Report::Incoming(incoming) if !self.desk.takes_requests() => self.early.push(incoming),
            Report::Incoming(incoming) => self.receive(incoming),
            Report::TooLarge { message, limit } => {
                let answers = self.desk.too_large(&message, limit);
                self.publish(answers);
            }
        }
    }

    /// Take a message in; it is acknowledged once what follows from it is decided.
    fn receive(&mut self, incoming: Incoming) {
        let (answers, command) = self.desk.receive(&incoming);
        if let Some(command) = command {
            self.worker.order(command);
        }
        self.publish(answers);
        self.out.push_back(Ask::Acknowledge(incoming.receipt));
    }

    fn learn(&mut self, tidings: Tidings) -> Result<(), ServiceError> {
        match tidings {
            Tidings::Ready(models) => {
                self.board.ready(&models);
                self.desk.open(models);
                self.publish_state();
                for incoming in std::mem::take(&mut self.early) {
                    self.receive(incoming);
                }
            }
            Tidings::Unable(reason) => return Err(ServiceError::Model(reason)),
            Tidings::Pace { model, ms_per_nfe } => self.board.pace(&model, ms_per_nfe),
            Tidings::Job(news) => {
                let answers = self.desk.tell(news);
                self.publish(answers);
            }
        }
        Ok(())
    }

    /// Deliver what is still to be said, say offline, and let go of worker and link.
    async fn end(mut self) {
        self.worker.stop();
        let offline = self.board.offline(&self.topics);
        self.publish(vec![offline]);
        let asks = self.link.asks.clone();
        let rest = async {
            for ask in self.out {
                if asks.send(ask).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            log::error!("what was still to be said could not be delivered in {DRAIN:?}");
        }
        self.link.close(DRAIN).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say stop.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn settings(config: &Config) -> Result<Settings, ServiceError> {
    let mqtt = &config.mqtt;
    let BrokerUrl { host, port, tls } = mqtt.url.clone();
    let password = mqtt.password_file.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .map_err(|error| ServiceError::Password { path: path.display().to_string(), error })
    });
    let password = password.transpose()?.unwrap_or_default();
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Settings {
        host,
        port,
        tls: tls.then(|| mqtt.ca_file.clone()),
        client_id: format!("denoised-{}", config.node.as_str()),
        credentials: (!mqtt.username.is_empty()).then(|| (mqtt.username.clone(), password)),
        max_packet: u32::try_from(mqtt.max_packet.0).unwrap_or(u32::MAX),
        max_waiting: usize::try_from(config.spool.max_bytes.0).unwrap_or(usize::MAX),
    })
}
