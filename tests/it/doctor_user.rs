//! For whom `doctor` judges.

use std::path::Path;

use crate::common::board::Tree;
use crate::common::bundles::{copy_tree, model};
use crate::common::commands::denoised;
use crate::doctor::{about, findings};
use serde_json::Value;

/// The ids of a user whom no test runs as.
const SERVICE: (u32, u32) = (4_000_001, 4_000_002);

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// The service's directories belong to its own user with mode 700. `doctor` called them missing, and told the person who
/// ran it to take them over.
#[test]
fn the_service_was_judged_by_the_rights_of_the_caller() {
    let board = Tree::jetson("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");
    let groups = format!("video:x:{}:\nrender:x:4000004:someone\n", 4_000_003);
    board.install_service(SERVICE.0, SERVICE.1, &groups);
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let inside = |name: &str| directory.path().join(name);
    for name in ["spool", "cache"] {
        std::fs::create_dir(inside(name)).unwrap();
    }
    std::fs::write(inside("password"), "secret").unwrap();
    copy_tree(&model("swissroll"), &inside("swissroll"));
    let drop_in = format!("[Service]\nPrivateTmp=no\nReadWritePaths={}\n", directory.path().display());
    board.write("etc/systemd/system/denoised.service.d/paths.conf", &drop_in);
    let run = || {
        let mut command = denoised();
        command
            .env("DENOISED_ENGINE__KIND", "embedded")
            .env("DENOISED_BOARD__ROOT", board.path())
            .env("DENOISED_MODELS__PATHS", inside("swissroll"))
            .env("DENOISED_SPOOL__PATH", inside("spool"))
            .env("DENOISED_ENGINE__CACHE", inside("cache"))
            .env("DENOISED_MQTT__USERNAME", "board")
            .env("DENOISED_MQTT__PASSWORD_FILE", inside("password"));
        findings(&mut command).0
    };
    let states = |findings: &[Value]| -> Vec<String> {
        let names = ["model", "spool.path", "engine.cache", "mqtt.password_file"];
        names.map(|name| about(findings, name)["state"].as_str().unwrap().to_owned()).into()
    };
    // They belong to the user of this test, with a mode that lets others only read.
    set_mode(&inside("password"), 0o600);
    for name in ["spool", "cache", "swissroll"] {
        set_mode(&inside(name), 0o755);
    }
    let found = run();
    assert_eq!(about(&found, "user")["found"], "judged for the user denoised, who runs denoised.service");
    assert_eq!(states(&found), ["good", "missing", "missing", "missing"]);
    let spool = about(&found, "spool.path");
    let at = inside("spool").display().to_string();
    assert!(
        spool["found"].as_str().unwrap().starts_with(&format!("the user denoised cannot write to {at}: "))
    );
    assert_eq!(
        spool["next"],
        format!("sudo install -d -m 700 -o denoised {at}, or set spool.path to another directory")
    );
    // The service cannot create it in a directory of another user either.
    std::fs::rename(inside("spool"), inside("moved")).unwrap();
    let missing = run();
    assert_eq!(about(&missing, "spool.path")["state"], "missing");
    assert_eq!(about(&missing, "spool.path")["found"], format!("there is no directory {at}"));
    std::fs::rename(inside("moved"), inside("spool")).unwrap();
    // The unit gives the user these groups.
    assert_eq!(about(&found, "group video")["found"], "the user denoised is a member");
    assert_eq!(about(&found, "group render")["state"], "good");
    let variables = about(&found, "variables")["found"].as_str().unwrap();
    assert!(variables.contains("DENOISED_SPOOL__PATH") && variables.ends_with("not for denoised.service"));
    // A directory on the way that lets only its owner in.
    set_mode(directory.path(), 0o700);
    let next = format!("sudo chmod o+x {}, or use another directory", directory.path().display());
    assert_eq!(about(&run(), "model")["next"], next);
    set_mode(directory.path(), 0o755);
    // The unit hides these from the service, whatever their modes.
    board.write("etc/systemd/system/denoised.service.d/paths.conf", "");
    for (key, value) in [("DENOISED_MODELS__PATHS", "/home/me/model"), ("DENOISED_SPOOL__PATH", "/tmp/spool")]
    {
        let mut command = denoised();
        command
            .env(key, value)
            .env("DENOISED_BOARD__ROOT", board.path())
            .env("DENOISED_ENGINE__KIND", "embedded");
        let found = findings(&mut command).0;
        let hidden = format!("denoised.service does not see {value}, because of its setting ");
        assert!(
            found.iter().any(|f| f["found"].as_str().unwrap().starts_with(&hidden)),
            "{value}: {found:?}"
        );
    }
    // Another configuration is judged for its own daemon, here of this user.
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = denoised();
    let output = command
        .args(["doctor", "--json", "--config"])
        .arg(file.path())
        .env("DENOISED_BOARD__ROOT", board.path())
        .env("DENOISED_SPOOL__PATH", inside("spool"))
        .output()
        .unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(about(&found, "user")["found"], "judged for the user of this command");
}

/// Runs `doctor` as an ordinary user, beside the directory of a daemon whose unit and user are not known.
#[test]
fn a_spool_of_another_user_was_to_be_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let spool = directory.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    set_mode(&spool, 0o700);
    if std::os::unix::fs::chown(&spool, Some(SERVICE.0), Some(SERVICE.1)).is_err() {
        return; // Only root can give a directory away.
    }
    let mut command = denoised();
    command
        .args(["doctor", "--json"])
        .env("DENOISED_ENGINE__KIND", "embedded")
        .env("DENOISED_BOARD__ROOT", directory.path())
        .env("DENOISED_SPOOL__PATH", &spool);
    std::os::unix::process::CommandExt::uid(&mut command, 4_000_009);
    let output = command.output().unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let at = spool.display();
    assert_eq!(about(&found, "user")["found"], format!("judged for the user {}, who owns {at}", SERVICE.0));
    let finding = about(&found, "spool.path");
    assert_eq!(finding["found"], format!("{at} is writable for the user {}", SERVICE.0));
    assert_eq!(finding["state"], "good");
}

/// Each of these was "good: … is writable", and `run` failed.
#[test]
fn a_spool_that_no_daemon_can_use_was_good() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let inside = |name: &str| directory.path().join(name);
    let spool = |path: &Path| {
        let mut command = denoised();
        command.env("DENOISED_ENGINE__KIND", "embedded").env("DENOISED_SPOOL__PATH", path);
        let found = about(&findings(&mut command).0, "spool.path").clone();
        (found["state"] == "good", found["found"].as_str().unwrap().to_owned(), found["next"].clone())
    };
    let at = directory.path().display();
    std::fs::write(inside("file"), "").unwrap();
    for path in [inside("file"), inside("file/spool")] {
        let next = "move it away, or set spool.path to another directory".into();
        assert_eq!(spool(&path), (false, format!("{at}/file is a file, and must be a directory"), next));
    }
    let redb = inside("spool/spool.redb");
    let move_away = format!("move it away, for example: sudo mv {0} {0}.old", redb.display());
    std::fs::create_dir_all(&redb).unwrap();
    let found = format!("{} is a directory, and must be a file", redb.display());
    assert_eq!(spool(&inside("spool")), (false, found, move_away.clone().into()));
    std::fs::remove_dir(&redb).unwrap();
    assert!(spool(&inside("spool")).0);
    std::os::unix::fs::symlink("/nonexistent/x", &redb).unwrap();
    let found = format!("{} is a link to /nonexistent/x, which does not exist", redb.display());
    assert_eq!(spool(&inside("spool")), (false, found, move_away.into()));
}

/// After one `sudo denoised run`, the files belong to root. The advice left out those beside spool.redb.
#[test]
fn a_spool_of_another_user_was_good() {
    let board = Tree::jetson("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");
    board.install_service(SERVICE.0, SERVICE.1, "");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let files = ["spool.redb", "client-ids", "topic-root"].map(|name| directory.path().join(name));
    set_mode(directory.path(), 0o777);
    for file in &files {
        std::fs::write(file, "").unwrap();
        set_mode(file, 0o644);
    }
    let drop_in = format!("[Service]\nPrivateTmp=no\nReadWritePaths={path}\n");
    board.write("etc/systemd/system/denoised.service.d/paths.conf", &drop_in);
    let mut command = denoised();
    command
        .env("DENOISED_ENGINE__KIND", "embedded")
        .env("DENOISED_BOARD__ROOT", board.path())
        .env("DENOISED_SPOOL__PATH", directory.path());
    let found = about(&findings(&mut command).0, "spool.path").clone();
    let text = found["found"].as_str().unwrap();
    let names = files.map(|file| file.display().to_string());
    let expected =
        format!("the user denoised cannot read and write {}, which belong to the user ", names.join(", "));
    assert!(text.starts_with(&expected), "{text}");
    let names = names.join(" ");
    assert_eq!(found["next"], format!("sudo chown denoised {names} && sudo chmod u+rw {names}"));
}
