//! The HTTP server: a page for browsers, OpenAI's image API, metrics for Prometheus, and a health check.
//!
//! This module knows HTTP and the JSON of OpenAI, and nothing of the network or the broker. A job goes to the service as
//! the JSON of a request over MQTT, through [`crate::service::local`]. Each endpoint has a file in `endpoints`.

mod access;
mod body;
mod endpoints;
mod error;
mod events;
mod images;
mod images_body;
mod openai;
mod router;
mod server;
mod token;

pub(crate) use error::HttpError;
pub(crate) use server::Server;
pub(crate) use token::token_fault;
