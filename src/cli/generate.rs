//! `denoised generate`: what packages carry besides the program, made from the command line itself.

use std::io::Write;

use clap::CommandFactory;

use super::{Cli, Failure};

/// What is written to stdout.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum What {
    /// The man page.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

pub(super) fn run(what: What) -> Result<(), Failure> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    let shell = match what {
        What::Man => {
            let man = clap_mangen::Man::new(command);
            man.render(&mut text)?;
            return Ok(std::io::stdout().write_all(&text)?);
        }
        What::Bash => clap_complete::Shell::Bash,
        What::Zsh => clap_complete::Shell::Zsh,
        What::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "denoised", &mut text);
    Ok(std::io::stdout().write_all(&text)?)
}
