//! MQTT 5: topics, messages, and the client that delivers them.
//!
//! This module knows neither jobs nor tensors. `delivery::Delivery` is a state machine without
//! I/O that owns every message until the broker acknowledges it; [`client`] owns the connection.

mod backoff;
pub mod client;
mod closure;
mod connection;
mod delivery;
mod diagnosis;
mod endpoint;
mod events;
mod limits;
mod message;
mod newest;
pub mod probe;
mod reasons;
mod subscriptions;
mod tls;
mod tls_faults;
mod topics;
mod transfer;
mod wire;

pub use closure::{Cause, Closure};
pub use limits::{BrokerLimits, Requirements};
pub use message::{Message, QoS};
pub use newest::{NewestMessage, NewestMessages};
pub use reasons::Reason;
pub use tls::TlsError;
pub(crate) use tls::{check_ca_file, check_client_certificate};
pub use topics::{CLAIM_TOPIC, MessageKind, Topics};
