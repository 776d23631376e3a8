//! Table tests of the subscriptions.

use super::*;

const OWN: [&str; 5] = ["d/request", "d/cancel", "d/model/load", "d/model/unload", "d/claim"];
const GRANTED: Result<QoS, Reason> = Ok(QoS::AtLeastOnce);

fn denied() -> Reason {
    Reason::without_advice("denied")
}

/// The topic `camera`, which was fetched or followed.
fn refused(was_fetched: bool, was_followed: bool) -> RefusedTopic {
    RefusedTopic { topic: "camera".to_owned(), was_fetched, was_followed }
}

fn subscriptions() -> Subscriptions {
    Subscriptions::new(&Topics::new("d").with_shared_queue(Some(("$share/g/jobs", "jobs"))))
}

/// Sends the packets that are due, and returns their filters.
fn send(subscriptions: &mut Subscriptions, now: Instant) -> Vec<Vec<String>> {
    std::iter::from_fn(|| subscriptions.next_packet(now))
        .map(|filters| filters.into_iter().map(|filter| filter.path).collect())
        .collect()
}

#[test]
fn the_own_topics_are_answered_before_any_other_filter_is_sent() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    assert_eq!(send(&mut subscriptions, now), [[""; 0]; 0]);
    subscriptions.on_connected(true, now);
    subscriptions.add_fetch("camera");
    assert_eq!(send(&mut subscriptions, now), [OWN]);
    assert_eq!(
        subscriptions.on_suback(vec![GRANTED, GRANTED], now),
        [Outcome::Subscribed, Outcome::TakesRequests]
    );
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs"], ["camera"]]);
    assert_eq!(subscriptions.on_suback(vec![GRANTED], now), []);
    assert_eq!(send(&mut subscriptions, now), [["d/state"]]);
    assert_eq!(
        subscriptions.on_suback(vec![Err(denied())], now),
        [Outcome::TopicRefused(refused(true, false), denied())]
    );
    assert!(!subscriptions.is_fetched("camera"));
    assert_eq!(subscriptions.on_suback(vec![GRANTED], now), []);
    assert_eq!(subscriptions.next_due(), None);
}

#[test]
fn a_refused_topic_is_reported_once_and_tried_again_until_it_is_granted() {
    let (mut subscriptions, mut now) = (subscriptions(), Instant::now());
    subscriptions.on_connected(true, now);
    send(&mut subscriptions, now);
    let outcomes = subscriptions.on_suback(vec![Err(denied()), GRANTED], now);
    assert_eq!(outcomes, [Outcome::Subscribed]);
    for filter in ["$share/g/jobs", "d/state"] {
        assert_eq!(send(&mut subscriptions, now), [[filter]]);
        subscriptions.on_suback(vec![GRANTED], now);
    }
    for _ in 0..2 {
        now += OWN_RETRY_INTERVAL;
        assert_eq!(subscriptions.next_due(), Some(now));
        assert_eq!(send(&mut subscriptions, now), [["d/request"]]);
        assert_eq!(subscriptions.on_suback(vec![Err(denied())], now), []);
    }
    assert_eq!(subscriptions.refusals().collect::<Vec<_>>(), ["not subscribed to d/request: denied"]);
    now += OWN_RETRY_INTERVAL;
    send(&mut subscriptions, now);
    assert_eq!(subscriptions.on_suback(vec![GRANTED], now), [Outcome::TakesRequests]);
    assert_eq!(subscriptions.refusals().count(), 0);
}

#[test]
fn a_shared_queue_on_which_the_broker_hangs_up_is_left_out_for_a_while() {
    let (mut subscriptions, mut now) = (subscriptions(), Instant::now());
    let connect = |subscriptions: &mut Subscriptions, now| {
        subscriptions.on_connected(true, now);
        assert_eq!(send(subscriptions, now), [OWN]);
        subscriptions.on_suback(vec![GRANTED, GRANTED], now);
        subscriptions.next_packet(now).unwrap()[0].path.clone()
    };
    for _ in 1..MAX_CLOSED {
        assert_eq!(connect(&mut subscriptions, now), "$share/g/jobs");
        subscriptions.on_closed(false, now);
        assert_eq!(subscriptions.refusals().count(), 0);
    }
    assert_eq!(connect(&mut subscriptions, now), "$share/g/jobs");
    subscriptions.on_closed(false, now);
    let refusals: Vec<_> = subscriptions.refusals().collect();
    assert_eq!(
        refusals,
        ["not subscribed to $share/g/jobs: the broker closes the connection on this filter"]
    );
    assert_eq!(connect(&mut subscriptions, now), "d/state");
    subscriptions.on_suback(vec![GRANTED], now);
    // It is tried again on the same connection.
    now += RETRY_INTERVAL;
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs"]]);
    subscriptions.on_closed(false, now);
    assert_eq!(connect(&mut subscriptions, now), "d/state");
}

#[test]
fn a_shared_queue_is_not_sent_to_a_broker_without_shared_subscriptions() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    subscriptions.on_connected(false, now);
    send(&mut subscriptions, now);
    subscriptions.on_suback(vec![GRANTED, GRANTED], now);
    assert_eq!(send(&mut subscriptions, now), [["d/state"]]);
    subscriptions.on_suback(vec![GRANTED], now);
    assert_eq!(subscriptions.next_due(), None);
    // A broker that states the reason is not tried twice.
    subscriptions.on_connected(true, now);
    send(&mut subscriptions, now);
    subscriptions.on_suback(vec![GRANTED, GRANTED], now);
    subscriptions.next_packet(now);
    subscriptions.on_closed(true, now);
    assert_eq!(subscriptions.refusals().count(), 1);
}

#[test]
fn a_topic_at_qos_0_is_served_and_reported() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    subscriptions.on_connected(true, now);
    send(&mut subscriptions, now);
    subscriptions.on_suback(vec![Ok(QoS::AtMostOnce), GRANTED], now);
    let reported: Vec<_> = subscriptions.refusals().collect();
    assert_eq!(
        reported,
        ["the broker grants QoS 0 only for d/request: it does not repeat a message that is lost"]
    );
}

/// The client waited until a moment in the past, so that it turned in a loop until the broker answered.
#[test]
fn nothing_is_due_while_an_answer_or_a_connection_must_come_first() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    subscriptions.on_connected(true, now);
    assert_eq!(subscriptions.next_due(), Some(now));
    assert_eq!(send(&mut subscriptions, now), [OWN]);
    assert_eq!(subscriptions.next_due(), None);
    subscriptions.on_suback(vec![GRANTED, Err(denied())], now);
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs"]]);
    // Only the refused topic may be sent before the shared queue is answered.
    assert_eq!(subscriptions.next_due(), Some(now + OWN_RETRY_INTERVAL));
    subscriptions.on_closed(false, now);
    assert_eq!(subscriptions.next_due(), None);
    // The connection that follows is not accepted yet.
    assert_eq!(send(&mut subscriptions, now + RETRY_INTERVAL), [[""; 0]; 0]);
    subscriptions.on_connected(true, now + RETRY_INTERVAL);
    assert_eq!(subscriptions.next_due(), Some(now + RETRY_INTERVAL));
}

#[test]
fn a_followed_topic_is_sent_on_each_connection_until_nothing_needs_it() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    subscriptions.add_follow("camera");
    for _ in 0..2 {
        subscriptions.on_connected(false, now);
        send(&mut subscriptions, now);
        subscriptions.on_suback(vec![GRANTED, GRANTED], now);
        assert_eq!(send(&mut subscriptions, now), [["d/state"], ["camera"]]);
        subscriptions.on_suback(vec![GRANTED], now);
        assert_eq!(subscriptions.on_suback(vec![Ok(QoS::AtMostOnce)], now), []);
    }
    // Another job fetches the same topic: the filter is sent again for the retained message.
    subscriptions.add_fetch("camera");
    assert_eq!(send(&mut subscriptions, now), [["camera"]]);
    subscriptions.remove_fetch("camera");
    assert!(subscriptions.is_followed("camera") && !subscriptions.is_fetched("camera"));
    assert_eq!(
        subscriptions.on_suback(vec![Err(denied())], now),
        [Outcome::TopicRefused(refused(false, true), denied())]
    );
    assert!(!subscriptions.is_followed("camera"));
    subscriptions.add_follow("other");
    subscriptions.remove_follow("other");
    assert_eq!(send(&mut subscriptions, now), [[""; 0]; 0]);
}

#[test]
fn the_queue_of_a_model_is_joined_and_left_on_every_connection() {
    let (mut subscriptions, now) = (subscriptions(), Instant::now());
    subscriptions.add_queue("$share/g/jobs/a", now);
    subscriptions.on_connected(true, now);
    assert_eq!(send(&mut subscriptions, now), [OWN]);
    subscriptions.on_suback(vec![GRANTED; 5], now);
    for filter in ["$share/g/jobs", "$share/g/jobs/a", "d/state"] {
        assert_eq!(send(&mut subscriptions, now), [[filter]]);
        subscriptions.on_suback(vec![GRANTED], now);
    }
    subscriptions.remove_queue("$share/g/jobs/a");
    subscriptions.add_queue("$share/g/jobs/b", now);
    assert!(subscriptions.has_queue("$share/g/jobs/b") && !subscriptions.has_queue("$share/g/jobs/a"));
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs/b"]]);
    // The answer to a filter that is no longer wanted changes nothing.
    subscriptions.remove_queue("$share/g/jobs/b");
    subscriptions.on_suback(vec![Err(denied())], now);
    assert_eq!(subscriptions.refusals().count(), 0);
    subscriptions.add_queue("$share/g/jobs/a", now);
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs/a"]]);
    subscriptions.on_closed(false, now);
    subscriptions.on_connected(true, now);
    send(&mut subscriptions, now);
    subscriptions.on_suback(vec![GRANTED; 5], now);
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs"]]);
    subscriptions.on_suback(vec![GRANTED], now);
    assert_eq!(send(&mut subscriptions, now), [["$share/g/jobs/a"]]);
}

#[test]
fn home_assistant_s_topics_are_sent_one_packet_at_a_time_and_its_birth_message_at_qos_0() {
    let (topics, now) = (Topics::new("d").with_home_assistant(Some("ha")), Instant::now());
    let mut subscriptions = Subscriptions::new(&topics);
    subscriptions.on_connected(true, now);
    assert_eq!(send(&mut subscriptions, now), [["d/request", "d/cancel", "d/model/load", "d/model/unload"]]);
    subscriptions.on_suback(vec![GRANTED; 4], now);
    let commands = ["d/home_assistant/settings/set", "d/home_assistant/draw", "d/home_assistant/cancel"];
    assert_eq!(send(&mut subscriptions, now), [commands]);
    assert_eq!(subscriptions.on_suback(vec![GRANTED, Ok(QoS::AtMostOnce), GRANTED], now), []);
    assert_eq!(send(&mut subscriptions, now), [["ha/status"]]);
    subscriptions.on_suback(vec![Ok(QoS::AtMostOnce)], now);
    assert_eq!(send(&mut subscriptions, now), [["d/state"]]);
    assert_eq!(
        subscriptions.refusals().collect::<Vec<_>>(),
        ["the broker grants QoS 0 only for d/home_assistant/draw: it does not repeat a message that is lost"]
    );
}
