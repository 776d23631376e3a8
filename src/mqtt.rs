//! MQTT 5: topics, the messages that wait for the broker, and the link to it.
//!
//! Nothing here knows jobs or tensors. [`delivery::Delivery`] is a state machine without I/O
//! that owns every message until the broker has acknowledged it; [`link`] owns the connection.

pub mod delivery;
pub mod link;
mod message;
mod tls;
mod topics;

pub use message::{Message, Quality};
pub use tls::TlsError;
pub use topics::{Input, Topics, is_topic};
