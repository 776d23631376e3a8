//! Passes arbitrary bytes to the parsers of external data. They must return a value or an error, and a value must be the
//! same after it is written and read again. The fuzz targets call these functions with the fuzzer's inputs, and
//! `tests/it/corpora.rs` with the stored corpora.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use denoised::bundle::{Manifest, PipelineTask, SchedulerConfig};
use denoised::image::{EmbeddedText, Format, encode_image};
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{JobLimits, ModelCard, SourceFiles, WrittenReceipt};
use denoised::model::Model;
use denoised::spool::AcceptedJob;
use image::DynamicImage;

const LIMITS: JobLimits = JobLimits { steps: 100, count: 64, pixels: 1 << 20, memory: None };

/// Parses a request, as received over MQTT, and checks it against two models.
pub(crate) fn request(data: &[u8]) {
    let Ok(request) = denoised::job::parse(data).map_err(|(id, error)| {
        assert!(id.is_none_or(|id| denoised::job::is_id(&denoised::job::to_id(&id))));
        assert!(!error.message.is_empty());
    }) else {
        return;
    };
    let json = serde_json::to_vec(&request).expect("a request can be written as JSON");
    assert_eq!(denoised::job::parse(&json).expect("the written value can be read"), request);
    let mut stream = request.clone();
    if stream.check_stream().is_ok_and(|settings| settings.is_some()) {
        match stream.check_without_picture(models(), LIMITS, || 7) {
            Ok(job) => assert!(job.count == 1 && job.deadline.is_none()),
            Err(error) => assert!(error.field.is_some(), "{error:?} names no field"),
        }
    }
    match request.check(models(), LIMITS, || 7) {
        Ok(job) => assert!(job.count <= 64 && denoised::job::is_id(&job.id)),
        Err(error) => assert!(error.field.is_some(), "{error:?} names no field"),
    }
}

/// Reads the receipt in a picture, or a receipt in JSON, and makes a request of it.
pub(crate) fn receipt(data: &[u8]) {
    let text = EmbeddedText::read(data);
    if let Some(text) = &text {
        let pixel = DynamicImage::new_luma8(1, 1);
        for format in [Format::Png, Format::Webp] {
            let file = encode_image(format, &pixel, Some(text)).expect("any text can be written");
            assert_eq!(EmbeddedText::read(&file).as_ref(), Some(text), "{format:?}");
        }
    }
    let json = text.map_or(data.to_vec(), |text| text.receipt.into_bytes());
    let receipt = match WrittenReceipt::parse(&json) {
        Ok(receipt) => receipt,
        Err(fault) => return assert!(!fault.is_empty()),
    };
    match receipt.to_request(&SourceFiles::default()) {
        Ok(request) => drop(request.check(models(), LIMITS, || 7)),
        Err(error) => assert!(!error.message.is_empty()),
    }
}

/// Returns the models that requests are checked against.
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

/// Loads a configuration: a file, and after NUL bytes the name and the value of an environment variable.
pub(crate) fn configuration(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let file = write_file(parts.next().unwrap_or_default());
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let variable = (format!("DENOISED_{}", text()), text());
    if let Err(errors) = denoised::config::load(Some(&file), [variable]) {
        assert!(!errors.0.is_empty());
        for error in errors.0 {
            assert!(!error.location.is_empty() && !error.message.is_empty(), "{error:?}");
        }
    }
}

/// Reads a `scheduler_config.json`.
pub(crate) fn scheduler_config(data: &[u8]) {
    let file = write_file(data);
    match SchedulerConfig::read(&file) {
        Ok(config) => {
            let again = write_file(config.to_json(PipelineTask::Generation).to_string().as_bytes());
            let again = SchedulerConfig::read(&again).expect("the written value can be read");
            assert_eq!(again.to_json(PipelineTask::Generation), config.to_json(PipelineTask::Generation));
        }
        Err(error) => assert!(error.to_string().contains(&file.display().to_string())),
    }
}

/// Parses a `denoised.toml`.
pub(crate) fn manifest(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(error) = Manifest::parse(text)
    {
        assert!(!error.is_empty());
    }
}

/// Reads an .npy file, which gives initial noise.
pub(crate) fn npy(data: &[u8]) {
    let file = write_file(data);
    let Ok(array) = denoised::npy::read(&file) else { return };
    let values: Vec<f32> = array.iter().copied().collect();
    let written = denoised::npy::write(array.shape(), &values).expect("an array can be written");
    let again = denoised::npy::read(&write_file(&written)).expect("the written value can be read");
    assert_eq!(again.shape(), array.shape());
    assert!(again.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// Reads a record of the spool, as a message and as a job.
pub(crate) fn spool_record(data: &[u8]) {
    if let Ok(message) = denoised::spool::read_message(data) {
        let record = denoised::spool::write_message(&message);
        assert_eq!(denoised::spool::read_message(&record).expect("the written value can be read"), message);
    }
    if let Ok(job) = serde_json::from_slice::<AcceptedJob>(data) {
        let record = serde_json::to_vec(&job).expect("a job can be written as JSON");
        assert_eq!(
            serde_json::from_slice::<AcceptedJob>(&record).expect("the written value can be read"),
            job
        );
    }
}

/// Writes the bytes to a file. Each thread has one file, which is overwritten.
fn write_file(data: &[u8]) -> PathBuf {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a temporary directory");
    }
    let path = DIRECTORY.with(|directory| directory.path().join("input"));
    std::fs::write(&path, data).expect("a file can be written");
    path
}
