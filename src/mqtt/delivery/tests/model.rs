//! Any sequence of events, against a model of the connection and the broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A message at this quality of service is queued.
    Enqueue(QoS),
    /// A connection is made, to a broker that kept the session or lost it.
    Connect { session: bool },
    /// The connection breaks; all packets in transit are lost.
    Disconnect,
    /// The connection takes one message.
    Publish,
    /// The broker receives the oldest message in transit, and acknowledges it.
    Receive,
    /// The broker permanently rejects the oldest message in transit.
    Reject,
    /// All messages in transit, and all later ones on this connection, are lost unnoticed.
    Lose,
    /// The newest or the oldest acknowledgement in transit arrives.
    Acknowledge { newest: bool },
    /// An acknowledgement arrives that belongs to no message in flight.
    AcknowledgeUnknown,
    /// The client times out: the broker receives the messages in transit, but its acknowledgements
    /// are lost.
    TimeOut,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let qos = prop_oneof![
        4 => Just(QoS::AtLeastOnce),
        2 => Just(QoS::ExactlyOnce),
        1 => Just(QoS::AtMostOnce),
    ];
    prop_oneof![
        6 => qos.prop_map(Enqueue),
        2 => any::<bool>().prop_map(|session| Connect { session }),
        1 => Just(Disconnect),
        8 => Just(Publish),
        6 => Just(Receive),
        1 => Just(Reject),
        1 => Just(Lose),
        6 => any::<bool>().prop_map(|newest| Acknowledge { newest }),
        2 => Just(AcknowledgeUnknown),
        1 => Just(TimeOut),
    ]
}

/// What the client sends above QoS 0.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Publish { number: u64, qos: QoS },
    Release,
}

/// What the broker answers.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Complete,
    /// PUBREC.
    Stored,
}

/// A connection and a broker, with the messages that they hold.
struct DeliveryModel {
    delivery: Delivery,
    enqueued: u64,
    /// The messages above QoS 0, which must arrive.
    owed: BTreeSet<u64>,
    /// Packets in transit to the broker, with their packet identifiers.
    in_transit: VecDeque<(u16, Sent)>,
    /// The packet identifiers of acknowledgements and rejections in transit to the client.
    answers: VecDeque<(u16, Answer)>,
    rejected: BTreeSet<u64>,
    /// The messages that the broker received, in the order of their first arrival.
    received: Vec<u64>,
    /// The messages at QoS 2 in the session that are not released, by their packet identifiers.
    stored: BTreeMap<u16, u64>,
    /// How often the broker took a message at QoS 2 for a new one.
    passed_on: BTreeMap<u64, usize>,
    /// How often each number was reported as complete.
    completed: BTreeMap<u64, usize>,
    /// Whether all messages sent on this connection are lost.
    loses_messages: bool,
    /// Whether the broker ever lost the session.
    lost_session: bool,
}

impl DeliveryModel {
    fn new() -> Self {
        Self {
            delivery: Delivery::new(1 << 20, MAX_IN_FLIGHT),
            enqueued: 0,
            owed: BTreeSet::new(),
            in_transit: VecDeque::new(),
            answers: VecDeque::new(),
            rejected: BTreeSet::new(),
            received: Vec::new(),
            stored: BTreeMap::new(),
            passed_on: BTreeMap::new(),
            completed: BTreeMap::new(),
            loses_messages: false,
            lost_session: false,
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Enqueue(qos) => {
                self.delivery.enqueue(message(self.enqueued, qos), Some(self.enqueued));
                if qos != QoS::AtMostOnce {
                    self.owed.insert(self.enqueued);
                }
                self.enqueued += 1;
            }
            Event::Connect { session } => self.connect(session),
            Event::Disconnect => self.disconnect(),
            Event::Publish => self.publish(),
            Event::Receive => self.receive(),
            Event::Reject => self.reject(),
            Event::Lose => self.loses_messages = true,
            Event::Acknowledge { newest } => {
                let answer = if newest { self.answers.pop_back() } else { self.answers.pop_front() };
                answer.into_iter().for_each(|answer| self.answer(answer));
            }
            Event::AcknowledgeUnknown => assert_eq!(self.delivery.complete(u16::MAX), None),
            Event::TimeOut => {
                while !self.in_transit.is_empty() {
                    self.receive();
                }
                self.disconnect();
            }
        }
        self.check();
    }

    /// Whether the session exists or not, every unacknowledged message is sent again.
    fn connect(&mut self, session: bool) {
        self.disconnect();
        self.delivery.on_connected(LIMITS, session);
        if !session {
            self.stored.clear();
            self.lost_session = true;
        }
    }

    fn disconnect(&mut self) {
        self.delivery.on_disconnected();
        self.in_transit.clear();
        self.answers.clear();
        self.loses_messages = false;
    }

    fn publish(&mut self) {
        match self.delivery.next_action() {
            Action::Publish { message, packet_id: Some(packet_id), .. } => {
                let (number, qos) = (number_of(&message), message.qos);
                assert_eq!(number_of(self.delivery.in_flight(packet_id).unwrap()), number);
                self.in_transit.push_back((packet_id, Sent::Publish { number, qos }));
            }
            Action::Release(packet_id) => self.in_transit.push_back((packet_id, Sent::Release)),
            _ => {}
        }
    }

    fn next_in_transit(&mut self) -> Option<(u16, Sent)> {
        self.in_transit.pop_front().filter(|_| !self.loses_messages)
    }

    fn receive(&mut self) {
        let Some((packet_id, sent)) = self.next_in_transit() else { return };
        let answer = match sent {
            Sent::Release => {
                self.stored.remove(&packet_id);
                Answer::Complete
            }
            Sent::Publish { number, qos } => {
                if !self.received.contains(&number) {
                    self.received.push(number);
                }
                if qos == QoS::ExactlyOnce {
                    // Another message with this identifier would be taken for a duplicate, and be lost.
                    let is_new = !self.stored.contains_key(&packet_id);
                    *self.passed_on.entry(number).or_default() += usize::from(is_new);
                    assert_eq!(
                        *self.stored.entry(packet_id).or_insert(number),
                        number,
                        "{packet_id} is in use"
                    );
                    Answer::Stored
                } else {
                    assert_eq!(self.stored.get(&packet_id), None, "{packet_id} is in use");
                    Answer::Complete
                }
            }
        };
        self.answers.push_back((packet_id, answer));
    }

    /// A message at QoS 2 that is stored is not rejected when it is repeated.
    fn reject(&mut self) {
        let Some((packet_id, sent)) = self.next_in_transit() else { return };
        match sent {
            Sent::Publish { number, .. } if !self.stored.contains_key(&packet_id) => {
                self.rejected.insert(number);
                self.answers.push_back((packet_id, Answer::Complete));
            }
            sent => self.in_transit.push_front((packet_id, sent)),
        }
    }

    fn answer(&mut self, (packet_id, answer): (u16, Answer)) {
        match answer {
            Answer::Complete => self.complete(packet_id),
            Answer::Stored => {
                self.delivery.on_received(packet_id);
                self.in_transit.push_back((packet_id, Sent::Release));
            }
        }
    }

    fn complete(&mut self, packet_id: u16) {
        let (message, number) = self.delivery.complete(packet_id).unwrap();
        assert_eq!(number, Some(number_of(&message)));
        *self.completed.entry(number.unwrap()).or_default() += 1;
        // A duplicate of the acknowledgement has no effect.
        assert_eq!(self.delivery.complete(packet_id), None);
    }

    fn check(&self) {
        let queued = self.delivery.queue.iter().map(|queued| queued.message.packet_size());
        let in_flight = self.delivery.in_flight.iter().map(|m| m.message.packet_size());
        assert_eq!(queued.chain(in_flight).sum::<usize>(), self.delivery.bytes);
        assert!(self.delivery.in_flight.len() <= usize::from(MAX_IN_FLIGHT));
        let best_effort = self.delivery.queue.iter().filter(|queued| queued.message.qos == QoS::AtMostOnce);
        assert_eq!(best_effort.count(), self.delivery.best_effort);
        if !self.lost_session {
            assert!(self.passed_on.values().all(|times| *times <= 1), "{:?}", self.passed_on);
        }
        for (number, times) in &self.completed {
            assert_eq!(*times, 1, "{number} was reported {times} times");
            assert!(
                self.received.contains(number) || self.rejected.contains(number),
                "{number} was reported as complete, but is lost"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Every message above QoS 0 arrives or is reported as rejected; each is reported once, not
    /// before the broker has it; at QoS 2 it arrives once while the broker keeps the session; first arrivals are in the order in which the messages were queued.
    #[test]
    fn nothing_is_lost_over_any_sequence_of_events(
        events in prop::collection::vec(event(), 1..200),
        has_session in any::<bool>(),
    ) {
        let mut model = DeliveryModel::new();
        events.into_iter().for_each(|event| model.step(event));
        model.step(Event::Connect { session: has_session });
        while !model.delivery.is_empty() {
            model.step(Event::Publish);
            model.step(Event::Receive);
            model.step(Event::Acknowledge { newest: false });
        }
        let completed: BTreeSet<u64> = model.completed.keys().copied().collect();
        prop_assert_eq!(&completed, &model.owed);
        let lost: Vec<_> = model.owed.iter().filter(|n| !model.received.contains(n) && !model.rejected.contains(n)).collect();
        prop_assert!(lost.is_empty(), "{:?}", lost);
        // A message that was rejected once and accepted on a later connection arrives out of order.
        let in_order: Vec<_> = model.received.iter().filter(|n| !model.rejected.contains(n)).collect();
        prop_assert!(in_order.is_sorted(), "{:?}", in_order);
    }
}
