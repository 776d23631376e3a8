//! The flags `--config` and `--engine` of the commands that load a model.

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{CommandError, ConfigFile};
use crate::config::Config;
use crate::inference::{EngineKind, EngineOptions};

/// Which configuration and which engine a model is loaded with.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Engine")]
pub(super) struct EngineArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The inference engine [default: as configured]
    #[arg(long, value_name = "KIND", value_parser = engine_kind())]
    engine: Option<EngineKind>,
}

impl EngineArguments {
    /// Returns the configured engine options for a bundle, and starts logging warnings.
    pub(super) fn options(&self, bundle: &Path) -> Result<EngineOptions, CommandError> {
        Ok(self.options_and_config(bundle)?.0)
    }

    /// Returns the configured engine options for a bundle and the configuration, and starts logging warnings.
    pub(super) fn options_and_config(&self, bundle: &Path) -> Result<(EngineOptions, Config), CommandError> {
        let config = self.config()?;
        let options = config.engine_options(bundle);
        Ok((EngineOptions { kind: self.engine.unwrap_or(options.kind), ..options }, config))
    }

    /// Returns the configuration, and starts logging warnings.
    pub(super) fn config(&self) -> Result<Config, CommandError> {
        let config = super::configuration(self.file.config.as_deref())?;
        super::start_log(log::LevelFilter::Warn);
        Ok(config)
    }

    /// Returns the engine of `--engine`.
    pub(super) fn kind(&self) -> Option<EngineKind> {
        self.engine
    }
}

/// Parses an engine's name.
fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(["auto", "onnxruntime", "embedded"]).map(|name| match name.as_str() {
        "onnxruntime" => EngineKind::OnnxRuntime,
        "embedded" => EngineKind::Embedded,
        _ => EngineKind::Auto,
    })
}
