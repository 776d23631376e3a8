//! Parses the command line, and names our flag for that of another program.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};

use crate::json_input::field_meant_by;

/// Parses the command line of this process. A fault, `--help` and `--version` end the process.
pub(super) fn parse<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| {
        let command = std::env::args().nth(1).unwrap_or_default();
        with_meant_flag(error, P::command().find_subcommand(&command)).exit()
    })
}

/// Replaces the flag that clap suggests for an unknown one, which is the one that is spelt most similarly.
fn with_meant_flag(mut error: clap::Error, command: Option<&Command>) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    let name = argument.strip_prefix("--").unwrap_or_default();
    let meant = field_meant_by(name).map(|field| field.replace('_', "-"));
    let has_flag = |flag: &str| {
        command.is_some_and(|command| command.get_arguments().any(|arg| arg.get_long() == Some(flag)))
    };
    if let (ErrorKind::UnknownArgument, Some(flag)) = (error.kind(), meant.filter(|flag| has_flag(flag))) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{flag}")));
    }
    error
}
