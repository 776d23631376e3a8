//! `denoised check-config`: validates a configuration.

use std::io::{ErrorKind, Write};
use std::path::Path;

use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::config::{Config, ModelsConfig};
use crate::http::token_fault;
use crate::service::broker::{
    SERVICE_PASSWORD, file_faults, lacks_password, unused_password, unused_password_warning,
};

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let config = super::configuration(file.config.as_deref())?;
    if !config.ignored_variables.is_empty() {
        eprintln!("denoised: {}", super::ignored_variables(&config));
    }
    let password = unused_password(&config).map(|path| unused_password_warning(&path));
    for warning in config.warnings().into_iter().chain(unchecked_files(&config)).chain(password) {
        // A key may hold control characters, which must not reach a terminal.
        eprintln!("denoised: warning: {}", warning.replace(char::is_control, "\u{fffd}"));
    }
    let mut faults: Vec<_> = file_faults(&config).iter().map(ToString::to_string).collect();
    faults.extend(token_fault(&config.http).map(|error| error.to_string()));
    if !faults.is_empty() {
        return Err(CommandError::usage(anyhow::anyhow!(faults.join("\n"))));
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

/// What the configuration names and this machine does not have or hides, which may differ from the one that runs the
/// daemon.
fn unchecked_files(config: &Config) -> Vec<String> {
    let mqtt = &config.mqtt;
    let files = [
        ("mqtt.password_file", mqtt.password_file.as_deref()),
        ("mqtt.ca_file", mqtt.ca_file.as_deref()),
        ("mqtt.cert_file", mqtt.cert_file.as_deref()),
        ("mqtt.key_file", mqtt.key_file.as_deref()),
        ("http.token_file", config.http.token_file.as_deref()),
        ("engine.library", config.onnxruntime_library()),
    ];
    // The default model comes with the package, and not from the configuration.
    let default = ModelsConfig::default().paths;
    let models = config.models.paths.iter().filter(|path| !path.is_dir() && !default.contains(path));
    let missing_model = |path: &Path| match path.exists() {
        true => format!("models.paths: {} is not a directory", path.display()),
        false => format!("models.paths: there is no directory {} on this machine", path.display()),
    };
    let files = files.into_iter().filter_map(|(key, path)| unchecked_file(key, path?));
    models.map(|path| missing_model(path)).chain(files).collect()
}

fn unchecked_file(key: &str, path: &Path) -> Option<String> {
    let path_name = path.display();
    match std::fs::File::open(path).map_err(|error| error.kind()) {
        Ok(_) => None,
        Err(ErrorKind::PermissionDenied) => {
            Some(format!("{key}: {path_name} is hidden from the user of this command, and not checked"))
        }
        Err(_) => Some(format!("{key}: there is no file {path_name} on this machine")),
    }
}
