//! Commands that wait for the spool.

use std::collections::VecDeque;

use crate::spool::SpoolCommand;

/// Commands for the spool, numbered from 1 in the order in which it executes them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    commands: VecDeque<SpoolCommand>,
    /// The number of the latest command.
    latest: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, command: SpoolCommand) {
        self.latest += 1;
        self.commands.push_back(command);
    }

    pub(super) fn pop(&mut self) -> Option<SpoolCommand> {
        self.commands.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// The number of the latest command.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
