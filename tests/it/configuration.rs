//! Configurations that are refused, reported or ignored: by `check-config`, and by the daemon.

mod unused_keys;
mod variables;

use std::process::Command;

use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, succeeds};

fn check_config(text: &str) -> (tempfile::NamedTempFile, Command) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = denoised();
    command.args(["check-config", "--config"]).arg(file.path());
    (file, command)
}

fn refused(text: &str) -> String {
    let (file, mut command) = check_config(text);
    fails(&mut command, 2).replace(&file.path().display().to_string(), "c.toml")
}

fn warned(text: &str) -> String {
    let (_file, mut command) = check_config(text);
    String::from_utf8(succeeds(&mut command).stderr).unwrap()
}

/// `check-config` called each of these valid; `run` failed later, or ignored the key.
#[test]
fn values_that_no_daemon_can_use_were_valid() {
    let cases = [
        (
            "[models]\npaths = []",
            "c.toml:2: models.paths: the list is empty; name at least one model's directory",
        ),
        ("[models]\npaths = [\"\"]", "c.toml:2: models.paths: a path is empty; name a model's directory"),
        (
            "[models]\npaths = [\"/a/digits\", \"/b/digits/\"]",
            "c.toml:2: models.paths: two models are named \"digits\", by which jobs select them; rename or remove a \
             directory",
        ),
        (
            "[engine]\nproviders = []",
            "c.toml:2: engine.providers: the list is empty; name at least one of tensorrt, cuda, openvino and cpu",
        ),
        ("[engine]\nproviders = [\"cpu\", \"cpu\"]", "c.toml:2: engine.providers: cpu is listed twice"),
        (
            "[models.engine.digits]\nproviders = []",
            "c.toml:2: models.engine.digits.providers: the list is empty; name at least one of tensorrt, cuda, \
             openvino and cpu",
        ),
        (
            "[engine]\ninterim_provider = \"tensorrt\"",
            "c.toml:2: engine.interim_provider: tensorrt builds an engine itself; use cuda or cpu",
        ),
        ("[engine]\ncache = \"\"", "c.toml:2: engine.cache: the path is empty; name a directory"),
        (
            "[engine.openvino]\nprecision = \"FP8\"",
            "c.toml:2: engine.openvino.precision: unknown value `FP8`, expected one of `FP32`, `FP16`, `ACCURACY`",
        ),
        (
            "[engine.openvino]\ndevice = \"cpu\"",
            "c.toml:2: engine.openvino.device: invalid value: string \"cpu\", expected CPU, GPU, NPU, or a combination \
             such as HETERO:GPU,CPU",
        ),
        (
            "[engine]\nbatch = 4\n[engine.tensorrt]\nopt_batch = 8",
            "c.toml:4: engine.tensorrt.opt_batch: 8 is more than the batch, 4",
        ),
        (
            "[engine.tensorrt]\nmin_batch = 4\nopt_batch = 2",
            "c.toml:2: engine.tensorrt.min_batch: 4 is more than opt_batch, 2",
        ),
        (
            "[engine.tensorrt]\nint8 = true\ncalibration_table = \"/nope\"",
            "c.toml:3: engine.tensorrt.calibration_table: there is no file /nope",
        ),
        ("[spool]\npath = \"\"", "c.toml:2: spool.path: the path is empty; name a directory"),
        ("[spool]\nmax_bytes = 1", "c.toml:2: spool.max_bytes: 1 bytes must be at least 64 KiB"),
        (
            "[engine]\nmemory = \"1 KiB\"",
            "c.toml:2: engine.memory: 1 KiB is too small for any model; set a size such as \"4 GiB\", \"auto\" for a \
             share of the free memory, or \"none\" for no limit",
        ),
        (
            "[mqtt]\nmax_packet = \"1 GiB\"",
            "c.toml:2: mqtt.max_packet: 1073741824 bytes must lie between 1 KiB and 256 MiB",
        ),
        (
            "[mqtt]\npassword_file = \"\"",
            "c.toml:2: mqtt.password_file: the path is empty; name a file, or remove the key",
        ),
        (
            "[mqtt]\nurl = \"mqtts://b\"\ncert_file = \"/c\"",
            "c.toml:3: mqtt.cert_file: requires mqtt.key_file; set both or neither",
        ),
        (
            "[mqtt]\nroot = \"d/{host}\"",
            "c.toml:2: mqtt.root: invalid value: string \"d/{host}\", expected no other placeholder than {node}",
        ),
        (
            "[mqtt]\nshared_queue = \"$share/g/{node}/request\"",
            "c.toml:2: mqtt.shared_queue: invalid value: string \"$share/g/{node}/request\", expected a filter without \
             {node}, which only mqtt.root has",
        ),
        ("[board]\nroot = \"board\"", "c.toml:2: board.root: board is not an absolute path"),
        (
            "[mqtt]\npassword_file = \"/etc/passwd\"",
            "c.toml:2: mqtt.password_file: requires mqtt.username; set both or neither",
        ),
        ("[board]\nroot = \"/nope\"", "c.toml:2: board.root: there is no directory /nope"),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), format!("denoised: {expected}\n"), "{text}");
    }
}

#[test]
fn a_root_or_a_login_on_which_brokers_hang_up_was_valid() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "x".repeat(70_000)).unwrap();
    let deep = vec!["a"; 199].join("/");
    let control = "it has a control character or a noncharacter, on which brokers close the connection";
    let root = |root: &str| format!("c.toml:2: mqtt.root: {root:?} cannot be the root of all topics: ");
    let levels = "it has more than 200 levels, on which brokers close the connection";
    let cases = [
        (r#"root = "a\u0001b""#.to_owned(), format!("{}{control}", root("a\u{1}b"))),
        (r#"root = "a\u007fb""#.to_owned(), format!("{}{control}", root("a\u{7f}b"))),
        (r#"root = "a\uffffb""#.to_owned(), format!("{}{control}", root("a\u{ffff}b"))),
        (format!("root = {deep:?}"), format!("{}{levels}", root(&deep))),
        (
            r#"username = "a\u0000b""#.to_owned(),
            format!("c.toml:2: mqtt.username: the user name cannot be sent to a broker: {control}"),
        ),
        (
            format!("username = \"a\"\npassword_file = {password:?}"),
            "c.toml:3: mqtt.password_file: 70000 bytes are more than a password can have, 65,535".to_owned(),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(&format!("[mqtt]\n{text}")), format!("denoised: {expected}\n"), "{text}");
    }
}

#[test]
fn a_shared_queue_on_the_daemons_own_topics_drew_everything_twice() {
    for topic in ["request", "cancel", "image", "state", "status", "error/x"] {
        let text = format!("node = \"board\"\n[mqtt]\nshared_queue = \"$share/g/denoised/board/{topic}\"");
        let expected = format!(
            "denoised: c.toml:3: mqtt.shared_queue: denoised/board/{topic} is a topic of this daemon itself; name one \
             that is not, such as $share/denoised/denoised/request\n"
        );
        assert_eq!(refused(&text), expected);
    }
    // The advice was the topic that is refused.
    let message = refused("[mqtt]\nroot = \"denoised\"\nshared_queue = \"$share/denoised/denoised/request\"");
    assert!(message.ends_with("such as $share/denoised/jobs/request\n"), "{message}");
    for fault in ["$share/g/a\\u0001", "$share/g\\u007f/a", "$share/+/a"] {
        let message = refused(&format!("[mqtt]\nshared_queue = \"{fault}\""));
        assert!(message.contains("c.toml:2: mqtt.shared_queue: invalid value"), "{message}");
    }
}

/// An invalid value hid every contradiction, and contradictions had no line.
#[test]
fn the_first_error_hid_the_others() {
    let text = "[mqtt]\nurll = \"x\"\nmax_packet = 1\ncert_file = \"/c\"\nusername = 3\npassword_file = \"/p\"\n\
                [spool]\nmax_bytes = 1\n[limits]\nqueue = 0\n[engine.tensorrt]\nmin_batch = 9\nopt_batch = 9\n";
    let stderr = refused(text);
    let mut found: Vec<_> = stderr.trim_start_matches("denoised: ").lines().collect();
    found.sort_unstable();
    let starts = [
        "c.toml:10: limits.queue: 0 must lie between 1 and 1000000",
        "c.toml:13: engine.tensorrt.opt_batch: 9 is more than the batch, 8",
        "c.toml:2: mqtt.urll: unknown field `urll`",
        "c.toml:3: mqtt.max_packet: 1 bytes must lie between 1 KiB and 256 MiB",
        "c.toml:4: mqtt.cert_file: requires mqtt.key_file; set both or neither",
        "c.toml:5: mqtt.username: invalid type: integer `3`, expected a string",
        "c.toml:8: spool.max_bytes: 1 bytes must be at least 64 KiB",
    ];
    assert_eq!(found.len(), starts.len(), "{stderr}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
    // A variable is the place of its key.
    let mut command = denoised();
    let file = tempfile::NamedTempFile::new().unwrap();
    command.args(["check-config", "--config"]).arg(file.path()).env("DENOISED_SPOOL__MAX_BYTES", "1");
    let expected = "denoised: DENOISED_SPOOL__MAX_BYTES: spool.max_bytes: 1 bytes must be at least 64 KiB\n";
    assert_eq!(fails(&mut command, 2), expected);
}

/// The password that systemd passes on was dropped without a word.
#[test]
fn a_credential_without_a_user_name_was_dropped_silently() {
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("mqtt-password"), "secret").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[models]\npaths = [{:?}]\n", model("digits"))).unwrap();
    let mut command = denoised();
    command.args(["check-config", "--config"]).arg(file.path());
    command.env("CREDENTIALS_DIRECTORY", credentials.path());
    let stderr = String::from_utf8(succeeds(&mut command).stderr).unwrap();
    let expected = format!(
        "denoised: warning: the password in {} is not sent, because mqtt.username is not set; set it, or empty the file\n",
        credentials.path().join("mqtt-password").display()
    );
    assert_eq!(stderr, expected);
}

/// `check-config` called files valid with which `run` ended at once.
#[test]
fn files_that_no_daemon_can_use_were_valid() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let certificate = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["board".to_owned()]).unwrap();
        std::fs::write(at(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(at(&format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    certificate("a");
    certificate("b");
    std::fs::write(at("empty"), "").unwrap();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(at("encrypted.key"), encrypted).unwrap();
    let check = |keys: &[(&str, &str)]| {
        let keys: String = keys.iter().map(|(key, name)| format!("{key} = {:?}\n", at(name))).collect();
        let models = format!("[models]\npaths = [{:?}]\n", model("digits").display().to_string());
        check_config(&format!("{models}[mqtt]\nurl = \"mqtts://broker\"\n{keys}"))
    };
    let folder = directory.path().display().to_string();
    for (keys, expected) in [
        (vec![("ca_file", "")], format!("mqtt.ca_file {folder}/: Is a directory (os error 21)")),
        (
            vec![("ca_file", "empty")],
            format!("mqtt.ca_file {folder}/empty: the file contains no certificate in PEM format"),
        ),
        (
            vec![("ca_file", "a.key")],
            format!("mqtt.ca_file {folder}/a.key: the file holds a private key, and no certificate"),
        ),
        (
            vec![("cert_file", "a.pem"), ("key_file", "b.key")],
            format!(
                "mqtt.key_file {folder}/b.key: the key does not belong to the certificate in mqtt.cert_file \
                 {folder}/a.pem; set both to files that were made together"
            ),
        ),
        (
            vec![("cert_file", "a.pem"), ("key_file", "encrypted.key")],
            format!(
                "mqtt.key_file {folder}/encrypted.key: the key is encrypted, and the daemon asks for no passphrase; \
                 decrypt it with openssl pkey -in {folder}/encrypted.key -out FILE.key"
            ),
        ),
        (
            vec![("cert_file", "a.pem"), ("key_file", "b.pem")],
            format!("mqtt.key_file {folder}/b.pem: the file holds a certificate, and no private key"),
        ),
    ] {
        let (_file, mut command) = check(&keys);
        assert_eq!(fails(&mut command, 2), format!("denoised: {expected}\n"));
    }
    // The configuration may be for another machine.
    let (_file, mut command) =
        check(&[("ca_file", "absent.pem"), ("cert_file", "a.pem"), ("key_file", "a.key")]);
    assert_eq!(
        String::from_utf8(succeeds(&mut command).stderr).unwrap(),
        format!("denoised: warning: mqtt.ca_file: there is no file {folder}/absent.pem on this machine\n")
    );
}

/// A model's denoised.toml has the same words as the configuration.
#[test]
fn errors_of_a_manifest_had_words_of_serde() {
    for (text, expected) in [
        ("[sample]\nkind = \"cube\"", "sample.kind: unknown value `cube`, expected `image` or `points`"),
        ("[classes]\nnames = 3", "classes.names: invalid type: integer `3`, expected an array"),
        ("[default]\nsteps = []", "default.steps: invalid type: array, expected a whole number, 0 or more"),
        ("[default]\nsampler = {}", "default.sampler: invalid type: table, expected a string"),
        (
            "[default]\nsteps = 1.5",
            "default.steps: invalid type: float `1.5`, expected a whole number, 0 or more",
        ),
    ] {
        let error = denoised::bundle::Manifest::parse(text).unwrap_err();
        assert_eq!(error, format!("line 2: {expected}"));
    }
}
