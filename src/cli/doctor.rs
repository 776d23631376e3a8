//! `denoised doctor`: checks the machine and the configured files and services, and reports how to fix problems.

mod broker;
mod engines;
mod environment;
mod finding;
mod jetson;

use std::io::Write;
use std::path::PathBuf;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::platform::Platform;
use finding::FindingState;

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// The root directory of the files that describe the machine [default: as configured]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub(super) fn run(arguments: &DoctorArguments) -> Result<(), CommandError> {
    let config = super::configuration(arguments.file.config.as_deref())?;
    super::start_log(log::LevelFilter::Off);
    let platform = arguments.root.as_ref().map_or_else(|| config.board.platform(), Platform::new);
    let mut findings = jetson::findings(&platform);
    findings.extend(engines::findings(&config, &platform));
    findings.extend(environment::findings(&config, &platform));
    super::exit_on_closed_stdout();
    if arguments.json {
        writeln!(Stdout, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        findings.iter().try_for_each(|finding| writeln!(Stdout, "{finding}"))?;
    }
    let missing = findings.iter().filter(|finding| finding.state == FindingState::Missing).count();
    match missing {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("1 thing is missing; the line after -> says what to do").into()),
        n => Err(anyhow::anyhow!("{n} things are missing; the lines after -> say what to do").into()),
    }
}
