//! MQTT 5: topics, messages, and the client that delivers them.
//!
//! This module knows neither jobs nor tensors. `delivery::Delivery` is a state machine without
//! I/O that owns every message until the broker acknowledges it; [`client`] owns the connection.

pub mod client;
mod connection;
mod delivery;
mod events;
mod message;
mod subscriptions;
mod tls;
mod topics;

pub use message::{Message, QoS};
pub use tls::TlsError;
pub use topics::{MessageKind, Topics};
