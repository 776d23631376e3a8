//! What the daemon and `doctor` say of a broker that they cannot use, and how often the daemon tries.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::broker::{Broker, publish};
use crate::common::commands::denoised;
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::mock_broker::serve;
use crate::common::subscriber::Subscriber;

const MACHINES: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

/// A root directory with this machine-id.
fn machine(id: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/machine-id"), id).unwrap();
    root
}

fn start(broker: &Broker, root: &Path, more: &str) -> Daemon {
    let configuration = configuration(broker, "board", &[&golden("gaussian")], "");
    let configuration = configuration.replace("[models]", &format!("{more}\n[models]"));
    Daemon::with_variables(&configuration, &[("DENOISED_BOARD__ROOT", root.display().to_string())])
}

fn daemon_at(url: &str) -> Daemon {
    let models = golden("gaussian").display().to_string();
    Daemon::start(&format!("node = \"a\"\n[mqtt]\nurl = \"{url}\"\n[models]\npaths = [{models:?}]\n"))
}

/// Returns what `doctor` prints about the broker.
fn doctor(url: &str) -> String {
    let mut command: Command = denoised();
    let output = command.arg("doctor").env("DENOISED_MQTT__URL", url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let start = text.find(" broker ").unwrap_or_else(|| panic!("{text}"));
    let mut lines = text[start..].lines();
    format!("{}\n{}", lines.next().unwrap(), lines.next().unwrap())
}

/// Two daemons with one client id took over from each other four times a second, without naming the cause.
#[test]
fn two_daemons_with_one_client_id_name_the_cause_and_take_over_rarely() {
    let broker = Broker::start();
    let root = machine(MACHINES[0]);
    let (mut first, mut second) = (start(&broker, root.path(), ""), start(&broker, root.path(), ""));
    let line = first.wait_for("another client uses the client id denoised-board-");
    assert!(line.contains("set `node` or mqtt.client_id to another value"), "{line}");
    second.wait_for("another client uses the client id denoised-board-");
    let began = Instant::now();
    let so_far = first.count("connected to the broker") + second.count("connected to the broker");
    while first.count("next try in") < 4 {
        assert!(began.elapsed() < Duration::from_secs(60));
        first.wait_for("next try in");
    }
    let seconds = began.elapsed().as_secs();
    let count = first.count("connected to the broker") + second.count("connected to the broker") - so_far;
    assert!(count <= 8, "{count} connections in {seconds} s");

    // With ids of their own both are connected.
    let mut third = start(&broker, root.path(), "client_id = \"third\"");
    third.wait_for("the client id at the broker is third");
    third.wait_for("ready");
    assert_eq!(third.count("next try in"), 0);
}

/// Two machines with one host name have different client ids, so that both are connected and draw every request.
#[test]
fn two_machines_with_one_name_are_reported() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/board/#");
    let roots = MACHINES.map(machine);
    let mut first = start(&broker, roots[0].path(), "");
    subscriber.wait_for_phase("ready");
    let mut second = start(&broker, roots[1].path(), "");
    let line = first.wait_for("another client publishes on denoised/board/state");
    assert!(line.contains("set `node` to another value"), "{line}");
    second.wait_for("ready");
    // A retained state of an earlier run is no second daemon.
    assert_eq!((first.count("next try in"), second.count("another client")), (0, 0));
}

/// Returns what a server answers to the first bytes of a connection.
type Answer = fn(&[u8]) -> Vec<u8>;

/// Returns the protocol level of a CONNECT packet.
fn level(connect: &[u8]) -> Option<u8> {
    let name = connect.windows(4).position(|window| window == b"MQTT")?;
    connect.get(name + 4).copied()
}

/// rumqttc reports each of these answers as a closed connection or a time-out.
#[test]
fn a_broker_that_speaks_only_mqtt_3_1_1_is_named_by_the_daemon_and_by_doctor() {
    let answers: [Answer; 3] = [
        |_| vec![0x20, 2, 0, 1],
        |_| vec![0x20, 3, 0, 0x84, 0],
        |connect| if level(connect) == Some(4) { vec![0x20, 2, 0, 0] } else { Vec::new() },
    ];
    for answer in answers {
        let url = format!("mqtt://127.0.0.1:{}", serve(answer));
        let mut daemon = daemon_at(&url);
        daemon.wait_for("the broker speaks only MQTT 3.1.1; denoised needs MQTT 5");
        let found = doctor(&url);
        assert!(found.contains("the broker speaks only MQTT 3.1.1"), "{found}");
        assert!(found.contains("-> denoised needs MQTT 5: update the broker"), "{found}");
    }
}

#[test]
fn a_server_that_is_no_broker_is_described() {
    let servers: [(Answer, &str); 3] = [
        (|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "a web server answers on this port"),
        (|_| b"AMQP\x00\x00\x09\x01".to_vec(), "the answer is not MQTT, it begins with \"AMQP"),
        (|_| Vec::new(), "the broker closed the connection without an answer"),
    ];
    for (answer, expected) in servers {
        let found = doctor(&format!("mqtt://127.0.0.1:{}", serve(answer)));
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

/// The daemon dropped the connection at every message that the access list denied, four times a second.
#[test]
fn a_denied_status_topic_is_named_once_and_jobs_are_done() {
    let acl = "topic read denoised/board/request\ntopic read denoised/board/cancel\n\
               topic write denoised/board/result/#\ntopic write denoised/board/image\ntopic read denoised/#\n\
               topic write denoised/board/request\n";
    let broker = Broker::with_files("acl_file {dir}/acl\n", &[("acl", acl)]);
    let mut subscriber = Subscriber::start(&broker, "denoised/board/#");
    let root = machine(MACHINES[0]);
    let mut daemon = start(&broker, root.path(), "");
    // In any order.
    let lines = [(); 2].map(|()| daemon.wait_for("the broker accepts no messages on denoised/board/stat"));
    for topic in ["status", "state"] {
        let line = lines.iter().find(|line| line.contains(&format!("denoised/board/{topic}: "))).unwrap();
        assert!(line.contains("allow this user to write to it"), "{line}");
    }
    publish(&broker, "denoised/board/request", r#"{"id": "one", "steps": 3}"#, &[]);
    subscriber.on("denoised/board/result/one");
    assert_eq!(daemon.count("connected to the broker"), 1);
    assert_eq!(daemon.count("the broker accepts no messages on denoised/board/state"), 1);
}

#[test]
fn doctor_reports_the_login_the_limits_and_the_topics_of_the_broker() {
    let broker = Broker::with_config("max_packet_size 5000\nretain_available false\n");
    let output = denoised()
        .args(["doctor", "--json"])
        .env("DENOISED_MQTT__URL", broker.url())
        .env("DENOISED_MQTT__SHARED_QUEUE", "$share/fleet/jobs")
        .output()
        .unwrap();
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let about = |name: &str| findings.iter().find(|finding| finding["about"] == name).unwrap();
    let found = about("broker")["found"].as_str().unwrap();
    assert!(found.contains("speaks MQTT 5"), "{found}");
    assert!(
        found.contains("packets of 4.88 KiB (room for a PNG of 40x40), QoS 2, no retained messages"),
        "{found}"
    );
    assert_eq!(about("broker packet size")["state"], "note");
    let feature = about("broker feature");
    let found = feature["found"].as_str().unwrap();
    assert!(found.starts_with("the broker keeps no retained messages: a subscriber sees status"), "{found}");
    // The consequence was printed as the advice.
    assert_eq!(feature["next"], "turn retained messages on in the broker, and send pictures in the request");
    assert!(findings.iter().all(|finding| finding["about"] != "broker topic"), "{findings:#?}");

    let acl = "topic read denoised/board/request\n";
    let broker = Broker::with_files("acl_file {dir}/acl\n", &[("acl", acl)]);
    let output = denoised()
        .args(["doctor", "--json"])
        .env("DENOISED_MQTT__URL", broker.url())
        .env("DENOISED_NODE", "board")
        .output()
        .unwrap();
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let refused = findings.iter().find(|finding| finding["about"] == "broker topic").unwrap();
    assert_eq!(refused["found"], "the broker refuses denoised/board/progress/doctor: not authorized");
    assert!(refused["next"].as_str().unwrap().contains("access list"), "{refused}");
}
