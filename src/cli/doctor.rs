//! `denoised doctor`: what is there, what is missing, and what to do about it.

mod engines;
mod environment;
mod finding;
mod jetson;

use std::io::Write;
use std::path::PathBuf;

use super::stdout::Stdout;
use super::{ConfigFile, Failure};
use crate::platform::Platform;
use finding::State;

/// What `doctor` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The directory under which the machine's files are read [default: as configured]
    #[arg(long)]
    root: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = super::configuration(arguments.file.config.as_deref())?;
    super::start_log(log::LevelFilter::Off);
    let board = arguments.root.as_ref().map_or_else(|| config.board.platform(), Platform::new);
    let mut findings = jetson::findings(&board);
    findings.extend(engines::findings(&config, &board));
    findings.extend(environment::findings(&config, &board));
    super::end_with_the_reader();
    if arguments.json {
        writeln!(Stdout, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        findings.iter().try_for_each(|finding| writeln!(Stdout, "{finding}"))?;
    }
    let faults = findings.iter().filter(|finding| finding.state == State::Missing).count();
    match faults {
        0 => Ok(()),
        n => Err(Failure::from(anyhow::anyhow!("{n} things are missing; what to do stands beside each"))),
    }
}
