//! The outgoing messages that the broker has not acknowledged: a state machine without I/O.
//!
//! A message stays here until the broker acknowledges it. When a connection is lost, all messages
//! in flight are queued again in their original order. Packet identifiers are valid for one
//! connection only.

use std::collections::VecDeque;

use super::message::{Message, QoS};

/// Maximum number of queued messages at QoS 0; further ones are dropped.
const MAX_BEST_EFFORT: usize = 64;
/// After this many connections in a row that the broker closed on a message, it is given up.
const MAX_CLOSURES: u8 = 3;

/// A message, and the number with which its delivery is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QueuedMessage {
    message: Message,
    number: Option<u64>,
    /// How many connections in a row the broker closed after this message alone was sent.
    closures: u8,
}

/// A message that was passed to the connection and is not yet acknowledged.
#[derive(Debug)]
struct InFlight {
    queued: QueuedMessage,
    /// `None` until the connection reports it, and for a message that is sent at QoS 0.
    packet_id: Option<u16>,
}

/// What the broker of a connection accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeliveryLimits {
    /// In bytes.
    pub(super) max_packet_size: usize,
    /// The most unacknowledged messages.
    pub(super) receive_maximum: usize,
    /// Messages are sent at this QoS at most.
    pub(super) max_qos: QoS,
    /// Whether messages may be retained.
    pub(super) retain: bool,
}

/// The next action of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Publish this message on the connection.
    Publish(Message),
    /// Report this message as undeliverable; it was removed from the queue.
    RejectTooLarge {
        /// The message.
        message: Message,
        /// Its number.
        number: Option<u64>,
        /// The broker's maximum packet size, in bytes.
        limit: usize,
    },
    /// Wait for a connection, an acknowledgement or a message.
    Wait,
}

/// The queue of outgoing messages, and the messages in flight.
#[derive(Debug)]
pub(super) struct Delivery {
    queue: VecDeque<QueuedMessage>,
    in_flight: VecDeque<InFlight>,
    /// The size of all messages, queued and in flight.
    bytes: usize,
    /// The number of queued messages at QoS 0.
    best_effort: usize,
    max_bytes: usize,
    max_in_flight: usize,
    /// The messages at QoS 1 or 2 that were in flight when the last connection ended.
    interrupted: usize,
    /// How many connections in a row the broker closed without an acknowledgement.
    closures: u8,
    /// How many messages are sent one at a time, to find out on which of them the broker closes the connection.
    suspects: usize,
    /// `None` while disconnected.
    limits: Option<DeliveryLimits>,
}

impl Delivery {
    /// Creates an empty queue with a size limit of about `max_bytes`. At most `max_in_flight` messages are sent and
    /// unacknowledged on a connection.
    pub(super) fn new(max_bytes: usize, max_in_flight: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            best_effort: 0,
            max_bytes,
            max_in_flight,
            interrupted: 0,
            closures: 0,
            suspects: 0,
            limits: None,
        }
    }

    /// Returns whether the queue can take another message.
    pub(super) fn has_capacity(&self) -> bool {
        self.bytes < self.max_bytes
    }

    /// Returns whether no message is queued or in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Queues a message. Drops a message at QoS 0 while disconnected, and once 64 of them are queued.
    pub(super) fn enqueue(&mut self, message: Message, number: Option<u64>) {
        if message.qos == QoS::AtMostOnce {
            if self.limits.is_none() || self.best_effort >= MAX_BEST_EFFORT {
                return;
            }
            self.best_effort += 1;
        }
        self.bytes += message.packet_size();
        self.queue.push_back(QueuedMessage { message, number, closures: 0 });
    }

    /// Starts a connection to a broker with these limits.
    pub(super) fn on_connected(&mut self, limits: DeliveryLimits) {
        self.limits = Some(limits);
    }

    /// Ends the connection: messages in flight are queued again, messages at QoS 0 are dropped.
    pub(super) fn on_disconnected(&mut self) {
        self.limits = None;
        self.interrupted = self.in_flight.iter().filter(|m| m.queued.message.qos != QoS::AtMostOnce).count();
        for InFlight { queued, .. } in self.in_flight.drain(..).rev() {
            self.queue.push_front(queued);
        }
        self.queue.retain(|queued| queued.message.qos != QoS::AtMostOnce);
        self.best_effort = 0;
        self.bytes = self.queue.iter().map(|queued| queued.message.packet_size()).sum();
    }

    /// The connection that has just ended was closed by the broker, or not. Messages on which it may have done so are
    /// sent one at a time. Returns one on which it did so three times in a row, and removes it, if `is_expendable` allows
    /// that.
    pub(super) fn on_closed(
        &mut self,
        is_by_broker: bool,
        is_expendable: impl Fn(&Message) -> bool,
    ) -> Option<(Message, Option<u64>)> {
        let interrupted = std::mem::take(&mut self.interrupted);
        let first = self.queue.front_mut().filter(|_| interrupted > 0)?;
        if !is_by_broker {
            first.closures = 0;
            self.closures = 0;
            return None;
        }
        self.closures = self.closures.saturating_add(1);
        // A broker that restarts closes one connection.
        if self.closures >= 2 {
            self.suspects = self.suspects.max(interrupted);
        }
        if interrupted > 1 {
            return None;
        }
        first.closures = first.closures.saturating_add(1);
        if first.closures < MAX_CLOSURES || !is_expendable(&first.message) {
            return None;
        }
        self.suspects = self.suspects.saturating_sub(1);
        let QueuedMessage { message, number, .. } = self.queue.pop_front()?;
        self.bytes -= message.packet_size();
        Some((message, number))
    }

    /// Returns the next action, and moves its message out of the queue.
    pub(super) fn next_action(&mut self) -> Action {
        let Some(limits) = self.limits else { return Action::Wait };
        let max_in_flight = if self.suspects > 0 { 1 } else { self.max_in_flight };
        if self.in_flight.len() >= max_in_flight.min(limits.receive_maximum) {
            return Action::Wait;
        }
        let Some(queued) = self.queue.pop_front() else {
            return Action::Wait;
        };
        let QueuedMessage { message, number, .. } = queued.clone();
        let size = message.packet_size();
        self.best_effort -= usize::from(message.qos == QoS::AtMostOnce);
        if size > limits.max_packet_size {
            self.bytes -= size;
            return Action::RejectTooLarge { message, number, limit: limits.max_packet_size };
        }
        if message.qos == QoS::AtMostOnce && limits.max_qos != QoS::AtMostOnce {
            self.bytes -= size;
        } else {
            self.in_flight.push_back(InFlight { queued, packet_id: None });
        }
        Action::Publish(Message {
            qos: message.qos.min(limits.max_qos),
            retain: message.retain && limits.retain,
            ..message
        })
    }

    /// A message at QoS 0 was written to the connection. If the broker has no higher QoS, the oldest message in flight
    /// is complete; returns its number.
    pub(super) fn on_written(&mut self) -> Option<u64> {
        self.limits.filter(|limits| limits.max_qos == QoS::AtMostOnce)?;
        let InFlight { queued, .. } = self.in_flight.pop_front()?;
        self.bytes -= queued.message.packet_size();
        self.closures = 0;
        self.suspects = self.suspects.saturating_sub(1);
        queued.number
    }

    /// Assigns a packet identifier to the oldest message in flight that has none.
    pub(super) fn assign_packet_id(&mut self, packet_id: u16) {
        if let Some(first) = self.in_flight.iter_mut().find(|m| m.packet_id.is_none()) {
            first.packet_id = Some(packet_id);
        }
    }

    /// Returns the message in flight with this packet identifier.
    pub(super) fn in_flight(&self, packet_id: u16) -> Option<&Message> {
        self.in_flight.iter().find(|m| m.packet_id == Some(packet_id)).map(|m| &m.queued.message)
    }

    /// Returns the number of the message in flight with this packet identifier.
    pub(super) fn number(&self, packet_id: u16) -> Option<u64> {
        self.in_flight.iter().find(|m| m.packet_id == Some(packet_id))?.queued.number
    }

    /// Removes the message in flight with this packet identifier, after the broker acknowledged or
    /// rejected it. Returns the message and its number.
    pub(super) fn complete(&mut self, packet_id: u16) -> Option<(Message, Option<u64>)> {
        let index = self.in_flight.iter().position(|m| m.packet_id == Some(packet_id))?;
        let InFlight { queued, .. } = self.in_flight.remove(index)?;
        self.bytes -= queued.message.packet_size();
        self.closures = 0;
        self.suspects = self.suspects.saturating_sub(1);
        Some((queued.message, queued.number))
    }
}

#[cfg(test)]
mod tests;
