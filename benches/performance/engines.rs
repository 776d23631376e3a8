//! The engines to measure with, and a bare one beside them.

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
use crate::mqtt_peer::{Peer, figure};

/// Where ONNX Runtime does its arithmetic: on the processor, or where DENOISED_BENCH_PROVIDER says.
fn provider() -> Provider {
    let named = std::env::var("DENOISED_BENCH_PROVIDER").unwrap_or_else(|_| "cpu".to_owned());
    serde_json::from_value(named.into()).unwrap()
}

/// ONNX Runtime with that provider, and with no other in its place.
pub fn runtime() -> EngineOptions {
    EngineOptions {
        kind: EngineKind::OnnxRuntime,
        library: Some(onnxruntime()),
        providers: vec![provider()],
        policy: Policy::Required,
        ..EngineOptions::default()
    }
}

/// The embedded engine.
pub fn embedded() -> EngineOptions {
    EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }
}

/// A bundle on an engine.
pub fn load(bundle: &Path, options: &EngineOptions) -> Model {
    Model::load(bundle, options).unwrap()
}

/// A predictor that several use in turns.
#[derive(Clone)]
pub struct Shared {
    predictor: Arc<Mutex<Box<dyn Predictor>>>,
    spent: Arc<Mutex<Duration>>,
    signature: Signature,
    origin: Backend,
}

impl Shared {
    /// A model's own, which the model then shares.
    pub fn of(model: Model) -> (Model, Self) {
        let (signature, origin) = (model.predictor.signature().clone(), model.predictor.backend().clone());
        let shared = Self {
            predictor: Arc::new(Mutex::new(model.predictor)),
            spent: Arc::default(),
            signature,
            origin,
        };
        (Model { predictor: Box::new(shared.clone()), ..model }, shared)
    }

    /// The seconds that were spent in evaluations since the last call.
    pub fn spent(&self) -> f64 {
        std::mem::take(&mut *self.spent.lock().unwrap()).as_secs_f64()
    }
}

impl Predictor for Shared {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn backend(&self) -> &Backend {
        &self.origin
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let start = Instant::now();
        let evaluated = self.predictor.lock().unwrap().evaluate(batch, output);
        *self.spent.lock().unwrap() += start.elapsed();
        evaluated
    }
}

/// A bundle of `benches/networks.py`, where they were made.
pub fn network(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("DENOISED_BENCH_NETWORKS")?).join(name);
    folder.is_dir().then_some(folder)
}

/// A graph as ONNX Runtime itself runs it, with nothing of ours around it: in a process of its own, since a
/// process has but one environment.
pub struct Bare(Peer);

impl Bare {
    /// With samples of this shape.
    pub fn open(bundle: &Path, shape: &[usize]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(BARE).arg(bundle.join("unet/model.onnx"));
        command.args(shape.iter().map(ToString::to_string));
        Self(Peer::of(command))
    }

    /// Evaluate it so often, one sample at a time.
    pub fn run(&mut self, times: usize) {
        self.0.seconds(&times.to_string());
    }

    /// The most that it was resident with, in MiB.
    pub fn resident(&self) -> f64 {
        figure(self.0.process(), "VmHWM:")
    }
}

/// The argument that makes this program a bare engine.
pub const BARE: &str = "--bare";

/// Be a bare engine: for each number on stdin evaluate the graph so often, then answer.
pub fn be_bare(arguments: &[String]) {
    let start = Instant::now();
    let environment = ort::init_from(onnxruntime()).unwrap().build().unwrap();
    let mut builder = Session::builder(&environment).unwrap();
    builder = match provider() {
        Provider::Cpu => builder,
        Provider::Cuda => {
            builder.with_execution_providers([CUDA::default().build().error_on_failure()]).unwrap()
        }
        other => panic!("a bare session on {other} is not made"),
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
            let found = match session.inputs().len() {
                2 => session.run(ort::inputs![sample, time]),
                _ => session.run(ort::inputs![sample, time, class]),
            };
            std::hint::black_box(found.unwrap());
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
}
