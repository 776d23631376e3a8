//! Thermal throttling.

use crate::common::broker::{Broker, publish};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::Subscriber;
use crate::common::thermal::{pause_config, set_temperature};

#[test]
fn new_jobs_wait_until_the_board_is_cooler_and_the_state_has_the_temperature() {
    let board = tempfile::tempdir().unwrap();
    set_temperature(board.path(), 85);
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon =
        Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], &pause_config(board.path())));
    let hot = subscriber.next(|m| m.topic.ends_with("/state") && m.json()["thermal"]["celsius"] == 85);
    assert_eq!(hot.json()["thermal"]["throttles"], serde_json::json!([]));
    subscriber.wait_for_phase("ready");
    publish(&broker, "denoised/test/request", r#"{"id": "later", "steps": 3}"#, &[]);
    daemon.wait_for("the board is at 85 °C, [board] pause_above_c is 80: new jobs wait until it is cooler");
    // The next state reports the job as queued; three steps would be done by then.
    subscriber.next(|m| m.topic.ends_with("/state") && m.json()["queue"] == 1);
    // Below the limit, but within the hysteresis.
    set_temperature(board.path(), 78);
    subscriber.next(|m| m.topic.ends_with("/state") && m.json()["thermal"]["celsius"] == 78);
    assert!(!subscriber.seen.iter().any(|m| m.topic.contains("/result/") || m.topic.contains("/progress/")));
    set_temperature(board.path(), 70);
    daemon.wait_for("the board is at 70 °C, [board] pause_above_c is 80: new jobs start again");
    subscriber.on("denoised/test/result/later");
    assert_eq!(daemon.terminate(), Some(0));
}
