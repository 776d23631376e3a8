//! `denoised check-config`: exit 0, or every fault with file, line and key.

use std::io::Write;

use super::stdout::Stdout;
use super::{ConfigFile, Failure};

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = super::configuration(file.config.as_deref())?;
    let (node, broker) = (config.node.as_str(), config.mqtt.url);
    Ok(writeln!(Stdout, "the configuration is good: node {node}, broker {broker}")?)
}
