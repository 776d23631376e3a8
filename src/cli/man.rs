//! `denoised man`: man pages, generated from the command line's definition.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::stdout::Stdout;
use super::{Cli, CommandError};

#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// An existing directory for the pages of all commands [default: print denoised(1) only]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArguments) -> Result<(), CommandError> {
    let command = Cli::command();
    if let Some(directory) = &arguments.directory {
        clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write the man pages into {}", directory.display()))?;
        return Ok(());
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(Stdout.write_all(&text)?)
}
