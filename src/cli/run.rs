//! `denoised run`: the daemon.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{CommandError, ConfigFile};
use crate::config::Config;
use crate::http::Server;
use crate::service::{LocalPort, Signals, local};

pub(super) fn run(file: &ConfigFile) -> Result<(), CommandError> {
    let mut config = super::configuration(file.config.as_deref())?;
    super::start_log(config.log.level.0);
    log::info!("{}", config.fix_memory());
    if !config.ignored_variables.is_empty() {
        log::info!("{}", super::ignored_variables(&config));
    }
    log_warnings(&config);
    if let Some(warning) = unwritable_cache(&config.engine.cache) {
        log::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        // Before anything else starts, so that a port in use is the first error.
        let server = Server::bind(&config).await?;
        let (server, port) = match server {
            Some(server) => {
                let (handle, port) = local::connection();
                (Some(server.start(handle)), port)
            }
            None => (None, LocalPort::default()),
        };
        let signals = signals(file.config.clone(), port)?;
        let outcome = crate::service::run(&config, signals).await;
        if let Some(server) = server {
            server.close().await;
        }
        Ok(outcome?)
    })
}

fn log_warnings(config: &Config) {
    config.warnings().iter().for_each(|warning| log::warn!("{warning}"));
}

/// A warning about a directory for prepared graphs, engines and measurements that keeps nothing.
fn unwritable_cache(cache: &Path) -> Option<String> {
    let kept = std::fs::create_dir_all(cache).and_then(|()| tempfile::tempfile_in(cache));
    kept.err().map(|error| {
        format!(
            "engine.cache: {} keeps nothing: {}; make it writable, or every start prepares and measures again",
            cache.display(),
            error.kind()
        )
    })
}

/// SIGTERM and SIGINT stop the daemon; SIGHUP reloads the configuration.
fn signals(file: Option<PathBuf>, local: LocalPort) -> anyhow::Result<Signals> {
    let (stop_sender, stop) = watch::channel(false);
    let (config_sender, reload) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => { stop_sender.send_replace(true); }
                _ = interrupt.recv() => { stop_sender.send_replace(true); }
                _ = hangup.recv() => match super::configuration(file.as_deref()) {
                    Ok(config) => {
                        log_warnings(&config);
                        // The service may have stopped and closed the channel.
                        drop(config_sender.send(config).await);
                    }
                    Err(error) => log::error!("keeping the present configuration: {error}"),
                },
            }
        }
    });
    Ok(Signals { stop, reload, local })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_keeps_nothing_was_silent() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unwritable_cache(&folder.path().join("cache")), None);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let warning = unwritable_cache(&file.join("cache")).unwrap();
        assert!(warning.starts_with("engine.cache: ") && warning.contains("make it writable"), "{warning}");
    }
}
