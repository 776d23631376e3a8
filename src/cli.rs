//! The command line: one file a command.

mod build_engines;
mod check_config;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod diffuse;
mod doctor;
mod fit_preview;
mod init;
mod inspect;
mod progress;
mod run;
mod sample;
mod stdout;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use serde::Deserialize;
use serde::de::value::StringDeserializer;

use crate::config::{Config, ConfigErrors};
use crate::inference::{EngineKind, EngineOptions};

/// The denoising daemon: diffusion models from ONNX, images over MQTT.
#[derive(Debug, Parser)]
#[command(name = "denoised", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(ConfigFile),
    /// A broker, the daemon and a subscriber in one process: images in demo/
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Draw one job without MQTT
    Sample(Box<sample::Arguments>),
    /// Draw the forward process: a sample noised at chosen time steps
    Diffuse(diffuse::Arguments),
    /// Tell what a model is, and what each key of its scheduler does
    Inspect(inspect::Arguments),
    /// Build every engine that the configuration's models need, ahead of the daemon's start
    Warm(ConfigFile),
    /// Write a first denoised.toml for a graph, by looking at it
    Adopt(init::Arguments),
    /// Fit how a bundle's latents are shown before they are finished
    FitPreview(fit_preview::Arguments),
    /// Look at the machine: what is there, what is missing, what to do
    Doctor(doctor::Arguments),
    /// Write the man pages or a shell's completions
    #[command(hide = true)]
    Generate(completions::Arguments),
    /// Check a configuration and tell every fault
    CheckConfig(ConfigFile),
}

/// Why a command failed, with the process's exit code.
#[derive(Debug)]
pub struct Failure {
    /// 1 for a failure, 2 for wrong usage or configuration.
    pub code: u8,
    /// What happened.
    pub cause: anyhow::Error,
}

impl Failure {
    fn usage(cause: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, cause: cause.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self { code: 1, cause: cause.into() }
    }
}

/// Parse the command line and run the command.
pub fn run() -> Result<(), Failure> {
    let command = Cli::parse().command;
    if !command.speaks_over_a_network() {
        end_with_the_reader();
    }
    match command {
        Command::Run(arguments) => run::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Diffuse(arguments) => diffuse::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Warm(arguments) => build_engines::run(&arguments),
        Command::Adopt(arguments) => init::run(&arguments),
        Command::FitPreview(arguments) => fit_preview::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Generate(arguments) => completions::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
    }
}

impl Command {
    /// Whether it has other peers than its reader, of whom none may end it by going away.
    fn speaks_over_a_network(&self) -> bool {
        match self {
            Self::Run(_) | Self::Doctor(_) => true,
            #[cfg(feature = "demo")]
            Self::Demo(_) => true,
            _ => false,
        }
    }
}

/// From here on end quietly when the output's reader goes away (`denoised inspect … | head`), as any tool does.
fn end_with_the_reader() {
    sigpipe::reset();
}

/// Where the configuration stands.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration's file [default: /etc/denoised/config.toml, if there]
    #[arg(long)]
    config: Option<std::path::PathBuf>,
}

/// The configuration of a file, or of the default places.
fn configuration(file: Option<&std::path::Path>) -> Result<Config, Failure> {
    crate::config::load(file, std::env::vars()).map_err(|errors: ConfigErrors| Failure::usage(errors))
}

/// What runs a bundle where there is no daemon, by the configuration and an engine named on the
/// command line; from here on warnings are shown.
fn engine(bundle: &std::path::Path, named: Option<EngineKind>) -> Result<EngineOptions, Failure> {
    let options = configuration(None)?.engine_of(bundle);
    start_log(log::LevelFilter::Warn);
    Ok(EngineOptions { kind: named.unwrap_or(options.kind), ..options })
}

/// Parses the value of `--engine`, which has the names that the configuration uses.
fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    let values = [
        ("auto", "ONNX Runtime if its library is found, else the embedded engine"),
        ("onnxruntime", "ONNX Runtime, or an error"),
        ("embedded", "The embedded engine, which needs no library"),
    ];
    PossibleValuesParser::new(values.map(|(name, help)| PossibleValue::new(name).help(help)))
        .try_map(|name| EngineKind::deserialize(StringDeserializer::<serde::de::value::Error>::new(name)))
}

/// Log to stderr: with colours on a terminal, with systemd's priorities under journald.
fn start_log(level: log::LevelFilter) {
    use std::io::Write;
    let mut builder = env_logger::Builder::new();
    builder
        // What the client library logs of its own, the link tells in better words.
        .filter_level(level)
        .filter_module("rumqttc", log::LevelFilter::Off)
        .filter_module("rumqttd", log::LevelFilter::Off)
        .filter_module("ort", log::LevelFilter::Warn)
        .parse_default_env();
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    } else {
        builder.format_target(false);
    }
    builder.init();
}
