//! The configuration of the server, and its start and stop.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use super::Served;
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, free_port, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::http::{HttpServer, receive};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Runs `check-config`, and the daemon if it is to fail, and returns the error.
fn refused(command: &str, http: &str, code: i32) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let spool = directory.path().join("spool");
    std::fs::write(&path, format!("{http}\n[spool]\npath = {:?}\n", spool.display().to_string())).unwrap();
    fails(denoised().arg(command).arg("--config").arg(&path), code)
}

#[test]
fn an_address_that_other_machines_reach_requires_a_token() {
    for address in ["0.0.0.0:8188", "[::]:8188", "192.168.1.5:8188"] {
        for command in ["check-config", "run"] {
            let error = refused(command, &format!("[http]\nlisten = \"{address}\""), 2);
            let expected = format!(
                "http.listen: {address} can be reached from other machines, so it requires http.token_file; set it, or \
                 listen on 127.0.0.1"
            );
            assert!(error.contains(&expected), "{error}");
        }
    }
    let error = refused("check-config", "[http]\nlisten = \"localhost\"", 2);
    assert!(error.contains("http.listen: ") && error.contains("such as 127.0.0.1:8188"), "{error}");
}

#[test]
fn a_token_that_cannot_be_used_and_a_port_in_use_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "short\n").unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let http = format!("[http]\nlisten = \"{address}\"\ntoken_file = {:?}", token.display().to_string());
    for (command, code) in [("check-config", 2), ("run", 1)] {
        let error = refused(command, &http, code);
        assert!(error.contains("http.token_file ") && error.contains("must have 16 to 4096"), "{error}");
    }
    let error = refused("run", &format!("[http]\nlisten = \"{address}\""), 1);
    let expected = format!(
        "http.listen: cannot listen on {address}: address in use; stop the program that uses the port, or choose another \
         port"
    );
    assert!(error.contains(&expected), "{error}");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, format!("[http]\ntoken_file = {:?}\n", token.display().to_string())).unwrap();
    std::fs::write(&token, TOKEN).unwrap();
    let output = succeeds(denoised().arg("check-config").arg("--config").arg(&path));
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(warnings.contains("http.token_file has no effect, because http.listen is not set"), "{warnings}");
}

#[test]
fn with_a_token_only_the_health_check_is_answered_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let broker = Broker::start();
    let mut http = HttpServer::new(free_port());
    let more = format!(
        "[http]\nlisten = \"0.0.0.0:{}\"\ntoken_file = {:?}\n[engine]\nkind = \"embedded\"",
        http.port,
        path.display().to_string()
    );
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], &more));
    http.wait_until_ready();
    for path in ["/metrics", "/v1/models", "/v1/models/gaussian", "/nothing"] {
        let response = http.get(path);
        assert_eq!((response.status, response.error().1.as_str()), (401, "invalid_api_key"), "{path}");
        assert!(response.headers.contains("www-authenticate: bearer"), "{}", response.headers);
    }
    assert_eq!(http.generate(&json!({"prompt": ""})).status, 401);
    http.token = Some(TOKEN.replace('f', "e"));
    assert!(http.get("/metrics").error().3.contains("the token is not the one in http.token_file"));
    http.token = Some(TOKEN.to_owned());
    assert_eq!(http.get("/metrics").status, 200);
    assert_eq!(http.generate(&json!({"prompt": "", "steps": 2})).image(0)[1..4], *b"PNG");
}

#[test]
fn nothing_listens_by_default() {
    let broker = Broker::start();
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], ""));
    daemon.wait_for("ready: requests are accepted");
    assert_eq!(daemon.count("HTTP"), 0);
}

#[test]
fn the_health_check_has_the_phase_and_the_broker() {
    let http = HttpServer::new(free_port());
    // No broker listens there.
    let text = format!(
        "node = \"test\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[models]\npaths = [{:?}]\n[engine]\nkind = \"embedded\"\n\
         [http]\nlisten = \"127.0.0.1:{}\"\n",
        free_port(),
        model("digits").display().to_string(),
        http.port
    );
    let mut daemon = Daemon::start(&text);
    loop {
        let response = http.get("/healthz");
        let health = response.json();
        if response.status == 200 {
            assert_eq!(health, json!({"phase": "ready", "broker": "disconnected", "worker": "alive"}));
            break;
        }
        assert_eq!(response.status, 503);
        assert!(["starting", "warming"].contains(&health["phase"].as_str().unwrap()), "{health}");
    }
    // The daemon draws without a broker, too.
    http.generate(&json!({"prompt": "", "class": 1, "steps": 2})).image(0);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_stopping_daemon_finishes_the_jobs_of_its_clients_and_takes_no_others() {
    let mut served = Served::start("[limits]\ndrain_s = 60\n");
    let job = json!({"model": "gaussian", "prompt": "", "steps": 1000, "sampler": "ddpm", "n": 10});
    let waiting =
        served.http.send("POST", "/v1/images/generations", "application/json", job.to_string().as_bytes());
    served.subscriber.next(|message| message.topic.contains("/progress/http-"));
    served.daemon.signal("TERM");
    served.subscriber.wait_for_phase("draining");
    let health = served.http.get("/healthz");
    assert_eq!((health.status, &health.json()["phase"]), (503, &json!("draining")));
    let refused = served.http.generate(&json!({"prompt": ""}));
    assert_eq!((refused.error().0, refused.error().1.as_str()), (503, "unavailable"));
    assert_eq!(receive(waiting).json()["data"].as_array().unwrap().len(), 10);
    assert_eq!(served.daemon.process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_client_learns_that_its_job_continues_after_the_next_start() {
    let mut served = Served::start("[limits]\ndrain_s = 0\n");
    let job = json!({"model": "gaussian", "prompt": "", "steps": 1000, "sampler": "ddpm", "n": 10});
    let waiting =
        served.http.send("POST", "/v1/images/generations", "application/json", job.to_string().as_bytes());
    let progress = served.subscriber.next(|message| message.topic.contains("/progress/http-"));
    assert_eq!(served.daemon.terminate(), Some(0));
    let error = receive(waiting).error();
    assert_eq!((error.0, error.1.as_str()), (503, "unavailable"));
    assert!(error.3.contains("continues after the next start"), "{error:?}");
    let id = progress.topic.rsplit('/').next().unwrap().to_owned();
    let more = format!("[http]\nlisten = \"127.0.0.1:{}\"\n[engine]\nkind = \"embedded\"", served.http.port);
    let models = [&*model("digits"), &*golden("gaussian")];
    let text = configuration(&served.broker, "test", &models, &more);
    let _daemon = Daemon::with_spool(&text, &served.daemon.spool);
    let result = served.subscriber.on(&format!("denoised/test/result/{id}")).json();
    assert_eq!(result["images"].as_array().unwrap().len(), 10);
}
