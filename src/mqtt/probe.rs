//! Checks a broker as the daemon would use it, with a session of its own that ends with the check.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Publish};

use super::client::ClientSettings;
use super::closure::Closure;
use super::connection::{Connection, ConnectionEvent, ConnectionOptions};
use super::endpoint::Endpoint;
use super::limits::{BrokerLimits, Requirements};
use super::message::{Message, QoS};
use super::reasons::{ClientFacts, Reason};
use super::tls::TlsError;
use super::topics::Topics;

/// The longest time for one step of the check.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the state of another daemon, which publishes it when it connects.
const STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// The broker's limits.
    pub limits: BrokerLimits,
    /// What the broker does not serve.
    pub deficits: Vec<Reason>,
    /// The daemon's topics that the broker refuses, each with the reason.
    pub refused: Vec<(String, Reason)>,
}

/// Why a check did not begin.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// No connection can be made.
    #[error("{}", .0.reason)]
    Closed(Closure),
}

/// Connects with these settings, subscribes to the daemon's topics and publishes `message`.
///
/// The client id must not be the daemon's, whose connection would be closed. Requests that arrive meanwhile are not
/// acknowledged, and a shared queue is subscribed in a group of its own, so that the check takes no request away.
///
/// # Errors
///
/// If the settings name a file that cannot be used, or if no connection can be made.
pub async fn check(
    settings: &ClientSettings,
    topics: &Topics,
    message: Message,
) -> Result<Report, CheckError> {
    let endpoint = Endpoint::new(settings).map_err(CheckError::Tls)?;
    let options = ConnectionOptions { is_temporary: true, ..ConnectionOptions::new(settings, endpoint) };
    let mut connection = Connection::open(options);
    let limits = loop {
        match connection.next_event().await {
            ConnectionEvent::Connected { limits, .. } => break *limits,
            ConnectionEvent::Closed(closure) => return Err(CheckError::Closed(closure)),
            _ => {}
        }
    };
    let requirements = Requirements {
        qos: settings.qos,
        shared_queue: topics.shared_filter().map(str::to_owned),
        session_expiry_s: 0,
    };
    let deficits = limits.deficits(&requirements);
    let refused = refused_topics(&mut connection, topics, &limits, message).await;
    connection.disconnect().await;
    connection.close().await;
    Ok(Report { limits, deficits, refused })
}

/// Ends the session that the broker keeps for the settings' client id.
///
/// # Errors
///
/// Why no connection can be made, in plain words.
pub async fn end_session(settings: &ClientSettings) -> Result<(), String> {
    let endpoint = Endpoint::new(settings).map_err(|error| error.to_string())?;
    let options = ConnectionOptions {
        is_temporary: true,
        diagnoses: false,
        ..ConnectionOptions::new(settings, endpoint)
    };
    let mut connection = Connection::open(options);
    let ended = loop {
        match connection.next_event().await {
            ConnectionEvent::Connected { .. } => break Ok(()),
            ConnectionEvent::Closed(closure) => break Err(closure.reason.to_string()),
            _ => {}
        }
    };
    connection.disconnect().await;
    connection.close().await;
    ended
}

/// Subscribes to each of the daemon's topics, and publishes. Returns what the broker refuses, with the reasons.
async fn refused_topics(
    connection: &mut Connection,
    topics: &Topics,
    limits: &BrokerLimits,
    message: Message,
) -> Vec<(String, Reason)> {
    let mut refused = Vec::new();
    let group = format!("denoised-doctor-{:08x}", fastrand::u32(..));
    let own = topics.inputs().map(|topic| (topic.clone(), topic));
    let shared = topics.shared_topic().filter(|_| limits.shared_subscriptions);
    let shared = shared.map(|topic| (format!("$share/{group}/{topic}"), topic.to_owned()));
    for (filter, topic) in own.chain(shared) {
        connection.subscribe(vec![Filter::new(filter, WireQoS::AtLeastOnce)]);
        match answer(connection).await {
            Ok(None) => {}
            Ok(Some(reason)) => refused.push((topic, reason)),
            Err(reason) => {
                refused.push((topic, reason));
                return refused;
            }
        }
    }
    let topic = message.topic.clone();
    let qos = QoS::AtLeastOnce.min(limits.max_qos);
    let packet_id = (qos != QoS::AtMostOnce).then_some(1);
    connection.publish(Message { qos, ..message }, packet_id, false);
    if let Ok(Some(reason)) | Err(reason) = answer(connection).await {
        refused.push((topic, reason));
    }
    refused
}

/// Waits for the answer to the last packet: `None`, or why it was refused. An error means that the connection ended.
async fn answer(connection: &mut Connection) -> Result<Option<Reason>, Reason> {
    let wait = async {
        loop {
            match connection.next_event().await {
                ConnectionEvent::SubAck { results, .. } => {
                    return Ok(results.into_iter().find_map(Result::err));
                }
                ConnectionEvent::Written | ConnectionEvent::Acknowledged { .. } => return Ok(None),
                ConnectionEvent::Rejected { rejection, .. } => {
                    return Ok(Some(rejection.of_own_topic()));
                }
                ConnectionEvent::Closed(closure) => return Err(closure.reason),
                _ => {}
            }
        }
    };
    tokio::time::timeout(STEP_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| Err(Reason::without_advice("the broker did not answer in time")))
}

/// The user property of a daemon's state that identifies the process.
pub(super) const INSTANCE: &str = "instance";

/// The instance that published a state.
pub(super) fn instance(state: &Publish) -> Option<&str> {
    let mut properties = state.properties.iter().flat_map(|properties| &properties.user_properties);
    properties.find(|(name, _)| name == INSTANCE).map(|(_, value)| value.as_str())
}

/// Returns whether another instance has published a state on the daemon's topic, or does so within two seconds.
pub(super) async fn has_foreign_state(options: ConnectionOptions, topics: &Topics, own: &str) -> bool {
    let client_id = format!("denoisedprobe{:08x}", fastrand::u32(..));
    let facts = ClientFacts { client_id, ..options.facts };
    let options = ConnectionOptions { facts, is_temporary: true, will: None, diagnoses: false, ..options };
    let mut connection = Connection::open(options);
    let state = async {
        loop {
            match connection.next_event().await {
                ConnectionEvent::Connected { .. } => {
                    connection.subscribe(vec![Filter::new(topics.state(), WireQoS::AtMostOnce)]);
                }
                ConnectionEvent::Received(publish)
                    if instance(&publish).is_some_and(|other| other != own) =>
                {
                    return true;
                }
                ConnectionEvent::Closed(_) => return false,
                _ => {}
            }
        }
    };
    let has_foreign_state = tokio::time::timeout(STATE_TIMEOUT, state).await.unwrap_or(false);
    connection.disconnect().await;
    connection.close().await;
    has_foreign_state
}
