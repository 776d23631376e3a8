//! MQTT 5: topics, the messages that wait for the broker, and the client.
//!
//! Nothing here knows jobs or tensors. [`delivery::Delivery`] is a state machine without I/O
//! that owns every message until the broker has acknowledged it; [`client`] owns the connection.

pub mod client;
mod connection;
pub mod delivery;
mod events;
mod message;
mod subscriptions;
mod tls;
mod topics;

pub use message::{Message, QoS};
pub use tls::TlsError;
pub use topics::{Input, Topics};
