//! `denoised man`: man pages, generated from the command line's definition.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::stdout::Stdout;
use super::{Cli, Failure};

/// The arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// An existing directory for the pages of all commands [default: print denoised(1) only]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let command = Cli::command();
    if let Some(directory) = &arguments.directory {
        let written = clap_mangen::generate_to(command, directory);
        return Ok(
            written.with_context(|| format!("cannot write the man pages into {}", directory.display()))?
        );
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(Stdout.write_all(&text)?)
}
