//! `denoised doctor`: checks the machine and the configured files and services, and reports how to fix problems.

mod broker;
mod engines;
mod environment;
mod files;
mod finding;
mod jetson;
mod judged_user;
mod spool_file;

use std::io::Write;
use std::path::{Path, PathBuf};

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::config::Config;
use finding::{Finding, FindingState};
use judged_user::JudgedUser;

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
    let mut config = super::configuration(arguments.file.config.as_deref())?;
    super::start_log(log::LevelFilter::Off);
    if let Some(root) = &arguments.root {
        if !root.is_dir() {
            let error = anyhow::anyhow!("--root {}: there is no such directory", root.display());
            return Err(CommandError::usage(error));
        }
        config.board.root = root.clone();
    }
    let findings = all_findings(&config, arguments.file.config.as_deref());
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

fn all_findings(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let platform = config.board.platform();
    let user = JudgedUser::find(file, config, &platform);
    let mut findings = jetson::findings(config, &platform);
    findings.extend(engines::findings(config, &platform));
    findings.extend(environment::findings(config));
    findings.push(user.finding());
    findings.extend(files::findings(config, &user));
    findings.extend(environment::groups(&platform, &user));
    findings
}
