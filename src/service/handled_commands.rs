//! Recognises retained messages on the command topics that were handled before.
//!
//! The broker sends a retained message again on every subscription, so at every start and after every lost session. A
//! message on an existing subscription does not show whether the broker also retains it, so every command is remembered.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::mqtt::MessageKind;
use crate::mqtt::client::Incoming;
use crate::spool::{CommandDigest, MAX_HANDLED_COMMANDS};

/// The commands that were handled last, in this run and in earlier ones.
#[derive(Debug)]
pub(super) struct HandledCommands(VecDeque<CommandDigest>);

impl HandledCommands {
    /// Starts with the commands of earlier runs, oldest first.
    pub(super) fn new(earlier: Vec<CommandDigest>) -> Self {
        Self(earlier.into())
    }

    pub(super) fn contains(&self, command: CommandDigest) -> bool {
        self.0.contains(&command)
    }

    pub(super) fn insert(&mut self, command: CommandDigest) {
        self.0.push_back(command);
        if self.0.len() > MAX_HANDLED_COMMANDS {
            self.0.pop_front();
        }
    }
}

/// Returns the digest of a command: of its topic's kind, its payload, and where its answer goes.
pub(super) fn digest(incoming: &Incoming) -> CommandDigest {
    let kind = match incoming.kind {
        MessageKind::Request => "request",
        MessageKind::Cancel => "cancel",
        MessageKind::LoadModel => "model/load",
        MessageKind::UnloadModel => "model/unload",
        MessageKind::Claim => "claim",
        MessageKind::Settings => "settings",
        MessageKind::Draw => "draw",
        MessageKind::CancelDrawn => "cancel drawn",
        MessageKind::HomeAssistantStatus => "status",
    };
    let mut hash = Sha256::new();
    let reply_topic = incoming.response_topic.as_deref().unwrap_or_default();
    let correlation = incoming.correlation_data.as_deref().unwrap_or_default();
    for part in [kind.as_bytes(), &incoming.payload, reply_topic.as_bytes(), correlation] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_commands_are_forgotten_first() {
        let mut handled = HandledCommands::new((0..MAX_HANDLED_COMMANDS as u64).collect());
        assert!(handled.contains(0) && handled.contains(1));
        handled.insert(u64::MAX);
        assert!(!handled.contains(0) && handled.contains(1) && handled.contains(u64::MAX));
    }
}
