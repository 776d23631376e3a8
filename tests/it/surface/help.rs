//! The help of the program and of each command.

use super::snapshot::{check, stdout};
use crate::common::commands::denoised;

/// Every command, in the order of the program's help.
const COMMANDS: [&str; 14] = [
    "run",
    "demo",
    "sample",
    "replay",
    "visualize",
    "bench",
    "inspect",
    "build-engines",
    "init",
    "fit-preview",
    "doctor",
    "check-config",
    "completions",
    "man",
];

fn help(command: Option<&str>) -> String {
    stdout(denoised().env("NO_COLOR", "1").env("COLUMNS", "100").args(command).arg("--help"))
}

#[test]
#[cfg(feature = "demo")]
fn the_program_lists_its_commands() {
    let text = help(None);
    check("help", &text);
    let (_, commands) = text.split_once("Commands:\n").unwrap();
    let listed = commands.lines().map_while(|line| line.split_whitespace().next());
    let listed: Vec<_> = listed.filter(|name| *name != "help").collect();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn each_command_describes_its_arguments() {
    for command in COMMANDS.iter().filter(|command| cfg!(feature = "demo") || **command != "demo") {
        check(&format!("help-{command}"), &help(Some(command)));
    }
}
