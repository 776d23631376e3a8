//! `denoised check-config`: exit 0, or every fault with file, line and key.

use std::path::PathBuf;

use super::Failure;

/// What `check-config` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to check [default: /etc/denoised/config.toml, if there]
    #[arg(long)]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = super::configuration(arguments.config.as_deref())?;
    println!("the configuration is good: node {}, broker {}", config.node.as_str(), config.mqtt.url);
    Ok(())
}
