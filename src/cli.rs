//! The command line: one module per command.

mod bench;
mod build_engines;
mod check_config;
mod class_argument;
mod completions;
mod demo;
mod doctor;
mod engine_argument;
mod error;
mod fit_preview;
mod flag_values;
mod init;
mod inspect;
mod logging;
mod man;
mod open_model;
mod output;
mod picture_file;
mod precision;
mod progress;
mod replay;
mod run;
mod run_job;
mod sample;
mod stdout;
mod usage;
mod visualize;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::Config;
use error::CommandError;
use logging::start_log;

/// The denoising daemon: runs diffusion models exported to ONNX and publishes their images over MQTT
#[derive(Debug, Parser)]
#[command(
    name = "denoised",
    version,
    after_help = "\
Start here:
  denoised demo                                       draw with the included models
  denoised inspect MODEL                              see what a model is and what it needs
  denoised sample MODEL --output image.png            draw one image
  denoised replay image.png --model MODEL             draw it again from the receipt in it
  denoised doctor                                     check this machine and the configuration

`denoised help COMMAND` describes the arguments of a command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(ConfigFile),
    /// A broker, the daemon and a subscriber in one process: images in demo/
    Demo(demo::DemoArguments),
    /// Run one job without MQTT
    Sample(Box<sample::SampleArguments>),
    /// Draw a picture again from the receipt in it, and compare
    Replay(Box<replay::ReplayArguments>),
    /// Draw a picture of the forward process, and of the reverse process for points
    Visualize(visualize::VisualizeArguments),
    /// Measure a model on this machine: load, evaluations, pictures per second, memory, energy
    Bench(bench::BenchArguments),
    /// Show what a model is, which files and keys are used, and what it needs
    Inspect(inspect::InspectArguments),
    /// Build the engines of all configured models, so that the daemon starts without building
    BuildEngines(ConfigFile),
    /// Write a draft of denoised.toml for an ONNX graph or its folder
    Init(init::InitArguments),
    /// Fit the preview of a latent-diffusion model and add it to denoised.toml
    FitPreview(fit_preview::FitPreviewArguments),
    /// Check the machine and everything that the configuration needs, and say what to fix
    Doctor(doctor::DoctorArguments),
    /// Check a configuration and list all errors
    CheckConfig(ConfigFile),
    /// Print the completions of a shell
    Completions(completions::CompletionsArguments),
    /// Print the man page, or write the pages of all commands into a directory
    Man(man::ManArguments),
}

/// Parses the command line and runs the command. Prints an error and returns the process's exit code.
pub fn run() -> u8 {
    match run_command(usage::parse::<Cli>().command) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("denoised: {error}");
            error.exit_code
        }
    }
}

fn run_command(command: Command) -> Result<(), CommandError> {
    if !command.uses_the_network() {
        exit_on_closed_stdout();
    }
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Visualize(arguments) => visualize::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::BuildEngines(arguments) => build_engines::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::FitPreview(arguments) => fit_preview::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}

impl Command {
    /// Returns whether the command writes to sockets: a peer that disconnects must not end it by SIGPIPE.
    fn uses_the_network(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Doctor(_) | Self::Demo(_))
    }
}

/// Restores the default action of SIGPIPE, so that `denoised inspect … | head` exits quietly.
fn exit_on_closed_stdout() {
    sigpipe::reset();
}

/// The flag `--config`.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: /etc/denoised/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Loads the configuration from a file, or from the default one.
fn configuration(file: Option<&Path>) -> Result<Config, CommandError> {
    crate::config::load(file, crate::config::process_environment()).map_err(CommandError::usage)
}

/// Says which environment variables are not part of the configuration, although they begin with its prefix.
fn ignored_variables(config: &Config) -> String {
    format!(
        "ignoring the environment variables {}: they are no keys of the configuration",
        config.ignored_variables.join(", ")
    )
}
