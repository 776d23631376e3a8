//! The messages that wait for the broker: a state machine without I/O.
//!
//! A message stays here until the broker has acknowledged it. When a connection is lost,
//! everything that was handed to it waits again, in the old order; a packet identifier means
//! nothing beyond its connection.

use std::collections::VecDeque;

use super::message::{Message, QoS};

/// So many messages that may be lost wait here at most; old news of a job's progress is none.
const PASSING: usize = 64;

/// A message that waits, and the number by which its owner knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    message: Message,
    number: Option<u64>,
}

/// Messages handed to the connection and not yet acknowledged.
#[derive(Debug)]
struct InFlight {
    held: Waiting,
    /// The packet identifier, once the connection has told it.
    packet: Option<u16>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Hand this to the connection.
    Send(Message),
    /// This is larger than the broker takes; it is no longer here.
    TooLarge {
        /// The message.
        message: Message,
        /// Its number.
        number: Option<u64>,
        /// The largest packet that the broker takes.
        limit: usize,
    },
    /// Wait: for a connection, an acknowledgement, or a message.
    Nothing,
}

/// Everything that waits for the broker.
#[derive(Debug)]
pub struct Delivery {
    waiting: VecDeque<Waiting>,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    /// Of those that wait, the messages that may be lost.
    passing: usize,
    max_bytes: usize,
    window: usize,
    /// The broker's largest packet, while connected.
    connection: Option<usize>,
}

impl Delivery {
    /// Hold at most about `max_bytes`, and hand at most `window` messages to the connection
    /// before the first of them is acknowledged.
    pub fn new(max_bytes: usize, window: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            passing: 0,
            max_bytes,
            window,
            connection: None,
        }
    }

    /// Whether one more message may come.
    pub fn has_room(&self) -> bool {
        self.bytes < self.max_bytes
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Take a message, with the number that is told once the broker has it. One that may be lost
    /// is dropped where there is no connection, or where 64 such wait already.
    pub fn take(&mut self, message: Message, number: Option<u64>) {
        if message.quality == QoS::AtMostOnce {
            if self.connection.is_none() || self.passing >= PASSING {
                return;
            }
            self.passing += 1;
        }
        self.bytes += message.packet_size();
        self.waiting.push_back(Waiting { message, number });
    }

    /// A connection was made to a broker that takes packets up to this size.
    pub fn connected(&mut self, largest_packet: usize) {
        self.connection = Some(largest_packet);
    }

    /// The connection is gone: what it did not get acknowledged waits again.
    pub fn disconnected(&mut self) {
        self.connection = None;
        for InFlight { held, .. } in self.in_flight.drain(..).rev() {
            self.waiting.push_front(held);
        }
        self.waiting.retain(|held| held.message.quality != QoS::AtMostOnce);
        self.passing = 0;
        self.bytes = self.waiting.iter().map(|held| held.message.packet_size()).sum();
    }

    /// What to hand to the connection now.
    pub fn next_step(&mut self) -> Next {
        let Some(limit) = self.connection.filter(|_| self.in_flight.len() < self.window) else {
            return Next::Nothing;
        };
        let Some(held) = self.waiting.pop_front() else {
            return Next::Nothing;
        };
        let Waiting { message, number } = held.clone();
        let size = message.packet_size();
        self.passing -= usize::from(message.quality == QoS::AtMostOnce);
        if size > limit {
            self.bytes -= size;
            return Next::TooLarge { message, number, limit };
        }
        if message.quality == QoS::AtMostOnce {
            self.bytes -= size;
        } else {
            self.in_flight.push_back(InFlight { held, packet: None });
        }
        Next::Send(message)
    }

    /// The connection gave the oldest message without a packet identifier this one.
    pub fn numbered(&mut self, packet: u16) {
        if let Some(first) = self.in_flight.iter_mut().find(|m| m.packet.is_none()) {
            first.packet = Some(packet);
        }
    }

    /// The message in flight under a packet identifier.
    pub fn in_flight(&self, packet: u16) -> Option<&Message> {
        self.in_flight.iter().find(|m| m.packet == Some(packet)).map(|m| &m.held.message)
    }

    /// The broker has it, or will never take it: gives the message back with its number, if it was
    /// in flight.
    pub fn answered(&mut self, packet: u16) -> Option<(Message, Option<u64>)> {
        let place = self.in_flight.iter().position(|m| m.packet == Some(packet));
        let InFlight { held, .. } = place.and_then(|place| self.in_flight.remove(place))?;
        self.bytes -= held.message.packet_size();
        Some((held.message, held.number))
    }
}

#[cfg(test)]
mod tests;
