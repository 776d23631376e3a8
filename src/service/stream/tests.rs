//! Tests of streams: tables, and every order of events.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(every_ms: u64, deadline: Option<Duration>) -> StreamSettings {
    let (every, silence) = (Duration::from_millis(every_ms), 10 * SECOND);
    StreamSettings { topic: "camera/front".to_owned(), every, silence, deadline }
}

fn message(number: u64) -> NewestMessage {
    NewestMessage { payload: picture(number), received: number }
}

fn picture(number: u64) -> Bytes {
    number.to_string().into()
}

fn started(every_ms: u64) -> (Stream, Instant) {
    let now = Instant::now();
    (Stream::new(settings(every_ms, None), now, now, true), now)
}

fn bad_picture() -> JobError {
    JobError::of_field(ErrorCode::OutOfRange, "image", "image: it is empty")
}

#[test]
fn the_newest_picture_is_drawn_and_older_ones_are_dropped() {
    let (mut stream, now) = started(0);
    stream.on_newest(&message(7), now);
    stream.on_newest(&message(7), now);
    assert_eq!(stream.next_action(now, true), StreamAction::Draw(picture(7)));
    stream.on_newest(&message(8), now);
    stream.on_newest(&message(11), now);
    assert_eq!(stream.next_action(now, true), StreamAction::Wait);
    stream.on_drawn(now + SECOND);
    assert_eq!((stream.index(), stream.dropped), (1, 3));
    assert_eq!(stream.next_action(now + SECOND, true), StreamAction::Draw(picture(11)));
    stream.on_drawn(now + 3 * SECOND);
    let expected =
        json!({"topic": "camera/front", "drawn": 2, "dropped": 3, "refused": 0, "per_second": 0.5});
    assert_eq!(serde_json::to_value(stream.report()).unwrap(), expected);
}

#[test]
fn pictures_start_at_the_interval_with_the_newest_one() {
    let (mut stream, now) = started(500);
    let ms = |ms| now + Duration::from_millis(ms);
    stream.on_newest(&message(1), now);
    assert_eq!(stream.next_action(now, true), StreamAction::Draw(picture(1)));
    stream.on_drawn(ms(100));
    stream.on_newest(&message(2), ms(200));
    assert_eq!(stream.next_action(ms(200), true), StreamAction::Wait);
    assert_eq!(stream.due(true), Some(ms(500)));
    stream.on_newest(&message(3), ms(499));
    assert_eq!(stream.next_action(ms(500), false), StreamAction::Wait);
    assert_eq!(stream.due(false), None);
    assert_eq!(stream.next_action(ms(500), true), StreamAction::Draw(picture(3)));
    // A picture that takes longer than the interval is followed at once.
    stream.on_newest(&message(4), ms(600));
    stream.on_drawn(ms(1700));
    assert_eq!(stream.next_action(ms(1700), true), StreamAction::Draw(picture(4)));
}

#[test]
fn a_camera_that_stops_ends_the_stream_but_a_lost_connection_does_not() {
    let (mut stream, now) = started(0);
    assert_eq!(stream.due(true), Some(now + 10 * SECOND));
    stream.on_newest(&message(1), now + 9 * SECOND);
    assert_eq!(stream.next_action(now + 9 * SECOND, true), StreamAction::Draw(picture(1)));
    // However long a picture takes, the next one may have arrived meanwhile.
    assert_eq!((stream.due(true), stream.next_action(now + 60 * SECOND, true)), (None, StreamAction::Wait));
    stream.on_drawn(now + 10 * SECOND);
    stream.on_disconnected();
    assert_eq!(stream.next_action(now + 100 * SECOND, true), StreamAction::Wait);
    stream.on_connected(now + 100 * SECOND);
    assert_eq!(stream.due(true), Some(now + 110 * SECOND));
    let StreamAction::End(StreamEnd::Failed(error)) = stream.next_action(now + 110 * SECOND, true) else {
        panic!("the stream goes on")
    };
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::NoPicture, Some("stream.topic")));
    assert!(
        error.message.starts_with(
            "no picture arrived on camera/front for 10000 ms (stream.silence_ms), after 1 picture was drawn; check"
        ),
        "{error}"
    );
}

#[test]
fn a_picture_that_cannot_be_drawn_ends_the_stream_only_if_no_other_can() {
    let (mut stream, now) = started(0);
    stream.on_newest(&message(1), now);
    stream.next_action(now, true);
    assert_eq!(stream.on_refused(bad_picture(), now), None);
    let StreamAction::End(StreamEnd::Failed(error)) = stream.next_action(now, true) else {
        panic!("the stream goes on")
    };
    assert_eq!(error.message, "a picture on camera/front cannot be drawn: image: it is empty");

    let (mut stream, now) = started(0);
    let draw = |stream: &mut Stream, number: u64, is_good: bool| {
        let time = now + u32::try_from(number).unwrap() * SECOND;
        stream.on_newest(&message(number), time);
        assert_eq!(stream.next_action(time, true), StreamAction::Draw(picture(number)));
        if is_good {
            stream.on_drawn(time);
        } else {
            // Only the first of several in a row is reported.
            assert_eq!(stream.on_refused(bad_picture(), time).is_some(), matches!(number, 2 | 4));
        }
        stream.next_action(time, true)
    };
    for (number, is_good) in [(1, true), (2, false), (3, true), (4, false), (5, false), (13, false)] {
        assert_eq!(draw(&mut stream, number, is_good), StreamAction::Wait, "{number}");
    }
    // Faults since the fourth second.
    assert_eq!(stream.due(true), Some(now + 14 * SECOND));
    assert!(matches!(stream.next_action(now + 14 * SECOND, true), StreamAction::End(StreamEnd::Failed(_))));
    assert_eq!((stream.drawn, stream.refused), (2, 4));
}

#[test]
fn the_deadline_and_a_cancellation_abort_the_picture_that_is_drawn() {
    let now = Instant::now();
    let mut stream = Stream::new(settings(0, Some(5 * SECOND)), now, now + SECOND, true).resumed();
    stream.on_newest(&message(1), now + SECOND);
    stream.next_action(now + SECOND, true);
    assert_eq!(stream.due(true), Some(now + 5 * SECOND));
    assert_eq!(stream.next_action(now + 5 * SECOND, true), StreamAction::Abort);
    stream.end_with(StreamEnd::Cancelled);
    assert_eq!((stream.next_action(now + 5 * SECOND, true), stream.due(true)), (StreamAction::Wait, None));
    stream.on_newest(&message(2), now + 5 * SECOND);
    stream.on_aborted();
    assert_eq!(stream.next_action(now + 5 * SECOND, true), StreamAction::End(StreamEnd::Deadline));
    let (report, elapsed_ms) = stream.final_report(&StreamEnd::Deadline, now + 5 * SECOND);
    let expected = json!({"topic": "camera/front", "drawn": 0, "dropped": 2, "refused": 0, "per_second": 0.0,
        "resumed": true, "ended": "deadline"});
    assert_eq!((serde_json::to_value(report).unwrap(), elapsed_ms), (expected, 4000));
}

/// A topic that two streams follow one after the other is counted anew.
#[test]
fn pictures_that_are_counted_anew_are_new() {
    let (mut stream, now) = started(0);
    stream.on_newest(&message(100), now);
    stream.on_newest(&NewestMessage { payload: picture(101), received: 2 }, now);
    assert_eq!(stream.next_action(now, true), StreamAction::Draw(picture(101)));
    assert_eq!(stream.dropped, 2);
}

#[derive(Debug, Clone)]
enum Event {
    Arrive(u64),
    Drawn,
    Refused,
    Disconnect,
    Connect,
    Cancel,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..5_u64).prop_map(Event::Arrive),
        6 => Just(Event::Drawn),
        1 => Just(Event::Refused),
        1 => Just(Event::Disconnect),
        1 => Just(Event::Connect),
        1 => Just(Event::Cancel),
        6 => (0..4000_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Every picture is drawn, dropped or refused once; starts keep the interval; and the newest one is drawn.
    #[test]
    fn every_picture_is_counted_once_and_the_newest_is_drawn(
        every_ms in prop_oneof![Just(0), 1..2000_u64],
        events in prop::collection::vec(event(), 0..80),
    ) {
        let (mut stream, mut now) = started(every_ms);
        let (mut received, mut last_start, mut end) = (0, None, None);
        for event in events.into_iter().chain([Event::Cancel, Event::Drawn]) {
            match event {
                Event::Arrive(count) => {
                    received += if received == 0 { 1 } else { count };
                    stream.on_newest(&message(received), now);
                }
                Event::Drawn if stream.is_aborted() => stream.on_aborted(),
                Event::Drawn if stream.is_drawing() => stream.on_drawn(now),
                Event::Refused if stream.is_drawing() => drop(stream.on_refused(bad_picture(), now)),
                Event::Drawn | Event::Refused => {}
                Event::Disconnect => stream.on_disconnected(),
                Event::Connect => stream.on_connected(now),
                Event::Cancel => stream.end_with(StreamEnd::Cancelled),
                Event::Wait(ms) => now += Duration::from_millis(ms),
            }
            match stream.next_action(now, true) {
                StreamAction::Draw(drawn) => {
                    prop_assert_eq!(drawn, picture(received));
                    prop_assert!(last_start.is_none_or(|last| now >= last + Duration::from_millis(every_ms)));
                    last_start = Some(now);
                }
                StreamAction::End(reason) => {
                    end = Some(reason);
                    break;
                }
                StreamAction::Abort => prop_assert!(stream.is_aborted()),
                StreamAction::Wait => {
                    // No timer is overdue, which would turn the service in a loop.
                    prop_assert!(stream.due(true).is_none_or(|due| due > now));
                }
            }
        }
        prop_assert!(end.is_some());
        prop_assert_eq!(stream.drawn + stream.dropped + stream.refused, received);
    }
}
