//! The inference engines: runs a tiny network on each engine and provider.

use std::path::PathBuf;

use super::finding::Finding;
use crate::config::Config;
use crate::inference::{
    EngineError, EngineKind, EngineOptions, LibraryError, Policy, Provider, ProviderFailure, library_advice,
    library_cause,
};
use crate::model::{Batch, Model, ModelError};
use crate::platform::{JetPack, Platform};

/// A network that returns 2x + t.
const TINY_NETWORK: &[u8] = include_bytes!("tiny.onnx");
const SCHEDULER: &str = r#"{"_class_name": "DDPMScheduler"}"#;

pub(super) fn findings(config: &Config, platform: &Platform) -> Vec<Finding> {
    let mut findings = vec![trial("embedded engine", config, EngineKind::Embedded, Provider::Cpu, platform)];
    if config.engine.kind == EngineKind::Embedded {
        return findings;
    }
    let library = trial("ONNX Runtime", config, EngineKind::OnnxRuntime, Provider::Cpu, platform);
    let is_installed = library.next.is_none();
    findings.push(library);
    let unused = config.engine_options(&first_model(config)).unused_without_onnx_runtime();
    if !is_installed && !unused.is_empty() {
        findings.push(Finding::note(
            "engine options",
            format!("{unused}, because no ONNX Runtime works"),
            "do what the line above says, or remove the section",
        ));
    }
    if is_installed {
        let others = config.engine.providers.iter().filter(|provider| **provider != Provider::Cpu);
        findings.extend(others.map(|provider| {
            let name = format!("provider {provider}");
            trial(&name, config, EngineKind::OnnxRuntime, *provider, platform)
        }));
    }
    findings
}

fn first_model(config: &Config) -> PathBuf {
    config.models.paths.first().cloned().unwrap_or_default()
}

/// Whether a model may not be served without ONNX Runtime.
fn requires_onnx_runtime(config: &Config) -> bool {
    let requires = |path: &PathBuf| config.engine_options(path).required_provider().is_some();
    match config.engine.kind {
        EngineKind::OnnxRuntime => true,
        EngineKind::Auto => config.models.paths.iter().any(requires),
        EngineKind::Embedded => false,
    }
}

/// Runs the tiny network on one provider.
fn trial(about: &str, config: &Config, kind: EngineKind, provider: Provider, platform: &Platform) -> Finding {
    let options = EngineOptions {
        kind,
        providers: vec![provider],
        policy: Policy::Required,
        ..config.engine_options(&first_model(config))
    };
    let engine = &config.engine;
    let required = engine.policy == Policy::Required && engine.providers.first() == Some(&provider);
    let is_engine_needed = match kind {
        EngineKind::OnnxRuntime => requires_onnx_runtime(config),
        EngineKind::Embedded | EngineKind::Auto => engine.kind == kind,
    };
    let needed = required || (provider == Provider::Cpu && is_engine_needed);
    match evaluate(&options) {
        Ok(found) => Finding::good(about, found),
        Err(error) => {
            let next = next_step(&error, provider, platform);
            let found = match &error {
                TrialError::Model(ModelError::Engine(
                    EngineError::Provider { failure, .. } | EngineError::NoProvider { failure, .. },
                )) => failure.to_string(),
                TrialError::Model(ModelError::Engine(EngineError::Library(LibraryError::Load {
                    path,
                    fault,
                    setting,
                }))) => library_cause(path, fault, *setting),
                other => other.to_string(),
            };
            // If another engine or provider can take over, this one is optional. None takes over from a library that is
            // named and cannot be loaded.
            if needed || refused_library(&error).is_some() {
                Finding::missing(about, found, next)
            } else {
                Finding::note(about, found, next)
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("cannot set up the test network: {0}")]
    Io(std::io::Error),
    #[error("wrong results: {found:?} instead of {expected:?}")]
    Wrong { found: Vec<f32>, expected: Vec<f32> },
    #[error(transparent)]
    Evaluation(#[from] crate::inference::EvaluationError),
}

impl From<std::io::Error> for TrialError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn evaluate(options: &EngineOptions) -> Result<String, TrialError> {
    let directory = tempfile::tempdir()?;
    let bundle = directory.path().join("doctor");
    std::fs::create_dir(&bundle)?;
    std::fs::write(bundle.join("model.onnx"), TINY_NETWORK)?;
    std::fs::write(bundle.join("scheduler_config.json"), SCHEDULER)?;
    // The cache is temporary, so the engine that is built here is not kept.
    let options = EngineOptions { cache: directory.path().join("cache"), build_memory: 0, ..options.clone() };
    let mut model = Model::load(&bundle, &options)?;
    let (sample, t) = ([0.5_f32, -1.5, 2.0, 0.25], 3.0_f32);
    let mut batch = Batch::default();
    batch.push(|x| x.extend(sample), f64::from(t), 0, &model.bundle.manifest);
    let mut found = Vec::new();
    model.predictor.evaluate(&batch, &mut found)?;
    let expected: Vec<f32> = sample.iter().map(|x| 2.0 * x + t).collect();
    let is_close =
        found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-2);
    if !is_close {
        return Err(TrialError::Wrong { found, expected });
    }
    let backend = model.predictor.backend();
    Ok(format!("{} {} works on {}", backend.engine, backend.version, backend.provider))
}

/// The setting of a library that is named and cannot be loaded, which ends every command that opens a model.
fn refused_library(error: &TrialError) -> Option<Option<&'static str>> {
    match error {
        TrialError::Model(ModelError::Engine(EngineError::Library(LibraryError::Load {
            setting, ..
        }))) => Some(*setting),
        _ => None,
    }
}

/// What to do about an error.
fn next_step(error: &TrialError, provider: Provider, platform: &Platform) -> String {
    let jetpack = platform.l4t_release().and_then(|release| release.jetpack);
    if let Some(setting) = refused_library(error) {
        return refused_library_step(setting, jetpack);
    }
    match error {
        TrialError::Model(ModelError::Engine(EngineError::Library(_))) => library_step(jetpack),
        TrialError::Io(_) | TrialError::Model(ModelError::Engine(EngineError::Io { .. })) => {
            "free space for temporary files, or set TMPDIR to a directory that can be written".to_owned()
        }
        TrialError::Model(ModelError::Engine(
            EngineError::Provider { failure: ProviderFailure::NotCompiledIn { .. }, .. }
            | EngineError::NoProvider { failure: ProviderFailure::NotCompiledIn { .. }, .. },
        )) => other_build_step(provider, jetpack),
        TrialError::Model(ModelError::Engine(
            EngineError::Provider { failure, .. } | EngineError::NoProvider { failure, .. },
        )) => match (missing_library(&failure.to_string()), jetpack) {
            (Some(library), Some(jetpack)) if library.contains("nvdla") && !jetpack.has_dla_compiler => {
                format!(
                    "{jetpack} has no {library}: use its own TensorRT ({}) and an ONNX Runtime that was built for it \
                     ({}), and nothing from a container",
                    jetpack.packages.tensorrt, jetpack.onnxruntime
                )
            }
            (Some(library), Some(_)) => {
                format!("sudo apt install nvidia-jetpack, which contains {library}")
            }
            (Some(library), None) => format!(
                "install the package that contains {library}, or remove {provider} from [engine] providers"
            ),
            (None, _) => format!("fix the reported error, or remove {provider} from [engine] providers"),
        },
        _ => "the library has a bug; try another version".to_owned(),
    }
}

/// Which build of ONNX Runtime has a provider.
fn other_build_step(provider: Provider, jetpack: Option<&JetPack>) -> String {
    match (provider, jetpack) {
        (Provider::OpenVino, _) => "python3 -m pip download --no-deps onnxruntime-openvino, unpack the wheel, \
             and set [engine] library to its onnxruntime/capi/libonnxruntime.so.X.Y.Z; or remove openvino from \
             [engine] providers"
            .to_owned(),
        (_, Some(jetpack)) => format!(
            "install NVIDIA's or Jetson Zoo's onnxruntime-gpu for {jetpack} ({}; {}), and set [engine] library to \
             its libonnxruntime.so.X.Y.Z",
            jetpack.onnxruntime,
            document("jetson.md")
        ),
        (_, None) => format!(
            "without an NVIDIA GPU, nothing to do; else set [engine] library to the library of \
             onnxruntime-gpu, or remove {provider} from [engine] providers"
        ),
    }
}

/// What to do about a library that is named. Another one in /usr/lib/denoised is of no use while the setting is there.
fn refused_library_step(setting: Option<&str>, jetpack: Option<&JetPack>) -> String {
    let advice = library_advice(setting);
    let Some(setting) = setting else { return format!("{advice}; or {}", library_step(jetpack)) };
    let (package, file) = match jetpack {
        Some(jetpack) => {
            (format!("onnxruntime-gpu {} for {jetpack}", jetpack.onnxruntime), "libonnxruntime.so.X.Y.Z")
        }
        None => ("onnxruntime==1.23.2".to_owned(), "libonnxruntime.so.1.23.2"),
    };
    format!(
        "{advice}; {setting} takes a file such as onnxruntime/capi/{file} in the unpacked wheel of {package}; {} says where to \
         get it",
        document("jetson.md")
    )
}

/// Where to get the library.
fn library_step(jetpack: Option<&JetPack>) -> String {
    let document = document("jetson.md");
    match jetpack {
        Some(jetpack) => format!(
            "download onnxruntime-gpu {} for {jetpack} from the Jetson Zoo, unpack the wheel, and copy its \
             onnxruntime/capi/libonnxruntime*.so* to /usr/lib/denoised, or set [engine] library; {document} has the \
             commands",
            jetpack.onnxruntime
        ),
        None => format!(
            "python3 -m pip download --no-deps onnxruntime==1.23.2, unpack the wheel, and put \
             onnxruntime/capi/libonnxruntime.so.1.23.2 into /usr/lib/denoised or set [engine] library to it; \
             {document} lists builds with CUDA and TensorRT"
        ),
    }
}

/// Returns where a document is: where the package installs it, or in the repository.
fn document(name: &str) -> String {
    let installed = std::path::Path::new("/usr/share/doc/denoised/docs").join(name);
    if installed.is_file() { installed.display().to_string() } else { format!("docs/{name}") }
}

/// Returns the library that a message of the dynamic loader names as missing.
fn missing_library(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": cannot open shared object file")?;
    before.rsplit([' ', ':']).next()
}
