//! The engines: whether ONNX Runtime is there, and whether each provider really computes.

use super::finding::Finding;
use crate::config::Config;
use crate::inference::{EngineError, EngineKind, EngineOptions, Policy, Provider, ProviderFailure};
use crate::model::{Batch, Model, ModelError};
use crate::platform::{JetPack, Platform};

/// A network that adds a noise level to a sample, for trying a provider.
const TINY: &[u8] = include_bytes!("tiny.onnx");
const SCHEDULER: &str = r#"{"_class_name": "DDPMScheduler"}"#;

pub(super) fn findings(config: &Config, board: &Platform) -> Vec<Finding> {
    let mut findings = vec![trial("embedded engine", config, EngineKind::Embedded, Provider::Cpu, board)];
    if config.engine.kind == EngineKind::Embedded {
        return findings;
    }
    let library = trial("ONNX Runtime", config, EngineKind::OnnxRuntime, Provider::Cpu, board);
    let is_there = library.next.is_none();
    findings.push(library);
    if is_there {
        let others = config.engine.providers.iter().filter(|provider| **provider != Provider::Cpu);
        findings.extend(others.map(|provider| {
            let name = format!("provider {provider}");
            trial(&name, config, EngineKind::OnnxRuntime, *provider, board)
        }));
    }
    findings
}

/// Load the tiny network on one provider, evaluate it and compare.
fn trial(about: &str, config: &Config, kind: EngineKind, provider: Provider, board: &Platform) -> Finding {
    let first = config.models.paths.first().cloned().unwrap_or_default();
    let options = EngineOptions {
        kind,
        providers: vec![provider],
        policy: Policy::Required,
        ..config.engine_of(&first)
    };
    let engine = &config.engine;
    let required = engine.policy == Policy::Required && engine.providers.first() == Some(&provider);
    let needed = required || (provider == Provider::Cpu && engine.kind == kind);
    match computes(&options) {
        Ok(found) => Finding::good(about, found),
        Err(error) => {
            let next = next_step(&error, provider, board);
            let found = match &error {
                Trial::Model(ModelError::Engine(EngineError::Provider { failure, .. })) => {
                    failure.to_string()
                }
                other => other.to_string(),
            };
            // Where another engine or provider may serve, this one is only worth knowing of.
            if needed { Finding::missing(about, found, next) } else { Finding::note(about, found, next) }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trial {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the trial could not be made: {0}")]
    Io(#[from] std::io::Error),
    #[error("it computes wrongly: {found:?} where {expected:?} is right")]
    Wrong { found: Vec<f32>, expected: Vec<f32> },
    #[error(transparent)]
    Evaluation(#[from] crate::inference::EvaluationError),
}

fn computes(options: &EngineOptions) -> Result<String, Trial> {
    let directory = tempfile::tempdir()?;
    let bundle = directory.path().join("doctor");
    std::fs::create_dir(&bundle)?;
    std::fs::write(bundle.join("model.onnx"), TINY)?;
    std::fs::write(bundle.join("scheduler_config.json"), SCHEDULER)?;
    // An engine built for a trial is kept nowhere.
    let options = EngineOptions { cache: directory.path().join("cache"), build_memory: 0, ..options.clone() };
    let mut model = Model::load(&bundle, &options)?;
    let (sample, t) = ([0.5_f32, -1.5, 2.0, 0.25], 3.0_f32);
    let mut batch = Batch::default();
    batch.push(|x| x.extend(sample), f64::from(t), 0, &model.bundle.manifest);
    let mut found = Vec::new();
    model.predictor.evaluate(&batch, &mut found)?;
    let expected: Vec<f32> = sample.iter().map(|x| 2.0 * x + t).collect();
    let near =
        found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-2);
    if !near {
        return Err(Trial::Wrong { found, expected });
    }
    let origin = model.predictor.backend();
    Ok(format!("{} {} computes on {}", origin.engine, origin.version, origin.provider))
}

fn next_step(error: &Trial, provider: Provider, board: &Platform) -> String {
    let jetpack = board.release().and_then(|release| release.jetpack);
    let words = error.to_string();
    match error {
        Trial::Model(ModelError::Engine(EngineError::Library(_))) => library_step(jetpack),
        Trial::Io(_) | Trial::Model(ModelError::Engine(EngineError::Io { .. })) => {
            "make room for temporary files, or set TMPDIR to a directory that can be written".to_owned()
        }
        Trial::Model(ModelError::Engine(EngineError::Provider {
            failure: ProviderFailure::NotCompiledIn { .. },
            ..
        })) => match (provider, jetpack) {
            (Provider::OpenVino, _) => {
                "python3 -m pip download --no-deps onnxruntime-openvino, unpack it, and name its \
                 onnxruntime/capi/libonnxruntime.so.X.Y.Z in [engine] library; or take openvino out of [engine] providers"
                    .to_owned()
            }
            (_, Some(jetpack)) => format!(
                "take NVIDIA's or Jetson Zoo's onnxruntime-gpu for {jetpack} (up to {}; docs/jetson.md), and name its \
                 libonnxruntime.so.X.Y.Z in [engine] library",
                jetpack.newest_onnxruntime()
            ),
            (_, None) => format!(
                "nothing to do where there is no NVIDIA GPU; else name the library of onnxruntime-gpu in [engine] \
                 library, or take {provider} out of [engine] providers"
            ),
        },
        Trial::Model(ModelError::Engine(EngineError::Provider { .. })) => match (missing_library(&words), jetpack) {
            (Some(library), Some(_)) => format!("sudo apt install nvidia-jetpack, which brings {library}"),
            (Some(library), None) => {
                format!("install the package that has {library}, or take {provider} out of [engine] providers")
            }
            (None, _) => format!("see what it says, or take {provider} out of [engine] providers"),
        },
        _ => "this is a fault of the library; try another version of it".to_owned(),
    }
}

fn library_step(jetpack: Option<JetPack>) -> String {
    let version = jetpack.map_or("1.23.2", |jetpack| match jetpack {
        JetPack::Five => "1.18.0",
        _ => "1.23.2",
    });
    format!(
        "python3 -m pip download --no-deps onnxruntime=={version}, unpack the wheel, and put \
         onnxruntime/capi/libonnxruntime.so.{version} into /usr/lib/denoised or name it in [engine] library; \
         docs/jetson.md says which build has CUDA and TensorRT"
    )
}

/// The first library that a loader's message misses.
fn missing_library(words: &str) -> Option<&str> {
    let (before, _) = words.split_once(": cannot open shared object file")?;
    before.rsplit([' ', ':']).next()
}
