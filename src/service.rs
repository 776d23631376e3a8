//! The daemon: requests come in over MQTT, a worker draws, answers go out.
//!
//! Three parts run side by side and talk over bounded channels: the link to the broker, this
//! task, and the worker with its engine on threads of its own, so that no evaluation ever blocks
//! the connection.

mod answers;
mod desk;
mod state;
mod worker;

use std::time::Duration;

use tokio::sync::watch;

use crate::config::{BrokerUrl, Config};
use crate::mqtt::link::{Ask, Incoming, Link, Report, Settings};
use crate::mqtt::{Message, TlsError, Topics};
use desk::Desk;
use state::{Phase, StateBoard};
use worker::{Tidings, Worker};

/// How long a stopping daemon works on and delivers.
const DRAIN: Duration = Duration::from_secs(10);
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
    /// The worker ended by itself, which is a fault of this program.
    #[error("the worker ended unexpectedly: {0}")]
    Worker(String),
}

/// Serve until `stop` holds true; then finish what is in hand, say goodbye and return.
pub async fn run(config: &Config, mut stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
    let topics = Topics::new(config.root());
    let mut link = Link::open(settings(config)?, topics.clone())?;
    let mut worker = Worker::start(config);
    let mut board = StateBoard::new(config.node.as_str());
    let mut desk = Desk::new(config, topics.clone());
    // Requests that came before the models were loaded; the broker sends only so many.
    let mut early = Vec::new();
    let mut draining = None;
    let mut changed = tokio::time::interval(STATE_EVERY);
    changed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let outcome = loop {
        if draining.is_some() && desk.is_idle() {
            break Ok(());
        }
        let out = tokio::select! {
            report = link.reports.recv() => match report {
                Some(Report::Connected) => vec![board.online(&topics), board.message(&topics)],
                Some(Report::Incoming(incoming)) if !desk.takes_requests() => {
                    early.push(incoming);
                    Vec::new()
                }
                Some(Report::Incoming(incoming)) => receive(incoming, &mut desk, &mut worker, &link).await,
                Some(Report::TooLarge { message, limit }) => desk.too_large(&message, limit),
                None => break Err(ServiceError::Worker("the link to the broker ended".to_owned())),
            },
            tidings = worker.tidings.recv() => match tidings {
                Some(Tidings::Ready(models)) => {
                    board.ready(&models);
                    desk.open(models);
                    let mut out = vec![board.message(&topics)];
                    for incoming in early.drain(..) {
                        out.extend(receive(incoming, &mut desk, &mut worker, &link).await);
                    }
                    out
                }
                Some(Tidings::Unable(reason)) => break Err(ServiceError::Model(reason)),
                Some(Tidings::Pace { model, ms_per_nfe }) => {
                    board.pace(&model, ms_per_nfe);
                    Vec::new()
                }
                Some(Tidings::Job(news)) => desk.tell(news),
                None => break Err(ServiceError::Worker(worker.why_ended())),
            },
            _ = changed.tick() => {
                board.queue(desk.in_hand());
                if board.is_stale() { vec![board.message(&topics)] } else { Vec::new() }
            }
            () = stopped(&mut stop), if draining.is_none() => {
                log::info!("stopping: {} jobs in hand, at most {DRAIN:?} more", desk.in_hand());
                draining = Some(tokio::time::Instant::now() + DRAIN);
                desk.close();
                board.phase(Phase::Draining);
                vec![board.message(&topics)]
            }
            () = tokio::time::sleep_until(draining.unwrap_or_else(tokio::time::Instant::now)), if draining.is_some() => {
                let left = desk.give_up();
                send(&link, left).await;
                break Ok(());
            }
        };
        send(&link, out).await;
    };
    worker.stop();
    send(&link, vec![board.offline(&topics)]).await;
    link.close(DRAIN).await;
    outcome
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say stop.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn send(link: &Link, messages: Vec<Message>) {
    for message in messages {
        // The link ends only after this task has; its end is seen at its reports.
        let _ = link.asks.send(Ask::Send(message)).await;
    }
}

/// Take a message in; it is acknowledged once what follows from it is decided.
async fn receive(incoming: Incoming, desk: &mut Desk, worker: &mut Worker, link: &Link) -> Vec<Message> {
    let (answers, command) = desk.receive(&incoming);
    if let Some(command) = command {
        worker.order(command).await;
    }
    let _ = link.asks.send(Ask::Acknowledge(incoming.receipt)).await;
    answers
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
