//! `denoised generate`: what packages carry besides the program, made from the command line itself.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::stdout::Stdout;
use super::{Cli, Failure};

/// What is written to stdout.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum What {
    /// The man pages.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// What `generate` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to write
    what: What,
    /// Write the man pages of all commands into this directory, in place of the first to stdout
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    let shell = match arguments.what {
        What::Man => {
            if let Some(directory) = &arguments.into {
                let written = clap_mangen::generate_to(command, directory);
                return Ok(written.with_context(|| format!("--into {}", directory.display()))?);
            }
            let man = clap_mangen::Man::new(command);
            man.render(&mut text)?;
            return Ok(Stdout.write_all(&text)?);
        }
        What::Bash => clap_complete::Shell::Bash,
        What::Zsh => clap_complete::Shell::Zsh,
        What::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "denoised", &mut text);
    Ok(Stdout.write_all(&text)?)
}
