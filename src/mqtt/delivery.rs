//! The outgoing messages that the broker has not acknowledged: a state machine without I/O.
//!
//! A message stays here until the broker acknowledges it. When a connection is lost, all messages in flight are queued
//! again in their original order. They keep their packet identifiers, which belong to the session: if the broker has kept
//! it, each one is repeated with its identifier, or released if the broker already has the message (MQTT 5, section 4.4).

use std::collections::{BTreeSet, VecDeque};

use super::message::{Message, QoS};

/// Maximum number of unacknowledged messages. They have the packet identifiers from 1 to this number, so that the daemon
/// knows which ones an earlier process can have left in the session.
pub(super) const MAX_IN_FLIGHT: u16 = 8;
/// Maximum number of queued messages at QoS 0; further ones are dropped.
const MAX_BEST_EFFORT: usize = 64;
/// Identifiers of an earlier process are released on this many connections at most, because some brokers close a
/// connection that releases an identifier that they do not know.
const MAX_RELEASE_ATTEMPTS: u8 = 3;
/// After this many connections in a row that the broker closed on a message, it is given up.
const MAX_CLOSURES: u8 = 3;

/// A message, and the number with which its delivery is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QueuedMessage {
    message: Message,
    number: Option<u64>,
    /// `None` until the message is sent, and for a message that is sent at QoS 0.
    sent: Option<SentPacket>,
    /// How many connections in a row the broker closed after this message alone was sent.
    closures: u8,
}

/// What the session knows of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SentPacket {
    id: u16,
    /// Whether a PUBREC packet was received, after which only PUBREL may be sent.
    is_received: bool,
}

impl QueuedMessage {
    fn has_packet_id(&self, packet_id: u16) -> bool {
        self.sent.is_some_and(|sent| sent.id == packet_id)
    }
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
    Publish {
        /// The message.
        message: Message,
        /// `None` at QoS 0.
        packet_id: Option<u16>,
        /// Whether the message was sent before with this packet identifier.
        is_repeated: bool,
    },
    /// Send PUBREL for a message that the broker has.
    Release(u16),
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
    in_flight: VecDeque<QueuedMessage>,
    /// The size of all messages, queued and in flight.
    bytes: usize,
    /// The number of queued messages at QoS 0.
    best_effort: usize,
    max_bytes: usize,
    max_in_flight: u16,
    last_packet_id: u16,
    /// Packet identifiers of no message here, for which the broker may wait for PUBREL.
    leftover_ids: BTreeSet<u16>,
    /// Those of them for which PUBREL was not sent on this connection.
    unreleased_ids: VecDeque<u16>,
    /// On how many connections leftover identifiers were released.
    release_attempts: u8,
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
    pub(super) fn new(max_bytes: usize, max_in_flight: u16) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            best_effort: 0,
            max_bytes,
            max_in_flight,
            last_packet_id: 0,
            leftover_ids: BTreeSet::new(),
            unreleased_ids: VecDeque::new(),
            release_attempts: 0,
            interrupted: 0,
            closures: 0,
            suspects: 0,
            limits: None,
        }
    }

    /// Releases every packet identifier that an earlier process of this session may have left at QoS 2, before it is used.
    /// The spool sends the message of such an identifier again as a new one.
    pub(super) fn with_leftover_ids(mut self) -> Self {
        self.leftover_ids = (1..=self.max_in_flight).collect();
        self
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
        self.queue.push_back(QueuedMessage { message, number, sent: None, closures: 0 });
    }

    /// Starts a connection to a broker with these limits. Without the session, packet identifiers have no meaning.
    pub(super) fn on_connected(&mut self, limits: DeliveryLimits, has_session: bool) {
        self.limits = Some(limits);
        if !has_session || limits.max_qos == QoS::AtMostOnce {
            self.queue.iter_mut().for_each(|queued| queued.sent = None);
        }
        if !has_session || limits.max_qos < QoS::ExactlyOnce || self.release_attempts >= MAX_RELEASE_ATTEMPTS
        {
            self.leftover_ids.clear();
        }
        self.release_attempts += u8::from(!self.leftover_ids.is_empty());
        self.unreleased_ids = self.leftover_ids.iter().copied().collect();
    }

    /// Ends the connection: messages in flight are queued again, messages at QoS 0 are dropped.
    pub(super) fn on_disconnected(&mut self) {
        self.limits = None;
        self.interrupted =
            self.in_flight.iter().filter(|queued| queued.message.qos != QoS::AtMostOnce).count();
        for queued in self.in_flight.drain(..).rev() {
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
        let QueuedMessage { message, number, sent, .. } = self.queue.pop_front()?;
        self.bytes -= message.packet_size();
        self.leftover_ids.extend(sent.map(|sent| sent.id).filter(|_| message.qos == QoS::ExactlyOnce));
        Some((message, number))
    }

    /// Returns the next action, and moves its message out of the queue.
    pub(super) fn next_action(&mut self) -> Action {
        let Some(limits) = self.limits else { return Action::Wait };
        if let Some(packet_id) = self.unreleased_ids.pop_front() {
            return Action::Release(packet_id);
        }
        let max_in_flight = if self.suspects > 0 { 1 } else { self.max_in_flight };
        let window = max_in_flight.min(u16::try_from(limits.receive_maximum).unwrap_or(u16::MAX));
        if self.in_flight.len() >= usize::from(window) {
            return Action::Wait;
        }
        let Some(next) = self.queue.front() else { return Action::Wait };
        let qos = next.message.qos.min(limits.max_qos);
        let repeated = next.sent;
        let new_id = || self.free_packet_id().map(|id| SentPacket { id, is_received: false });
        let sent = repeated.or_else(|| if qos == QoS::AtMostOnce { None } else { new_id() });
        if sent.is_none() && qos != QoS::AtMostOnce {
            return Action::Wait;
        }
        let Some(mut queued) = self.queue.pop_front() else { return Action::Wait };
        queued.sent = sent;
        if let Some(SentPacket { id, is_received: true }) = sent {
            self.in_flight.push_back(queued);
            return Action::Release(id);
        }
        let message = queued.message.clone();
        let size = message.packet_size();
        self.best_effort -= usize::from(message.qos == QoS::AtMostOnce);
        if size > limits.max_packet_size {
            self.bytes -= size;
            // The broker may have received the message on an earlier connection.
            self.leftover_ids.extend(repeated.map(|sent| sent.id).filter(|_| qos == QoS::ExactlyOnce));
            return Action::RejectTooLarge { message, number: queued.number, limit: limits.max_packet_size };
        }
        self.last_packet_id = sent.map_or(self.last_packet_id, |sent| sent.id);
        if message.qos == QoS::AtMostOnce && limits.max_qos != QoS::AtMostOnce {
            self.bytes -= size;
        } else {
            self.in_flight.push_back(queued);
        }
        Action::Publish {
            message: Message { qos, retain: message.retain && limits.retain, ..message },
            packet_id: sent.map(|sent| sent.id),
            is_repeated: repeated.is_some(),
        }
    }

    /// Returns the packet identifier after the last one that is not in use.
    fn free_packet_id(&self) -> Option<u16> {
        let is_free = |id: u16| {
            let mut messages = self.in_flight.iter().chain(&self.queue);
            !self.leftover_ids.contains(&id) && !messages.any(|queued| queued.has_packet_id(id))
        };
        let (max, last) = (self.max_in_flight, self.last_packet_id);
        (last..last + max).map(|previous| previous % max + 1).find(|&id| is_free(id))
    }

    /// A message at QoS 0 was written to the connection. If the broker has no higher QoS, the oldest message in flight
    /// is complete; returns its number.
    pub(super) fn on_written(&mut self) -> Option<u64> {
        self.limits.filter(|limits| limits.max_qos == QoS::AtMostOnce)?;
        let queued = self.in_flight.pop_front()?;
        self.bytes -= queued.message.packet_size();
        self.closures = 0;
        self.suspects = self.suspects.saturating_sub(1);
        queued.number
    }

    /// The broker has the message with this packet identifier, and waits for PUBREL.
    pub(super) fn on_received(&mut self, packet_id: u16) {
        if let Some(index) = self.index(packet_id)
            && let Some(sent) = &mut self.in_flight[index].sent
        {
            sent.is_received = true;
        }
    }

    /// The broker rejected the message with this packet identifier, which is sent again on the next connection. It must
    /// not be repeated with this identifier, and if the broker reports that the identifier is in use, it is released.
    pub(super) fn on_rejected(&mut self, packet_id: u16) {
        if let Some(index) = self.index(packet_id) {
            let queued = &mut self.in_flight[index];
            queued.sent = None;
            if queued.message.qos == QoS::ExactlyOnce {
                self.leftover_ids.insert(packet_id);
            }
        }
    }

    /// Returns the message in flight with this packet identifier.
    pub(super) fn in_flight(&self, packet_id: u16) -> Option<&Message> {
        self.index(packet_id).map(|index| &self.in_flight[index].message)
    }

    /// Returns the number of the message in flight with this packet identifier.
    pub(super) fn number(&self, packet_id: u16) -> Option<u64> {
        self.in_flight[self.index(packet_id)?].number
    }

    /// Removes the message in flight with this packet identifier, after the broker acknowledged or
    /// rejected it. Returns the message and its number.
    pub(super) fn complete(&mut self, packet_id: u16) -> Option<(Message, Option<u64>)> {
        if self.leftover_ids.remove(&packet_id) && self.leftover_ids.is_empty() {
            self.release_attempts = 0;
        }
        let queued = self.in_flight.remove(self.index(packet_id)?)?;
        self.bytes -= queued.message.packet_size();
        self.closures = 0;
        self.suspects = self.suspects.saturating_sub(1);
        Some((queued.message, queued.number))
    }

    fn index(&self, packet_id: u16) -> Option<usize> {
        self.in_flight.iter().position(|queued| queued.has_packet_id(packet_id))
    }
}

#[cfg(test)]
mod tests;
