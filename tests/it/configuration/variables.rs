//! Environment variables of the configuration and of others, and the host name in topics.

use super::check_config;
use crate::common::bundles::model;
use crate::common::commands::{fails, succeeds};

#[test]
fn foreign_variables_are_ignored_with_one_line() {
    let (_file, mut command) = check_config("");
    command
        .env("DENOISED_PORT", "tcp://10.0.0.1:1883")
        .env("DENOISED_SERVICE_HOST", "10.0.0.1")
        .env("DENOISED_SERVICE_PORT", "1883")
        .env("DENOISED_PROGRAM", "denoised")
        .env("DENOISED_MODELS__PATHS", model("digits"));
    let stderr = String::from_utf8(succeeds(&mut command).stderr).unwrap();
    assert_eq!(
        stderr,
        "denoised: ignoring the environment variables DENOISED_PORT, DENOISED_PROGRAM, DENOISED_SERVICE_HOST, \
         DENOISED_SERVICE_PORT: they are no keys of the configuration\n"
    );
    let (_file, mut command) = check_config("");
    let stderr = fails(command.env("DENOISED_MQTT_URL", "mqtt://b"), 2);
    assert_eq!(
        stderr,
        "denoised: DENOISED_MQTT_URL: mqtt_url: there is no such key; the nearest one is DENOISED_MQTT__URL\n"
    );
}

#[test]
fn a_variable_that_is_not_utf8_ended_the_program() {
    let not_utf8: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    let (_file, mut command) = check_config("");
    succeeds(command.env("ANYTHING", not_utf8));
    let stderr = fails(command.env("DENOISED_SPOOL__PATH", not_utf8), 2);
    assert_eq!(stderr, "denoised: DENOISED_SPOOL__PATH: spool.path: the value is not valid UTF-8\n");
}

#[cfg(feature = "system-tests")]
mod daemon {
    use crate::common::broker::Broker;
    use crate::common::daemon::{Daemon, configuration};
    use crate::common::golden;

    #[test]
    fn the_daemon_starts_beside_a_service_of_its_name() {
        let broker = Broker::start();
        let text =
            configuration(&broker, "test", &[&golden("gaussian")], "[models.engine.nope]\nbatch = 1\n");
        let variables =
            [("DENOISED_PORT", "tcp://10.0.0.1:1883"), ("DENOISED_PORT_1883_TCP_ADDR", "10.0.0.1")];
        let mut daemon =
            Daemon::with_variables(&text, &variables.map(|(name, value)| (name, value.to_owned())));
        daemon.wait_for("ignoring the environment variables DENOISED_PORT, DENOISED_PORT_1883_TCP_ADDR: ");
        daemon.wait_for("models.engine.nope has no effect: models.paths has only gaussian");
        daemon.wait_for("ready: requests are accepted");
        assert_eq!(daemon.terminate(), Some(0));
    }

    /// The topics change with the host name, for example because a board got one by DHCP. Nobody noticed why the
    /// requests had no answers.
    #[test]
    fn a_changed_host_name_was_silent() {
        let broker = Broker::start();
        let text = configuration(&broker, "", &[&golden("gaussian")], "");
        let spool = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let mut daemon = Daemon::with_spool(&text, &spool);
        daemon.wait_for("ready: requests are accepted on denoised/");
        assert_eq!(daemon.terminate(), Some(0));
        assert_eq!(daemon.count("the host name changed"), 0);
        let file = spool.path().join("topic-root");
        let present = std::fs::read_to_string(&file).unwrap();
        let host = present.trim_end().strip_prefix("denoised/").unwrap().to_owned();
        std::fs::write(&file, "denoised/kitchen\n").unwrap();
        let expected = format!(
            "the host name changed from kitchen to {host}, so that the root of all topics is denoised/{host} and no \
             longer denoised/kitchen; clients of the old topics reach nobody; to keep the old topics, set node = \
             \"kitchen\"; to use the new ones, set node = \"{host}\""
        );
        // Every start reports it, until the node has a name.
        for _ in 0..2 {
            let mut daemon = Daemon::with_spool(&text, &spool);
            daemon.wait_for(&expected);
            daemon.wait_for("ready");
            assert_eq!(daemon.terminate(), Some(0));
        }
        let mut command = crate::common::commands::denoised();
        let output = command.arg("doctor").env("DENOISED_SPOOL__PATH", spool.path()).output().unwrap();
        let text = text.replace("node = \"\"", "node = \"kitchen\"");
        let mut daemon = Daemon::with_spool(&text, &spool);
        daemon.wait_for("ready");
        assert_eq!(daemon.terminate(), Some(0));
        assert_eq!(daemon.count("topics is"), 0);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(
            stdout.contains("note     topics               the host name changed from kitchen to "),
            "{stdout}"
        );
    }
}
