//! What is sent when, over connections that end, and with brokers that lack features.

mod model;

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
