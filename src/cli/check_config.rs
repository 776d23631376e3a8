//! `denoised check-config`: validates a configuration.

use std::io::Write;
use std::path::Path;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::config::{Config, ModelsConfig};
use crate::service::broker::{SERVICE_PASSWORD, lacks_password};

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    if !config.ignored_variables.is_empty() {
        eprintln!("denoised: {}", super::ignored_variables(&config));
    }
    for warning in config.warnings().into_iter().chain(missing_files(&config)) {
        eprintln!("denoised: warning: {warning}");
    }
    let (node, broker) = (config.node.as_str(), &config.mqtt.url);
    writeln!(Stdout, "the configuration is valid: node {node}, broker {broker}")?;
    if lacks_password(&config) {
        writeln!(
            Stdout,
            "note: mqtt.username is set and there is no password; set mqtt.password_file, or write the password to \
             {SERVICE_PASSWORD} for denoised.service"
        )?;
    }
    Ok(())
}

/// What the configuration names and this machine does not have, which may differ from the one that runs the daemon.
fn missing_files(config: &Config) -> Vec<String> {
    let mqtt = &config.mqtt;
    let files = [
        ("mqtt.password_file", mqtt.password_file.as_deref()),
        ("mqtt.ca_file", mqtt.ca_file.as_deref()),
        ("mqtt.cert_file", mqtt.cert_file.as_deref()),
        ("mqtt.key_file", mqtt.key_file.as_deref()),
        ("engine.library", config.onnxruntime_library()),
    ];
    let missing =
        |key: &str, kind: &str, path: &Path| format!("{key}: there is no {kind} {}", path.display());
    // The default model comes with the package, and not from the configuration.
    let default = ModelsConfig::default().paths;
    let models = config.models.paths.iter().filter(|path| !path.is_dir() && !default.contains(path));
    let files = files.into_iter().filter_map(|(key, path)| Some((key, path.filter(|path| !path.is_file())?)));
    models
        .map(|path| missing("models.paths", "directory", path))
        .chain(files.map(|(key, path)| missing(key, "file", path)))
        .collect()
}
