//! `denoised check-config`: validates a configuration.

use std::io::Write;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    let (node, broker) = (config.node.as_str(), config.mqtt.url);
    Ok(writeln!(Stdout, "the configuration is valid: node {node}, broker {broker}")?)
}
