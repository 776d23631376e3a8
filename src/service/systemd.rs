//! Notifies systemd of readiness, status and liveness. Without a service manager, it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The start timeout that is requested with every keep-alive until the daemon is ready.
const START_TIMEOUT_EXTENSION: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct SystemdNotifier {
    has_watchdog: bool,
    is_ready: bool,
    status: String,
}

impl SystemdNotifier {
    /// A notifier of the service manager that the environment names.
    pub(super) fn new() -> Self {
        let has_watchdog = sd_notify::watchdog_enabled().is_some();
        Self { has_watchdog, is_ready: false, status: String::new() }
    }

    /// Reports that the daemon is ready, once.
    pub(super) fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            notify(&[NotifyState::Ready]);
        }
    }

    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Sets the line that `systemctl status` shows.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Feeds the watchdog if the worker is alive. Until the daemon is ready, also extends the start timeout,
    /// because an engine may take minutes to build.
    pub(super) fn keep_alive(&self, worker_is_alive: bool) {
        if !self.is_ready {
            notify(&[NotifyState::ExtendTimeoutUsec(START_TIMEOUT_EXTENSION.as_micros() as u32)]);
        }
        if self.has_watchdog && worker_is_alive {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot notify systemd: {error}");
    }
}
