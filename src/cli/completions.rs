//! `denoised completions`: tab completion for a shell, generated from the command line's definition.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use super::stdout::Stdout;
use super::{Cli, CommandError};

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<(), CommandError> {
    // Into memory first: clap_complete panics if its output can't be written.
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "denoised", &mut text);
    Ok(Stdout.write_all(&text)?)
}
