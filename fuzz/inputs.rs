//! What comes from outside, fed to the code that reads it: any bytes give a value or an error, and a
//! value keeps what it says when it is written and read again. The fuzz targets call these with what
//! the fuzzer makes up, and `tests/corpora.rs` with what it found.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use denoised::bundle::{Manifest, SchedulerConfig};
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{JobLimits, ModelCard};
use denoised::model::Model;
use denoised::spool::AcceptedJob;

/// A request as it comes over MQTT, parsed and checked against a model.
pub(crate) fn request(data: &[u8]) {
    let Ok(request) = denoised::job::parse(data).map_err(|(id, error)| {
        assert!(id.is_none_or(|id| denoised::job::is_id(&id)));
        assert!(!error.message.is_empty());
    }) else {
        return;
    };
    let json = serde_json::to_vec(&request).expect("a request has a form in JSON");
    assert_eq!(denoised::job::parse(&json).expect("what we wrote can be read"), request);
    let limits = JobLimits { steps: 100, count: 64, pixels: 1 << 20, memory: None };
    match request.check(models(), limits, || 7) {
        Ok(job) => assert!(job.count <= 64 && denoised::job::is_id(&job.id)),
        Err(error) => assert!(error.field.is_some(), "{error:?} names no field"),
    }
}

/// The bundle that requests are checked against.
fn models() -> &'static [Arc<ModelCard>] {
    static MODELS: OnceLock<Vec<Arc<ModelCard>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = if bundle.join("models").is_dir() { bundle } else { bundle.parent().expect("a parent") };
        let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
        let load = |path: &str| ModelCard::new(&Model::load(&root.join(path), &options).expect("a bundle"));
        vec![load("tests/golden/gaussian"), load("models/swissroll")]
    })
}

/// A configuration: a file, and after the first NUL the value of an environment variable.
pub(crate) fn configuration(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let file = on_disk(parts.next().unwrap_or_default());
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let variable = (format!("DENOISED_{}", text()), text());
    if let Err(errors) = denoised::config::load(Some(&file), [variable]) {
        assert!(!errors.0.is_empty());
        for fault in errors.0 {
            assert!(!fault.location.is_empty() && !fault.message.is_empty(), "{fault:?}");
        }
    }
}

/// scheduler_config.json: read, and a plan made by its class.
pub(crate) fn scheduler_config(data: &[u8]) {
    let file = on_disk(data);
    match SchedulerConfig::read(&file) {
        Ok(config) => {
            let again = on_disk(config.to_json().to_string().as_bytes());
            let again = SchedulerConfig::read(&again).expect("what we wrote can be read");
            assert_eq!(again.to_json(), config.to_json());
        }
        Err(error) => assert!(error.to_string().contains(&file.display().to_string())),
    }
}

/// denoised.toml.
pub(crate) fn manifest(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(fault) = Manifest::parse(text)
    {
        assert!(!fault.is_empty());
    }
}

/// A file of given noise.
pub(crate) fn npy(data: &[u8]) {
    let file = on_disk(data);
    let Ok(array) = denoised::npy::read(&file) else { return };
    let values: Vec<f32> = array.iter().copied().collect();
    let written = denoised::npy::write(array.shape(), &values).expect("an array can be written");
    let again = denoised::npy::read(&on_disk(&written)).expect("what we wrote can be read");
    assert_eq!(again.shape(), array.shape());
    assert!(again.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// A record of the spool: a message, or a job.
pub(crate) fn spool_record(data: &[u8]) {
    if let Ok(message) = denoised::spool::read_message(data) {
        let record = denoised::spool::write_message(&message);
        assert_eq!(denoised::spool::read_message(&record).expect("what we wrote can be read"), message);
    }
    if let Ok(job) = serde_json::from_slice::<AcceptedJob>(data) {
        let record = serde_json::to_vec(&job).expect("a job has a form in JSON");
        assert_eq!(serde_json::from_slice::<AcceptedJob>(&record).expect("what we wrote can be read"), job);
    }
}

/// The bytes as a file, one after another under the same name of this thread's.
fn on_disk(data: &[u8]) -> PathBuf {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a temporary directory");
    }
    let path = DIRECTORY.with(|directory| directory.path().join("input"));
    std::fs::write(&path, data).expect("a file can be written");
    path
}
