//! Table tests of the delivery, and a random test against a model of a connection and a broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const MAX_IN_FLIGHT: usize = 4;
/// The limits of a broker with every feature.
const LIMITS: DeliveryLimits = DeliveryLimits {
    max_packet_size: 1000,
    receive_maximum: 65_535,
    max_qos: QoS::ExactlyOnce,
    retain: true,
};

fn message(n: u64, qos: QoS) -> Message {
    Message { qos, ..Message::new("t".to_owned(), n.to_string()) }
}

fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

/// Publishes until the next action is another one, and returns the messages' numbers.
fn publish_all(delivery: &mut Delivery) -> Vec<u64> {
    std::iter::from_fn(|| match delivery.next_action() {
        Action::Publish(message) => Some(number_of(&message)),
        _ => None,
    })
    .collect()
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..5).for_each(|n| delivery.enqueue(message(n, QoS::AtLeastOnce), Some(n)));
    assert_eq!(delivery.next_action(), Action::Wait);
    delivery.on_connected(LIMITS);
    assert_eq!(publish_all(&mut delivery), [0, 1, 2]);
    (1..=3).for_each(|packet_id| delivery.assign_packet_id(packet_id));
    assert_eq!(delivery.complete(2), Some((message(1, QoS::AtLeastOnce), Some(1))));
    assert_eq!(delivery.complete(2), None);
    assert_eq!(publish_all(&mut delivery), [3]);
    delivery.on_disconnected();
    delivery.on_connected(LIMITS);
    assert_eq!(publish_all(&mut delivery), [0, 2, 3]);
}

#[test]
fn messages_at_qos_0_are_dropped_while_disconnected() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.enqueue(message(0, QoS::AtMostOnce), None);
    assert!(delivery.is_empty());
    delivery.on_connected(LIMITS);
    delivery.enqueue(message(1, QoS::AtMostOnce), None);
    delivery.on_disconnected();
    assert!(delivery.is_empty() && delivery.bytes == 0);
}

#[test]
fn queued_messages_at_qos_0_are_bounded_if_the_broker_is_slow() {
    let mut delivery = Delivery::new(1 << 20, 1);
    delivery.on_connected(LIMITS);
    delivery.enqueue(message(0, QoS::AtLeastOnce), None);
    assert_eq!(publish_all(&mut delivery), [0]);
    (1..1000).for_each(|n| delivery.enqueue(message(n, QoS::AtMostOnce), None));
    delivery.enqueue(message(1000, QoS::AtLeastOnce), None);
    delivery.assign_packet_id(1);
    assert!(delivery.complete(1).is_some());
    let expected: Vec<u64> = (1..=MAX_BEST_EFFORT as u64).chain([1000]).collect();
    assert_eq!(publish_all(&mut delivery), expected);
}

#[test]
fn a_message_over_the_maximum_packet_size_is_returned() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { max_packet_size: 20, ..LIMITS });
    let large = Message::new("t".to_owned(), vec![0; 30]);
    delivery.enqueue(message(0, QoS::AtLeastOnce), None);
    delivery.enqueue(large.clone(), Some(1));
    delivery.enqueue(message(2, QoS::AtLeastOnce), None);
    assert!(matches!(delivery.next_action(), Action::Publish(_)));
    let rejected = Action::RejectTooLarge { message: large, number: Some(1), limit: 20 };
    assert_eq!(delivery.next_action(), rejected);
    assert_eq!(publish_all(&mut delivery), [2]);
}

#[test]
fn a_broker_with_qos_0_only_gets_every_message_once_it_is_written() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { max_qos: QoS::AtMostOnce, ..LIMITS });
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    delivery.enqueue(message(1, QoS::AtMostOnce), None);
    delivery.enqueue(message(2, QoS::AtLeastOnce), Some(2));
    let qos = |delivery: &mut Delivery| match delivery.next_action() {
        Action::Publish(message) => message.qos,
        other => panic!("{other:?}"),
    };
    assert_eq!([(); 3].map(|()| qos(&mut delivery)), [QoS::AtMostOnce; 3]);
    assert_eq!(delivery.next_action(), Action::Wait);
    assert_eq!((delivery.on_written(), delivery.on_written()), (Some(0), None));
    // The third was not written, so it is sent again, now to a broker with every QoS.
    delivery.on_disconnected();
    delivery.on_connected(LIMITS);
    assert_eq!(delivery.next_action(), Action::Publish(message(2, QoS::AtLeastOnce)));
    assert_eq!(delivery.on_written(), None);
}

#[test]
fn a_broker_without_retained_messages_and_with_a_small_window_gets_what_it_accepts() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { receive_maximum: 1, retain: false, ..LIMITS });
    let retained = |n| Message { retain: true, ..message(n, QoS::AtLeastOnce) };
    (0..2).for_each(|n| delivery.enqueue(retained(n), None));
    assert_eq!(delivery.next_action(), Action::Publish(message(0, QoS::AtLeastOnce)));
    assert_eq!(delivery.next_action(), Action::Wait);
}

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

/// A connection and a broker, with the messages that they hold.
struct DeliveryModel {
    delivery: Delivery,
    enqueued: u64,
    /// The messages above QoS 0, which must arrive.
    owed: BTreeSet<u64>,
    /// Messages in transit to the broker, with their packet identifiers.
    in_transit: VecDeque<(u16, u64)>,
    /// The packet identifiers of acknowledgements and rejections in transit to the client.
    answers: VecDeque<u16>,
    rejected: BTreeSet<u64>,
    /// The messages that the broker received, in the order of their first arrival.
    received: Vec<u64>,
    /// How often each number was reported as complete.
    completed: BTreeMap<u64, usize>,
    packet_id: u16,
    /// Whether all messages sent on this connection are lost.
    loses_messages: bool,
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
            completed: BTreeMap::new(),
            packet_id: 0,
            loses_messages: false,
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
            Event::Reject => {
                if let Some((packet_id, number)) = self.next_in_transit().filter(|(id, _)| *id > 0) {
                    self.rejected.insert(number);
                    self.answers.push_back(packet_id);
                }
            }
            Event::Lose => self.loses_messages = true,
            Event::Acknowledge { newest } => {
                let answer = if newest { self.answers.pop_back() } else { self.answers.pop_front() };
                answer.into_iter().for_each(|packet_id| self.complete(packet_id));
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
        self.delivery.on_connected(LIMITS);
        if !session {
            self.packet_id = 0;
        }
    }

    fn disconnect(&mut self) {
        self.delivery.on_disconnected();
        self.in_transit.clear();
        self.answers.clear();
        self.loses_messages = false;
    }

    fn publish(&mut self) {
        let Action::Publish(message) = self.delivery.next_action() else { return };
        let number = number_of(&message);
        if message.qos == QoS::AtMostOnce {
            self.in_transit.push_back((0, number));
            return;
        }
        self.packet_id = self.packet_id % 1000 + 1;
        self.delivery.assign_packet_id(self.packet_id);
        assert_eq!(number_of(self.delivery.in_flight(self.packet_id).unwrap()), number);
        self.in_transit.push_back((self.packet_id, number));
    }

    fn next_in_transit(&mut self) -> Option<(u16, u64)> {
        self.in_transit.pop_front().filter(|_| !self.loses_messages)
    }

    fn receive(&mut self) {
        let Some((packet_id, number)) = self.next_in_transit() else { return };
        if packet_id > 0 {
            self.answers.push_back(packet_id);
            if !self.received.contains(&number) {
                self.received.push(number);
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
        let in_flight = self.delivery.in_flight.iter().map(|m| m.queued.message.packet_size());
        assert_eq!(queued.chain(in_flight).sum::<usize>(), self.delivery.bytes);
        assert!(self.delivery.in_flight.len() <= MAX_IN_FLIGHT);
        let best_effort = self.delivery.queue.iter().filter(|queued| queued.message.qos == QoS::AtMostOnce);
        assert_eq!(best_effort.count(), self.delivery.best_effort);
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
    /// before the broker has it; first arrivals are in the order in which the messages were queued.
    #[test]
    fn nothing_is_lost_over_any_sequence_of_events(events in prop::collection::vec(event(), 1..200)) {
        let mut model = DeliveryModel::new();
        events.into_iter().for_each(|event| model.step(event));
        model.step(Event::Connect { session: false });
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

/// Connects, sends what may be sent, and loses the connection. Returns what was sent and what was given up.
fn closed_connection(delivery: &mut Delivery, is_by_broker: bool) -> (Vec<u64>, Option<u64>) {
    delivery.on_connected(LIMITS);
    let sent = publish_all(delivery);
    delivery.on_disconnected();
    let given_up = delivery.on_closed(is_by_broker, |message| number_of(message) == 1);
    (sent, given_up.and_then(|(_, number)| number))
}

#[test]
fn one_message_that_closed_the_connection_stopped_all_others() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..5).for_each(|n| delivery.enqueue(message(n, QoS::AtLeastOnce), Some(n)));
    // It is unclear which one it was, or whether the broker restarts.
    for _ in 0..2 {
        assert_eq!(closed_connection(&mut delivery, true), (vec![0, 1, 2], None));
    }
    delivery.on_connected(LIMITS);
    assert_eq!(publish_all(&mut delivery), [0]);
    delivery.assign_packet_id(1);
    delivery.complete(1);
    assert_eq!(publish_all(&mut delivery), [1]);
    delivery.on_disconnected();
    assert_eq!(delivery.on_closed(true, |_| true), None);
    assert_eq!(closed_connection(&mut delivery, true), (vec![1], None));
    // A failure of the network says nothing about the message.
    assert_eq!(closed_connection(&mut delivery, false), (vec![1], None));
    for given_up in [None, None, Some(1)] {
        assert_eq!(closed_connection(&mut delivery, true), (vec![1], given_up));
    }
    // The daemon's own messages are never given up.
    for _ in 0..5 {
        assert_eq!(closed_connection(&mut delivery, true), (vec![2], None));
    }
    delivery.on_connected(LIMITS);
    assert_eq!(publish_all(&mut delivery), [2]);
    delivery.assign_packet_id(1);
    delivery.complete(1);
    assert_eq!(publish_all(&mut delivery), [3, 4]);
}
