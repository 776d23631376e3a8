//! What systemd is told: ready, a line of status, still alive.
//!
//! Where no service manager listens, nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// While it is not ready, the daemon asks for so much more time with every line of status.
const MORE_TIME: Duration = Duration::from_secs(60);

/// The line to the service manager.
#[derive(Debug)]
pub(super) struct SystemdNotifier {
    watched: bool,
    ready: bool,
    status: String,
}

impl SystemdNotifier {
    /// To the manager that the environment names.
    pub(super) fn new() -> Self {
        let watched = sd_notify::watchdog_enabled().is_some();
        Self { watched, ready: false, status: String::new() }
    }

    /// Jobs are taken from now on.
    pub(super) fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            tell(&[NotifyState::Ready]);
        }
    }

    /// The daemon is stopping.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The line that `systemctl status` shows, told where it has changed.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Whoever calls this goes on; so does the worker if `alive`.
    pub(super) fn go_on(&self, alive: bool) {
        if !self.ready {
            // An engine may take longer to build than a start may last.
            tell(&[NotifyState::ExtendTimeoutUsec(MORE_TIME.as_micros() as u32)]);
        }
        if self.watched && alive {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager can't be told: {error}");
    }
}
