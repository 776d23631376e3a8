//! The engines that are measured, and ONNX Runtime without this project's code for comparison.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use denoised::bundle::Signature;
use denoised::inference::{Backend, EngineKind, EngineOptions, EvaluationError, Policy, Provider};
use denoised::model::{Batch, Model, Predictor};
use ort::ep::CUDA;
use ort::session::Session;
use ort::value::TensorRef;

use crate::common::commands::onnxruntime;
use crate::timed_process::{TimedProcess, memory_mib};

/// Returns the execution provider in DENOISED_BENCH_PROVIDER, by default the CPU.
fn provider() -> Provider {
    let name = std::env::var("DENOISED_BENCH_PROVIDER").unwrap_or_else(|_| "cpu".to_owned());
    serde_json::from_value(name.into()).unwrap()
}

/// Returns options for ONNX Runtime with that provider, without fallback.
pub fn runtime() -> EngineOptions {
    EngineOptions {
        kind: EngineKind::OnnxRuntime,
        library: Some(onnxruntime()),
        providers: vec![provider()],
        policy: Policy::Required,
        ..EngineOptions::default()
    }
}

/// Returns options for the embedded engine.
pub fn embedded() -> EngineOptions {
    EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }
}

/// Loads a bundle on an engine.
pub fn load(bundle: &Path, options: &EngineOptions) -> Model {
    Model::load(bundle, options).unwrap()
}

/// A predictor that several owners share, and that measures its evaluations.
#[derive(Clone)]
pub struct Shared {
    predictor: Arc<Mutex<Box<dyn Predictor>>>,
    elapsed: Arc<Mutex<Duration>>,
    signature: Signature,
    backend: Backend,
}

impl Shared {
    /// Shares the predictor of a model.
    pub fn from_model(model: Model) -> (Model, Self) {
        let (signature, backend) = (model.predictor.signature().clone(), model.predictor.backend().clone());
        let shared = Self {
            predictor: Arc::new(Mutex::new(model.predictor)),
            elapsed: Arc::default(),
            signature,
            backend,
        };
        (Model { predictor: Box::new(shared.clone()), ..model }, shared)
    }

    /// Returns the seconds of all evaluations since the last call.
    pub fn take_seconds(&self) -> f64 {
        std::mem::take(&mut *self.elapsed.lock().unwrap()).as_secs_f64()
    }
}

impl Predictor for Shared {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let start = Instant::now();
        let evaluated = self.predictor.lock().unwrap().evaluate(batch, output);
        *self.elapsed.lock().unwrap() += start.elapsed();
        evaluated
    }
}

/// Returns a bundle of `benches/networks.py`, if `benches/run` made it.
pub fn network(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("DENOISED_BENCH_NETWORKS")?).join(name);
    folder.is_dir().then_some(folder)
}

/// ONNX Runtime without this project's code, in another process, because a process has only one environment of ONNX
/// Runtime.
pub struct BareSession(TimedProcess);

impl BareSession {
    /// Opens a bundle for samples of this shape.
    pub fn open(bundle: &Path, shape: &[usize]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(BARE).arg(bundle.join("unet/model.onnx"));
        command.args(shape.iter().map(ToString::to_string));
        Self(TimedProcess::from_command(command))
    }

    /// Evaluates the graph this number of times, at batch size one.
    pub fn run(&mut self, times: usize) {
        self.0.run(&times.to_string());
    }

    /// Returns the peak resident memory of the process in MiB.
    pub fn peak_memory(&self) -> f64 {
        memory_mib(self.0.id(), "VmHWM:")
    }
}

/// The argument with which this program calls itself for [`BareSession`].
pub const BARE: &str = "--bare";

/// Runs the process of a [`BareSession`]: reads numbers of evaluations from stdin, and prints seconds.
pub fn run_bare_session(arguments: &[String]) {
    let start = Instant::now();
    let environment = ort::init_from(onnxruntime()).unwrap().build().unwrap();
    let mut builder = Session::builder(&environment).unwrap();
    builder = match provider() {
        Provider::Cpu => builder,
        Provider::Cuda => {
            builder.with_execution_providers([CUDA::default().build().error_on_failure()]).unwrap()
        }
        other => panic!("bare sessions do not support {other}; use cpu or cuda"),
    };
    let mut session = builder.commit_from_file(&arguments[0]).unwrap();
    println!("{}", start.elapsed().as_secs_f64());
    let shape: Vec<usize> = arguments[1..].iter().map(|length| length.parse().unwrap()).collect();
    let sample = vec![0.1_f32; shape.iter().product()];
    let shape = [&[1], &shape[..]].concat();
    for line in std::io::stdin().lines() {
        let times: usize = line.unwrap().parse().unwrap();
        let start = Instant::now();
        for _ in 0..times {
            let sample = TensorRef::from_array_view((shape.clone(), &sample[..])).unwrap();
            let time = TensorRef::from_array_view(([1], &[500.0_f32][..])).unwrap();
            let class = TensorRef::from_array_view(([1], &[3_i64][..])).unwrap();
            let outputs = match session.inputs().len() {
                2 => session.run(ort::inputs![sample, time]),
                _ => session.run(ort::inputs![sample, time, class]),
            };
            std::hint::black_box(outputs.unwrap());
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
}
