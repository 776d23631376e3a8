//! `denoised check-config`: validates a configuration.

use std::io::Write;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::service::broker::{SERVICE_PASSWORD, lacks_password};

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    if let Some(fault) = config.mqtt.incomplete_pair() {
        return Err(CommandError::usage(anyhow::anyhow!(fault)));
    }
    let (node, broker) = (config.node.as_str(), &config.mqtt.url);
    writeln!(Stdout, "the configuration is valid: node {node}, broker {broker}")?;
    if lacks_password(&config) {
        writeln!(
            Stdout,
            "note: mqtt.username is set and there is no password; set mqtt.password_file, or write the password to \
             {SERVICE_PASSWORD} for denoised.service"
        )?;
    }
    Ok(())
}
