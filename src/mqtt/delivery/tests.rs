//! Table tests of the delivery, and a random test against a model of a connection and a broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const MAX_IN_FLIGHT: u16 = 4;
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
        Action::Publish { message, .. } => Some(number_of(&message)),
        _ => None,
    })
    .collect()
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..5).for_each(|n| delivery.enqueue(message(n, QoS::AtLeastOnce), Some(n)));
    assert_eq!(delivery.next_action(), Action::Wait);
    delivery.on_connected(LIMITS, false);
    assert_eq!(publish_all(&mut delivery), [0, 1, 2]);
    assert_eq!(delivery.complete(2), Some((message(1, QoS::AtLeastOnce), Some(1))));
    assert_eq!(delivery.complete(2), None);
    assert_eq!(publish_all(&mut delivery), [3]);
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, false);
    assert_eq!(publish_all(&mut delivery), [0, 2, 3]);
}

/// The next action, with the message's number: packet identifier and whether the message is repeated.
fn next_packet(delivery: &mut Delivery) -> (Option<u64>, u16, bool) {
    match delivery.next_action() {
        Action::Publish { message, packet_id, is_repeated } => {
            (Some(number_of(&message)), packet_id.unwrap(), is_repeated)
        }
        Action::Release(packet_id) => (None, packet_id, false),
        other => panic!("{other:?}"),
    }
}

/// Packet identifiers began at 1 on every connection, although the session keeps those at QoS 2.
#[test]
fn a_kept_session_gets_each_message_with_its_packet_identifier() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..4).for_each(|n| delivery.enqueue(message(n, QoS::ExactlyOnce), Some(n)));
    delivery.on_connected(LIMITS, false);
    assert_eq!(publish_all(&mut delivery), [0, 1, 2]);
    delivery.on_received(1);
    delivery.on_received(2);
    assert!(delivery.complete(1).is_some());
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, true);
    // Message 1 is with the broker, so that only PUBREL is sent; message 2 is repeated; message 3 is new.
    let packets = [(); 3].map(|()| next_packet(&mut delivery));
    assert_eq!(packets, [(None, 2, false), (Some(2), 3, true), (Some(3), 1, false)]);
    assert_eq!(delivery.complete(2), Some((message(1, QoS::ExactlyOnce), Some(1))));
    // Without the session, both are new messages.
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, false);
    let packets = [(); 2].map(|()| next_packet(&mut delivery));
    assert_eq!(packets, [(Some(2), 2, false), (Some(3), 3, false)]);
}

#[test]
fn packet_identifiers_that_an_earlier_process_left_are_released_before_they_are_used() {
    let mut delivery = Delivery::new(1 << 20, 2).with_leftover_ids();
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    delivery.on_connected(LIMITS, true);
    assert_eq!([(); 2].map(|()| next_packet(&mut delivery)), [(None, 1, false), (None, 2, false)]);
    assert_eq!(delivery.next_action(), Action::Wait);
    assert_eq!(delivery.complete(2), None);
    assert_eq!(next_packet(&mut delivery), (Some(0), 2, false));
    // The first was not answered, so it is released again; without a session there is nothing to release.
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, true);
    assert_eq!([(); 2].map(|()| next_packet(&mut delivery)), [(None, 1, false), (Some(0), 2, true)]);
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, false);
    assert_eq!(next_packet(&mut delivery).0, Some(0));
}

#[test]
fn a_broker_that_does_not_know_a_released_identifier_or_has_no_qos_2_is_served() {
    let mut delivery = Delivery::new(1 << 20, 1).with_leftover_ids();
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    for _ in 0..MAX_RELEASE_ATTEMPTS {
        delivery.on_connected(LIMITS, true);
        assert_eq!(delivery.next_action(), Action::Release(1));
        assert_eq!(delivery.next_action(), Action::Wait);
        delivery.on_disconnected();
    }
    delivery.on_connected(LIMITS, true);
    assert_eq!(next_packet(&mut delivery), (Some(0), 1, false));

    let mut delivery = Delivery::new(1 << 20, 1).with_leftover_ids();
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    delivery.on_connected(DeliveryLimits { max_qos: QoS::AtLeastOnce, ..LIMITS }, true);
    assert_eq!(next_packet(&mut delivery), (Some(0), 1, false));
}

#[test]
fn a_rejected_identifier_is_not_repeated_and_is_released() {
    let mut delivery = Delivery::new(1 << 20, 2);
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    delivery.on_connected(LIMITS, false);
    assert_eq!(next_packet(&mut delivery), (Some(0), 1, false));
    // For example with the reason code "packet identifier in use".
    delivery.on_rejected(1);
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, true);
    assert_eq!([(); 2].map(|()| next_packet(&mut delivery)), [(None, 1, false), (Some(0), 2, false)]);
}

#[test]
fn messages_at_qos_0_are_dropped_while_disconnected() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.enqueue(message(0, QoS::AtMostOnce), None);
    assert!(delivery.is_empty());
    delivery.on_connected(LIMITS, false);
    delivery.enqueue(message(1, QoS::AtMostOnce), None);
    delivery.on_disconnected();
    assert!(delivery.is_empty() && delivery.bytes == 0);
}

#[test]
fn queued_messages_at_qos_0_are_bounded_if_the_broker_is_slow() {
    let mut delivery = Delivery::new(1 << 20, 1);
    delivery.on_connected(LIMITS, false);
    delivery.enqueue(message(0, QoS::AtLeastOnce), None);
    assert_eq!(publish_all(&mut delivery), [0]);
    (1..1000).for_each(|n| delivery.enqueue(message(n, QoS::AtMostOnce), None));
    delivery.enqueue(message(1000, QoS::AtLeastOnce), None);
    assert!(delivery.complete(1).is_some());
    let expected: Vec<u64> = (1..=MAX_BEST_EFFORT as u64).chain([1000]).collect();
    assert_eq!(publish_all(&mut delivery), expected);
}

#[test]
fn a_message_over_the_maximum_packet_size_is_returned() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { max_packet_size: 20, ..LIMITS }, false);
    let large = Message::new("t".to_owned(), vec![0; 30]);
    delivery.enqueue(message(0, QoS::AtLeastOnce), None);
    delivery.enqueue(large.clone(), Some(1));
    delivery.enqueue(message(2, QoS::AtLeastOnce), None);
    assert!(matches!(delivery.next_action(), Action::Publish { .. }));
    let rejected = Action::RejectTooLarge { message: large, number: Some(1), limit: 20 };
    assert_eq!(delivery.next_action(), rejected);
    assert_eq!(publish_all(&mut delivery), [2]);
}

#[test]
fn a_broker_with_qos_0_only_gets_every_message_once_it_is_written() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { max_qos: QoS::AtMostOnce, ..LIMITS }, false);
    delivery.enqueue(message(0, QoS::ExactlyOnce), Some(0));
    delivery.enqueue(message(1, QoS::AtMostOnce), None);
    delivery.enqueue(message(2, QoS::AtLeastOnce), Some(2));
    let qos = |delivery: &mut Delivery| match delivery.next_action() {
        Action::Publish { message, .. } => message.qos,
        other => panic!("{other:?}"),
    };
    assert_eq!([(); 3].map(|()| qos(&mut delivery)), [QoS::AtMostOnce; 3]);
    assert_eq!(delivery.next_action(), Action::Wait);
    assert_eq!((delivery.on_written(), delivery.on_written()), (Some(0), None));
    // The third was not written, so it is sent again, now to a broker with every QoS.
    delivery.on_disconnected();
    delivery.on_connected(LIMITS, false);
    assert_eq!(publish_all(&mut delivery), [2]);
    assert_eq!(delivery.on_written(), None);
}

#[test]
fn a_broker_without_retained_messages_and_with_a_small_window_gets_what_it_accepts() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.on_connected(DeliveryLimits { receive_maximum: 1, retain: false, ..LIMITS }, false);
    let retained = |n| Message { retain: true, ..message(n, QoS::AtLeastOnce) };
    (0..2).for_each(|n| delivery.enqueue(retained(n), None));
    let Action::Publish { message: sent, .. } = delivery.next_action() else { panic!() };
    assert_eq!(sent, message(0, QoS::AtLeastOnce));
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

/// Connects, sends what may be sent, and loses the connection. Returns what was sent and what was given up.
fn closed_connection(delivery: &mut Delivery, is_by_broker: bool) -> (Vec<u64>, Option<u64>) {
    delivery.on_connected(LIMITS, false);
    let sent = publish_all(delivery);
    delivery.on_disconnected();
    let given_up = delivery.on_closed(is_by_broker, |message| number_of(message) == 1);
    (sent, given_up.and_then(|(_, number)| number))
}

/// Sends and completes one message. Returns its number.
fn complete_next(delivery: &mut Delivery) -> Option<u64> {
    let Action::Publish { packet_id, .. } = delivery.next_action() else { return None };
    // No other message is sent meanwhile.
    assert_eq!(delivery.next_action(), Action::Wait);
    delivery.complete(packet_id?)?.1
}

#[test]
fn one_message_that_closed_the_connection_stopped_all_others() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..5).for_each(|n| delivery.enqueue(message(n, QoS::AtLeastOnce), Some(n)));
    // It is unclear which one it was, or whether the broker restarts.
    for _ in 0..2 {
        assert_eq!(closed_connection(&mut delivery, true), (vec![0, 1, 2], None));
    }
    delivery.on_connected(LIMITS, false);
    assert_eq!(complete_next(&mut delivery), Some(0));
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
    delivery.on_connected(LIMITS, false);
    assert_eq!(complete_next(&mut delivery), Some(2));
    assert_eq!(publish_all(&mut delivery), [3, 4]);
}
