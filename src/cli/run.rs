//! `denoised run`: the daemon.

use std::path::PathBuf;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{ConfigFile, Failure};
use crate::service::Signals;

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = super::configuration(file.config.as_deref())?;
    super::start_log(config.log.level.0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let signals = signals(file.config.clone())?;
        crate::service::run(&config, signals).await?;
        Ok(())
    })
}

/// SIGTERM and SIGINT stop; SIGHUP reads the configuration again.
fn signals(file: Option<PathBuf>) -> anyhow::Result<Signals> {
    let (stop, stopped) = watch::channel(false);
    let (changed, reload) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => { stop.send_replace(true); }
                _ = interrupt.recv() => { stop.send_replace(true); }
                _ = hangup.recv() => match super::configuration(file.as_deref()) {
                    // A service that is ending needs no other configuration.
                    Ok(config) => drop(changed.send(config).await),
                    Err(failure) => log::error!("the configuration stays as it is: {:#}", failure.cause),
                },
            }
        }
    });
    Ok(Signals { stop: stopped, reload })
}
