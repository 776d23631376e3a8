//! The messages that wait for the broker: a state machine without I/O.
//!
//! A message stays here until the broker has acknowledged it. When a connection is lost,
//! everything that was handed to it waits again, in the old order; a packet identifier means
//! nothing beyond its connection.

use std::collections::VecDeque;

use super::message::{Message, Quality};

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
    /// is dropped where there is no connection.
    pub fn take(&mut self, message: Message, number: Option<u64>) {
        if message.quality == Quality::AtMostOnce && self.connection.is_none() {
            return;
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
        self.waiting.retain(|held| held.message.quality != Quality::AtMostOnce);
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
        if size > limit {
            self.bytes -= size;
            return Next::TooLarge { message, number, limit };
        }
        if message.quality == Quality::AtMostOnce {
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

    /// The broker has it; tells the message's number, if anything waited for this acknowledgement.
    pub fn acknowledged(&mut self, packet: u16) -> Option<Option<u64>> {
        let place = self.in_flight.iter().position(|m| m.packet == Some(packet));
        let done = place.and_then(|place| self.in_flight.remove(place))?;
        self.bytes -= done.held.message.packet_size();
        Some(done.held.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(n: usize, quality: Quality) -> Message {
        Message { quality, ..Message::new("t".to_owned(), n.to_string()) }
    }

    fn sent(delivery: &mut Delivery) -> Vec<String> {
        std::iter::from_fn(|| match delivery.next_step() {
            Next::Send(message) => Some(String::from_utf8(message.payload.to_vec()).unwrap()),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_in_order() {
        let mut delivery = Delivery::new(1 << 20, 3);
        (0..5).for_each(|n| delivery.take(message(n, Quality::AtLeastOnce), Some(n as u64)));
        assert_eq!(delivery.next_step(), Next::Nothing);
        delivery.connected(1000);
        assert_eq!(sent(&mut delivery), ["0", "1", "2"]);
        (1..=3).for_each(|packet| delivery.numbered(packet));
        assert_eq!(delivery.acknowledged(2), Some(Some(1)));
        assert_eq!(delivery.acknowledged(2), None);
        assert_eq!(sent(&mut delivery), ["3"]);
        delivery.disconnected();
        delivery.connected(1000);
        assert_eq!(sent(&mut delivery), ["0", "2", "3"]);
    }

    #[test]
    fn what_may_be_lost_is_not_kept_for_later() {
        let mut delivery = Delivery::new(1 << 20, 3);
        delivery.take(message(0, Quality::AtMostOnce), None);
        assert!(delivery.is_empty());
        delivery.connected(1000);
        delivery.take(message(1, Quality::AtMostOnce), None);
        delivery.disconnected();
        assert!(delivery.is_empty() && delivery.bytes == 0);
    }

    #[test]
    fn a_message_larger_than_the_broker_takes_is_given_back() {
        let mut delivery = Delivery::new(1 << 20, 3);
        delivery.connected(20);
        delivery.take(message(0, Quality::AtLeastOnce), None);
        let large = Message::new("t".to_owned(), vec![0; 30]);
        delivery.take(large.clone(), None);
        delivery.take(message(2, Quality::AtLeastOnce), None);
        assert_eq!(sent(&mut delivery), ["0"]);
        // `sent` stopped at the large one, which is gone from here.
        assert_eq!(sent(&mut delivery), ["2"]);
    }

    proptest! {
        /// Over any sequence of events every message that must arrive is acknowledged at last,
        /// and the bytes that are counted are those that are held.
        #[test]
        fn nothing_is_lost_over_any_sequence_of_events(events in prop::collection::vec(0..6_u8, 1..200)) {
            let mut delivery = Delivery::new(1 << 20, 4);
            let (mut taken, mut arrived) = (0, std::collections::BTreeSet::new());
            let mut on_the_wire: Vec<(u16, String)> = Vec::new();
            let mut packet = 0;
            let mut step = |event: u8, delivery: &mut Delivery, arrived: &mut std::collections::BTreeSet<String>| {
                match event {
                    0 | 1 => {
                        delivery.take(message(taken, Quality::AtLeastOnce), Some(taken as u64));
                        taken += 1;
                    }
                    2 => delivery.connected(1000),
                    3 => {
                        delivery.disconnected();
                        on_the_wire.clear();
                    }
                    4 => {
                        if let Next::Send(message) = delivery.next_step() {
                            packet = packet % 1000 + 1;
                            delivery.numbered(packet);
                            on_the_wire.push((packet, String::from_utf8(message.payload.to_vec()).unwrap()));
                        }
                    }
                    _ => {
                        if let Some((packet, text)) = on_the_wire.pop() {
                            let number = delivery.acknowledged(packet).unwrap().unwrap();
                            assert_eq!(number.to_string(), text);
                            arrived.insert(text);
                        }
                    }
                }
                let held: usize = delivery.waiting.iter().map(|m| m.message.packet_size()).sum::<usize>()
                    + delivery.in_flight.iter().map(|m| m.held.message.packet_size()).sum::<usize>();
                assert_eq!(held, delivery.bytes);
                assert!(delivery.in_flight.len() <= 4);
                taken
            };
            let mut total = 0;
            for event in events {
                total = step(event, &mut delivery, &mut arrived);
            }
            step(2, &mut delivery, &mut arrived);
            while !delivery.is_empty() {
                step(4, &mut delivery, &mut arrived);
                step(5, &mut delivery, &mut arrived);
            }
            prop_assert_eq!(arrived.len(), total);
        }
    }
}
