//! Messages whose effects are not stored yet. They are not acknowledged, so the broker redelivers them if the daemon ends.

use crate::mqtt::client::AckToken;
use crate::spool::CommandDigest;

/// A message that is acknowledged and remembered as handled once its effects are stored.
pub(super) type HeldCommand = (CommandDigest, AckToken);

/// The cancellations of a job that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct HeldCommands(Vec<HeldCommand>);

impl HeldCommands {
    /// Adds a message. Each redelivered one is added, because the broker limits their number. Another one with the same
    /// content is added once.
    pub(super) fn add(&mut self, command: CommandDigest, ack: AckToken) {
        if ack.is_redelivered() || self.0.iter().all(|(known, _)| *known != command) {
            self.0.push((command, ack));
        }
    }

    /// Drops the messages that the broker redelivers on the next connection.
    pub(super) fn on_disconnected(&mut self) {
        self.0.retain(|(_, ack)| !ack.is_redelivered());
    }

    pub(super) fn into_inner(self) -> Vec<HeldCommand> {
        self.0
    }
}
